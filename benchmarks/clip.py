"""cliplab against torch.nn.utils: time of one clip over the gradients of a model.

Arms are interleaved; the ratios of median times are printed. `python benchmarks/clip.py`
"""

import statistics
import time

import torch

import cliplab

MODELS = {"200 tensors of 4k": (200, 4096), "20 tensors of 1M": (20, 1 << 20)}


def main():
    torch.set_num_threads(1)
    for name, (count, size) in MODELS.items():
        params = [torch.nn.Parameter(torch.zeros(size)) for _ in range(count)]
        raw = [torch.randn(size) for _ in params]
        norm = cliplab.total_norm(raw).item()
        for case, limit in (("clipped", norm / 2), ("not clipped", norm * 2)):
            clipper = cliplab.Clipper(params, limit)
            arms = {
                "torch": lambda c=limit, p=params: torch.nn.utils.clip_grad_norm_(p, c),
                "clip_grad_norm_": lambda c=limit, p=params: cliplab.clip_grad_norm_(p, c),
                "Clipper": clipper.clip,
            }
            times = {label: [] for label in arms}
            for _ in range(30):
                for label, clip in arms.items():
                    for p, grad in zip(params, raw, strict=True):
                        p.grad = grad.clone()
                    started = time.perf_counter()
                    clip()
                    times[label].append(time.perf_counter() - started)
            medians = {label: statistics.median(values) for label, values in times.items()}
            ratios = ", ".join(f"{k} {v / medians['torch']:.2f}" for k, v in medians.items())
            print(f"{name}, {case}: {ratios}  (torch {medians['torch'] * 1e3:.2f} ms)")


if __name__ == "__main__":
    main()
