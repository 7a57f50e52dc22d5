"""The gradient in parts against autograd, micro-batch by micro-batch, and against clipping each."""

import torch
from torch.nn import functional as F

from cliplab import Clipper
from cliplab.lab.models.micro import micro_gradients, run_lstm, start_lstm

VOCAB, WIDTH, MICRO = 7, 5, 3


def members():
    """Two models and their six windows of four symbols."""
    starts = [start_lstm(VOCAB, WIDTH, seed) for seed in (0, 1)]
    weights = {name: torch.stack([start[name] for start in starts]) for name in starts[0]}
    generator = torch.Generator().manual_seed(2)
    return weights, *torch.randint(VOCAB, (2, 2, 6, 4), generator=generator)


def test_each_part_is_what_autograd_finds_of_its_own_windows():
    weights, inputs, targets = members()
    grads, losses = micro_gradients(weights, inputs, targets, MICRO)
    for m in range(2):
        for k in range(MICRO):
            leaves = {n: w[m : m + 1].clone().requires_grad_() for n, w in weights.items()}
            own = slice(2 * k, 2 * k + 2)
            logits = run_lstm(leaves, inputs[m : m + 1, own])[1]
            F.cross_entropy(logits.flatten(0, -2), targets[m, own].flatten()).backward()
            for name, leaf in leaves.items():
                torch.testing.assert_close(grads[name][m, k], leaf.grad[0], atol=1e-6, rtol=1e-5)
    logits = run_lstm(weights, inputs)[1]
    whole = F.cross_entropy(logits[1].flatten(0, -2), targets[1].flatten())
    torch.testing.assert_close(losses[1], whole)


def test_clipping_the_parts_is_clipping_each_micro_batch_before_it_is_accumulated():
    weights, inputs, targets = members()
    grads, _ = micro_gradients(weights, inputs, targets, MICRO)
    sizes = torch.stack([g[0].flatten(1).norm(dim=1) for g in grads.values()]).norm(dim=0)
    limit = float(sizes.median())
    factors = (limit / sizes).clamp(max=1) / MICRO
    leaves = {name: torch.nn.Parameter(w[:1].clone()) for name, w in weights.items()}
    clipper = Clipper(list(leaves.values()), threshold=limit / MICRO)
    for part, nexts in zip(inputs[:1].split(2, 1), targets[:1].split(2, 1), strict=True):
        with clipper.microbatch():
            logits = run_lstm(leaves, part)[1]
            (F.cross_entropy(logits.flatten(0, -2), nexts.flatten()) / MICRO).backward()
    for name, leaf in leaves.items():
        mean = torch.einsum("k,k...->...", factors, grads[name][0])
        torch.testing.assert_close(mean, leaf.grad[0], atol=1e-6, rtol=1e-5)
    assert clipper.history.clip_fraction > 0
