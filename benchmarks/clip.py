"""cliplab against its peers: time of one clip of a model's gradients, as ratios.

`python benchmarks/clip.py [--threads 1] [--repeats 30] [--write]`

All arms of a table run interleaved in one process, gradients are refilled before each, and the
ratio of the median times is printed. "nothing" has a limit above the norm, "everything" a limit
below it. `history` is recorded. Target: the ratio that is aimed at. `timm` is measured if its file
is found. `--write` puts the tables into benchmarks/clip.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

import cliplab
from cliplab import Clipper
from cliplab.thresholds import Known

WIDTH, LAYERS, VOCABULARY = 384, 6, 8192
TRANSFORMER = [
    shape
    for _ in range(LAYERS)
    for shape in (
        [(3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,)]
        + [(4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), (WIDTH,)]
        + [(WIDTH,)] * 4
    )
] + [(VOCABULARY, WIDTH), (1024, WIDTH)]
LSTM = [(4096, 1024), (4096, 1024), (4096,), (4096,)] * 2 + [(1500, 1024), (1500, 1024), (1500,)]
MLP = [(256, 784), (256,), (256, 256), (256,), (10, 256), (10,)]


def resnet():
    """Shapes of a ResNet-50's 161 tensors, and one more, with a quarter of the channels."""
    shapes = [(16, 3, 7, 7), (16,), (16,)]
    channels = 16
    for blocks, width in ((3, 16), (4, 32), (6, 64), (3, 128)):
        for block in range(blocks):
            convs = [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:
                convs.append((4 * width, channels, 1, 1))
            for conv in convs:
                shapes += [conv, conv[:1], conv[:1]]
            channels = 4 * width
    return [*shapes, (100, channels), (100,), (1,)]


SETS = {"MLP": MLP, "ResNet": resnet(), "transformer": TRANSFORMER, "LSTM": LSTM}
POLICIES = {
    "MovingAverage": cliplab.MovingAverage,
    "Percentile": cliplab.Percentile,
    "EMA": cliplab.EMA,
    "ZScore": cliplab.ZScore,
    "Queue": cliplab.Queue,
    "TargetRate": cliplab.TargetRate,
    "Decay": cliplab.Decay,
    "RobustSpike": cliplab.RobustSpike,
    "SpikeSkip": cliplab.SpikeSkip,
}


class Gradients:
    """Parameters of some shapes, whose gradients can be refilled."""

    def __init__(self, shapes):
        torch.manual_seed(0)
        self.params = [nn.Parameter(torch.randn(s) * 0.1) for s in shapes]
        self.raw = [torch.randn(s) * 0.01 for s in shapes]
        for p in self.params:
            p.grad = torch.empty_like(p)
        self.flat = torch.cat([g.flatten() for g in self.raw])
        self.norm = float(self.flat.norm())

    def refill(self):
        torch._foreach_copy_([p.grad for p in self.params], self.raw)


def medians(arms, gradients, repeats):
    """Median seconds of every arm; the order turns so that none always follows the same other."""
    times = {label: [] for label in arms}
    labels = list(arms)
    for i in range(repeats):
        for label in labels[i % len(labels) :] + labels[: i % len(labels)]:
            gradients.refill()
            begun = time.perf_counter()
            arms[label]()
            times[label].append(time.perf_counter() - begun)
    return {label: statistics.median(values) for label, values in times.items()}


def against_torch(gradients, repeats):
    """clip_grad_norm_, nothing and everything clipped; and one read of all gradients."""
    rows = {}
    for case, limit in (("nothing", gradients.norm * 2), ("everything", gradients.norm / 2)):
        arms = {
            "torch": lambda c=limit: nn.utils.clip_grad_norm_(gradients.params, c),
            "Clipper": Clipper(gradients.params, limit).clip,
            "drop-in": lambda c=limit: cliplab.clip_grad_norm_(gradients.params, c),
            "one read": lambda: torch.dot(gradients.flat, gradients.flat),
        }
        time_of = medians(arms, gradients, repeats)
        rows[f"Clipper / torch, {case}"] = time_of["Clipper"] / time_of["torch"]
        rows[f"clip_grad_norm_ / torch, {case}"] = time_of["drop-in"] / time_of["torch"]
        if case == "nothing":
            rows["Clipper / one read, nothing"] = time_of["Clipper"] / time_of["one read"]
    return rows


def against_fused_step(gradients, repeats):
    """torch's clip and a fused AdamW step, against the factor handed to the fused step."""
    limit, arms = gradients.norm / 2, {}
    models = [[nn.Parameter(p.detach().clone()) for p in gradients.params] for _ in range(2)]
    for params in models:
        for p, g in zip(params, gradients.params, strict=True):
            p.grad = torch.empty_like(g)
    steps = [torch.optim.AdamW(params, fused=True, lr=1e-5) for params in models]
    Clipper(models[1], limit).attach(steps[1])

    def torch_way():
        nn.utils.clip_grad_norm_(models[0], limit)
        steps[0].step()

    class Both:
        def refill(self):
            for params in models:
                torch._foreach_copy_([p.grad for p in params], gradients.raw)

    arms = {"torch": torch_way, "attach": steps[1].step}
    time_of = medians(arms, Both(), repeats)
    return {"attach + fused AdamW / torch, everything": time_of["attach"] / time_of["torch"]}


def against_timm(gradients, repeats):
    """AGC, everything clipped."""
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        return {}
    path = Path(found.submodule_search_locations[0]) / "utils" / "agc.py"
    specification = importlib.util.spec_from_file_location("agc", path)
    agc = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(agc)
    arms = {
        "timm": lambda: agc.adaptive_clip_grad(gradients.params, 1e-3),
        "Clipper": cliplab.create("agc", gradients.params, ratio=1e-3).clip,
        "adaptive_clip_": lambda: cliplab.adaptive_clip_(gradients.params, 1e-3),
        "one read": lambda: torch.dot(gradients.flat, gradients.flat),
    }
    time_of = medians(arms, gradients, max(7, repeats // 4))
    return {
        "agc / timm": time_of["Clipper"] / time_of["timm"],
        "adaptive_clip_ / timm": time_of["adaptive_clip_"] / time_of["timm"],
        "agc / one read": time_of["Clipper"] / time_of["one read"],
        "timm / one read": time_of["timm"] / time_of["one read"],
    }


def updates(gradients, repeats):
    """A step of AdamW whose update is limited or measured, against the step alone; its memory."""
    models = [[nn.Parameter(p.detach().clone()) for p in gradients.params] for _ in range(4)]
    steps = [torch.optim.AdamW(params, lr=1e-5) for params in models]
    for params in models:
        for p, raw in zip(params, gradients.raw, strict=True):
            p.grad = raw.clone()
    Clipper(models[1], cliplab.RMS(0.5), scope="tensor", target="update").attach(steps[1])
    Clipper(models[2], 1e9).attach(steps[2], measure_update=True)
    entries = cliplab.create("adamw_clip", models[3])
    entries.attach(steps[3])
    arms = {"AdamW": steps[0].step, "limited": steps[1].step, "measured": steps[2].step}
    time_of = medians(arms | {"entries": steps[3].step}, gradients, max(7, repeats // 4))
    size = sum(p.numel() * p.element_size() for p in gradients.params)
    state = sum(t.numel() * t.element_size() for t in entries.policy.state.values())
    alone = peak_bytes(steps[0].step)
    return {
        "step with its update limited / AdamW step": time_of["limited"] / time_of["AdamW"],
        "step with its update measured / AdamW step": time_of["measured"] / time_of["AdamW"],
        "step with adamw_clip / AdamW step": time_of["entries"] / time_of["AdamW"],
        "most memory of the update limited / weights": (peak_bytes(steps[1].step) - alone) / size,
        "state of adamw_clip / weights": state / size,
    }


def peak_bytes(function):
    """The most memory of tensors that a call holds beyond what there was before it."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        function()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def policies(gradients, repeats):
    """Every adaptive policy against Fixed, everything clipped or not as the policy has it."""
    arms = {"Fixed": Clipper(gradients.params, gradients.norm).clip}
    for name, make in POLICIES.items():
        clipper = Clipper(gradients.params, make())
        for _ in range(150):  # beyond every warm-up
            clipper.clip()
        arms[name] = clipper.clip
    time_of = medians(arms, gradients, repeats)
    return {f"{name} / Fixed": time_of[name] / time_of["Fixed"] for name in POLICIES}


def late_against_early(gradients, repeats, early=1_000, late=1_000_000):
    """Step 1,000,000 against step 1,000: the late state is reached without clipping."""
    rows = {}
    for name, make in POLICIES.items():
        pair = []
        for steps in (early, late):
            clipper = Clipper(gradients.params, make())
            known = Known(total_norm=torch.tensor(gradients.norm))
            context = cliplab.Context(torch.tensor([True]), measured=known)
            for size in torch.randn(min(steps, 20_000)).mul(0.3).exp():
                clipper.policy(gradients.norm * size.reshape(1), context)
            if steps == late:
                _pretend(clipper.policy, late)
            clipper.steps = steps
            pair.append(clipper)
        arms = {"early": pair[0].clip, "late": pair[1].clip}
        time_of = medians(arms, gradients, repeats)
        rows[f"{name}: step {late:,} / step {early:,}"] = time_of["late"] / time_of["early"]
    return rows


def _pretend(policy, steps):
    """Set the step counts of a state that has seen many steps to those of one that saw more."""
    for name, tensor in policy.state.items():
        if name in ("count", "sizes_seen"):
            tensor.fill_(steps)


def table(title, columns, targets):
    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    lines = [f"### {title}", "", "| ratio of times | " + " | ".join(columns) + " | target |"]
    lines.append("| --- " * (len(columns) + 2) + "|")
    for row in rows:
        cells = [f"{column[row]:.2f}" if row in column else "" for column in columns.values()]
        lines.append(f"| {row} | " + " | ".join(cells) + f" | {targets.get(row, '')} |")
    return "\n".join(lines)


TARGETS = {
    "Clipper / torch, nothing": "0.45 on transformer and LSTM, 0.6 ResNet, 1.0 MLP",
    "Clipper / torch, everything": "0.97 on transformer, LSTM and ResNet, 1.0 MLP",
    "Clipper / one read, nothing": "1.3 on transformer and LSTM",
    "attach + fused AdamW / torch, everything": "0.92 on transformer and LSTM, 1.0",
    "agc / one read": "4 on transformer and LSTM, 10 ResNet",
    "agc / timm": "0.25 on transformer, 0.12 LSTM, 0.6 ResNet",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = [
        "# Time of a clip, as ratios of medians",
        "",
        f"Written by `python benchmarks/clip.py --write`; torch {torch.__version__}, "
        f"{platform.machine()}, {options.repeats} interleaved repeats. Smaller is faster.",
    ]
    for threads in options.threads:
        torch.set_num_threads(threads)
        columns = {}
        for name, shapes in SETS.items():
            gradients = Gradients(shapes)
            parts = (against_torch, against_fused_step, against_timm, updates, policies)
            rows = {}
            for part in parts:
                rows |= part(gradients, options.repeats)
            if name in ("MLP", "transformer") and threads == 1:
                rows |= late_against_early(gradients, options.repeats)
            label = f"{name} ({len(shapes)} tensors, {gradients.flat.numel() / 1e6:.1f} M)"
            columns[label] = rows
        targets = TARGETS | {
            row: "1.1 on transformer and LSTM, 2.0 MLP"
            for column in columns.values()
            for row in column
            if row.endswith("/ Fixed")
        }
        targets |= {row: "1.1" for column in columns.values() for row in column if ": step" in row}
        text += ["", table(f"{threads} thread{'s' * (threads > 1)}", columns, targets)]
        print(text[-1], flush=True)
    if options.write:
        (Path(__file__).parent / "clip.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
