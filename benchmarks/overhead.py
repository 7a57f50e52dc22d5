"""What an attached policy costs in a training loop: CPU time of a step, over one without clipping.

`python benchmarks/overhead.py [--threads 1] [--rounds 40] [--methods robust agc] [--write]`

A small GPT (74 tensors, plain torch) is trained by AdamW as it comes; every arm has a model of its
own with the same weights and data. Arms take turns in blocks of a few steps, the first of which is
not counted: another arm's weights lay in the cache. What is compared is the processor time of the
whole process for zero_grad, forward, backward and step, which other programs do not move, and of
all blocks the median ratio to the block without clipping of the same round. Then every clipper is
taken apart: how much of a step's processor time goes into measuring, into deciding (policy and
response), into acting on gradients or weights, into keeping and comparing weights, and into the
rest (hooks, checks, recording). `--write` puts the tables into benchmarks/overhead.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import cliplab

VOCABULARY, WIDTH, LAYERS, HEADS, LENGTH, BATCH = 65, 64, 6, 4, 32, 8
BLOCK = 6  # steps of an arm in a row
LATE = 150  # steps beyond every warm-up
TARGETS = {"norm": 1.05, "robust": 1.05}  # of every other method 1.08
PAGE = Path(__file__).with_name("overhead.md")


class Layer(nn.Module):
    """A transformer's block: causal attention, then two linear maps; 12 tensors."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        heads = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class GPT(nn.Module):
    """Tokens ``[B, T]`` to logits ``[B, T, V]``; the output layer is the embedding's transpose."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, tokens):
        x = self.embed(tokens) + self.place.weight
        for layer in self.layers:
            x = layer(x)
        return x @ self.embed.weight.T


class Arm:
    """A model in training, clipped by a method, by torch or not at all."""

    def __init__(self, method):
        torch.manual_seed(0)
        self.model = GPT()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)
        self.torch_clips, self.asks_for_loss = method == "torch", method == "loss_ratio"
        if method not in ("nothing", "torch"):
            self.clipper = cliplab.create(method, self.model)
            self.attachment = self.clipper.attach(self.optimizer)

    def step(self, tokens):
        self.optimizer.zero_grad()
        logits = self.model(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        if self.asks_for_loss:
            self.clipper.observe(loss)
        if self.torch_clips:
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def block(self, data):
        """CPU seconds of a block, without its first step."""
        self.step(data[0])
        begun = time.process_time()
        for tokens in data[1:]:
            self.step(tokens)
        return time.process_time() - begun


def text_for_all():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (20, BLOCK, BATCH, LENGTH + 1), generator=generator)


def measure(methods, rounds):
    """Median ratio of every arm to the one without clipping, and that one's ms a step."""
    text = text_for_all()
    arms = {name: Arm(name) for name in ("nothing", "torch", *methods)}
    for arm in arms.values():
        for i in range(LATE):
            arm.step(text[i % 20, 0])
    ratios, alone, names = {name: [] for name in arms}, [], list(arms)
    for i in range(rounds):
        turn = names[i % len(names) :] + names[: i % len(names)]
        seconds = {name: arms[name].block(text[i % 20]) for name in turn}
        alone.append(seconds["nothing"] / (BLOCK - 1))
        for name in names:
            ratios[name].append(seconds[name] / seconds["nothing"])
    return {name: statistics.median(r) for name, r in ratios.items()}, statistics.median(alone)


PLACES = ("measuring", "deciding", "acting", "comparing", "the rest")


class Clock:
    """Processor time by place, each without the places that it calls."""

    def __init__(self):
        self.spent, self._inner = dict.fromkeys(PLACES, 0.0), [0.0]

    def watch(self, place, owner, *names):
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, self.timed(place, getattr(owner, name)))

    def timed(self, place, function):
        def timed_function(*args, **kwargs):
            self._inner.append(0.0)
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.thread_time() - begun
                self.spent[place] += seconds - self._inner.pop()
                self._inner[-1] += seconds

        return timed_function


def take_apart(method, text, steps=100):
    """Median share of a step's processor time that is spent in each of the places."""
    arm, clock = Arm(method), Clock()
    for i in range(LATE):
        arm.step(text[i % 20, 0])
    engine, optimizer = arm.attachment.engine, arm.optimizer
    clock.watch("measuring", engine.partition, "read", "measure")
    clock.watch("deciding", engine.policy, "step")
    clock.watch("deciding", engine, "_respond")
    clock.watch("acting", engine.partition, "scale_", "clamp_", "clear_")
    clock.watch("acting", engine, "_clamp_")
    clock.watch("acting", arm.attachment._update, "_hold_back")
    clock.watch("comparing", arm.attachment._update, "begin", "end")
    for hooks in (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks):
        hooks.update({key: clock.timed("the rest", hook) for key, hook in hooks.items()})
    shares = []
    for i in range(steps):
        clock.spent = dict.fromkeys(PLACES, 0.0)
        begun = time.thread_time()
        arm.step(text[i % 20, 0])
        whole = time.thread_time() - begun
        shares.append(
            [clock.spent[place] / (whole - sum(clock.spent.values())) for place in PLACES]
        )
    return [statistics.median(place) for place in zip(*shares, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--methods", nargs="*", default=[m.name for m in cliplab.list_methods()])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    page = ["# " + __doc__.split("\n")[0].rstrip(".") + "\n"]
    page.append(
        f"Written by `python benchmarks/overhead.py --write`; torch {torch.__version__}, "
        f"{platform.machine()}, {options.rounds} interleaved rounds. Smaller is better; 1 is no "
        "clipping. What measures updates holds a copy of the weights during a step, and a second "
        "one while it compares.\n"
    )
    for threads in options.threads:
        torch.set_num_threads(threads)
        ratios, alone = measure(options.methods, options.rounds)
        page.append(f"### {threads} thread{'s' * (threads > 1)}, {alone * 1e3:.1f} ms a step\n")
        page += ["| method | CPU time / no clipping | target |", "| --- | --- | --- |"]
        for name, ratio in ratios.items():
            target = "" if name in ("nothing", "torch") else f"{TARGETS.get(name, 1.08)}"
            page.append(f"| {name} | {ratio:.3f} | {target} |")
        page.append("")
    torch.set_num_threads(options.threads[0])
    page.append("### Where it goes: % of the step without clipping (median of 100 steps)\n")
    page += [f"| method | {' | '.join(PLACES)} |", f"| --- |{' --- |' * len(PLACES)}"]
    for name in options.methods:
        shares = take_apart(name, text_for_all())
        page.append(f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |")
    page.append("")
    print("\n".join(page))
    if options.write:
        PAGE.write_text("\n".join(page))


if __name__ == "__main__":
    main()
