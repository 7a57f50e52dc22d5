"""The diffs for large training scripts: short, and their added lines executed in small loops."""

import ast
import inspect
import math
import os
import re
from types import SimpleNamespace

import pytest
import torch
import torch.distributed.checkpoint as dcp
from imitating import DIFFS, HUNK, LOOPS, PAGE, PLACE, additions, with_diff, without_diff
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

import cliplab

CALLED = {
    "nanoGPT": {"Clipper", "attach", "load_state_dict", "latest", "state_dict"},
    "torchtitan": {"Clipper", "attach", "latest"},
    "verl": {"Clipper", "guard", "load_state_dict", "state_dict"},
}


def loss_of(model, step, micro_batch, spoiled=()):
    """Large enough at even steps to be clipped; not finite at those that are spoiled."""
    generator = torch.Generator().manual_seed(2 * step + micro_batch)
    loss = model(torch.randn(8, 6, generator=generator)).square().mean()
    return loss * (math.inf if step in spoiled else 0.1 if step % 2 else 30.0)


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def weights(*models):
    return [p.detach().clone() for model in models for p in model.parameters()]


def equal(some, others):
    return all(map(torch.equal, some, others))


@pytest.mark.parametrize("script", LOOPS)
def test_at_most_ten_lines_change_and_every_one_stands_where_its_hunk_says(script):
    lines = DIFFS[script].splitlines()
    changed = [line for line in lines[2:] if line[0] in "+-"]
    assert 2 <= len(changed) <= 10
    assert lines[0].startswith("--- a/")
    assert lines[1] == lines[0].replace("--- a/", "+++ b/")
    found = HUNK.findall(DIFFS[script])
    assert sum(lines.count("\n") + 1 for *_, lines in found) + 2 == len(lines)
    grown, last = 0, 0
    for before, after, _, text in found:
        (old, n_old), (new, n_new) = (map(int, f"{x},1".split(",")[:2]) for x in (before, after))
        assert [n_old, n_new] == [
            sum(line[0] == sign for line in text.splitlines()) for sign in "-+"
        ]
        assert new == old + grown + (n_old == 0) - (n_new == 0)
        assert old > last
        grown, last = grown + n_new - n_old, old


def test_the_page_names_a_commit_of_every_script():
    assert list(DIFFS) == list(LOOPS)
    assert len(re.findall(r"at\s`[0-9a-f]{40}`", PAGE)) == len(DIFFS)


@pytest.mark.parametrize("script", LOOPS)
def test_every_added_line_has_its_place_in_the_loop(script):
    assert sorted(p for _, p in PLACE.findall(LOOPS[script])) == sorted(additions(script))


@pytest.mark.parametrize("script", LOOPS)
def test_what_is_called_exists_and_takes_these_arguments(script):
    known = {
        "cliplab": cliplab,
        "clipper": cliplab.Clipper,
        "history": cliplab.Clipper([nn.Parameter(torch.zeros(1))]).history,
    }
    called = set()
    for node in ast.walk(ast.parse(with_diff(script))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            holder = node.func.value
            name = getattr(holder, "attr", getattr(holder, "id", None))
            if name in known:
                function = getattr(known[name], node.func.attr)
                itself = [None] * (name == "clipper")
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(function).bind(*itself, *node.args, **keywords)
                called.add(node.func.attr)
    assert called == CALLED[script]


def two_groups(model):
    decayed = [
        [p for p in model.parameters() if (p.dim() > 1) is matrix] for matrix in (True, False)
    ]
    groups = [{"params": p, "weight_decay": w} for p, w in zip(decayed, (0.1, 0.0), strict=True)]
    return torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95))


def nanogpt(code, first=0, last=8, checkpoint=None, *, scaled=True, spoiled=(3,), grad_clip=0.5):
    """The loop's namespace after it ran."""
    scope = {
        "math": math,
        "torch": torch,
        "model": layers(),
        "make_optimizer": two_groups,
        "loss_of": lambda *args: loss_of(*args, spoiled=spoiled),
        "scaler": torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled),
        "first": first,
        "last": last,
        "checkpoint": checkpoint,
        "grad_clip": grad_clip,
        "logged": [],
    }
    exec(code, scope)
    return scope


@pytest.mark.parametrize("scaled", [True, False])
def test_nanogpts_weights_are_those_of_torchs_clipping_bit_for_bit(scaled):
    spoiled = (3,) if scaled else ()
    ours = nanogpt(with_diff("nanoGPT"), scaled=scaled, spoiled=spoiled)
    theirs = nanogpt(without_diff("nanoGPT"), scaled=scaled, spoiled=spoiled)
    assert equal(weights(ours["model"]), weights(theirs["model"]))
    assert ours["scaler"].state_dict() == theirs["scaler"].state_dict()
    assert not equal(weights(ours["model"]), weights(layers()))
    taken = [row for row in ours["logged"] if row["step"] not in spoiled]
    assert {row["clip/clipped"] for row in taken} == {0.0, 1.0}
    assert [row["clip/lr"] for row in taken] == [0.01 / (1 + row["step"]) for row in taken]


def test_nanogpt_without_a_limit_only_measures():
    ours = nanogpt(with_diff("nanoGPT"), scaled=False, spoiled=(), grad_clip=0.0)
    theirs = nanogpt(without_diff("nanoGPT"), scaled=False, spoiled=(), grad_clip=0.0)
    assert equal(weights(ours["model"]), weights(theirs["model"]))
    assert {row["clip/factor"] for row in ours["logged"]} == {1.0}


@pytest.mark.parametrize("made", [None, r'cliplab.create("autoclip", \1, percentile=50)'])
def test_nanogpt_resumes_bit_for_bit(made):
    code = with_diff("nanoGPT", **({"made": made} if made else {}))
    whole = nanogpt(code)
    half = nanogpt(code, last=5)
    resumed = nanogpt(code, first=5, checkpoint=half["checkpoint"])
    assert equal(weights(resumed["model"]), weights(whole["model"]))
    assert resumed["logged"] == whole["logged"][5:]
    assert resumed["clipper"].steps == whole["clipper"].steps


@pytest.fixture
def one_rank():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.init_device_mesh("cpu", (1,), mesh_dim_names=("pp",))
    torch.distributed.destroy_process_group()


class Optimizers(torch.optim.Optimizer):
    """One optimizer for each part, and itself one that has hooks of its own."""

    def __init__(self, parts):
        self.each = [torch.optim.AdamW(part.parameters(), lr=0.01, fused=True) for part in parts]
        super().__init__([p for part in parts for p in part.parameters()], {})

    def __iter__(self):
        return iter(self.each)

    def step(self):
        for optimizer in self.each:
            optimizer.step()


def sharded():
    return fully_shard(layers(), mesh=torch.distributed.init_device_mesh("cpu", (1,)))


def titan(code, mesh, max_norm):
    scope = {"torch": torch, "SimpleNamespace": SimpleNamespace}
    scope |= {"Optimizers": Optimizers, "loss_of": loss_of}
    exec(code, scope)
    dims = SimpleNamespace(get_optional_mesh={"pp": mesh}.__getitem__)
    return scope["Trainer"](dims, [sharded(), sharded()], max_norm)


@pytest.mark.parametrize("pipeline", [False, True])
def test_torchtitans_step_clips_as_its_own_call(one_rank, pipeline):
    ours = titan(with_diff("torchtitan"), one_rank if pipeline else None, math.inf)
    theirs = titan(without_diff("torchtitan"), None, 1.0)
    for step in range(6):
        told, expected = ours.train_step(step), theirs.train_step(step)
        assert told["norm"] == pytest.approx(expected["norm"], rel=1e-5)
        assert told["clip/norm_before"] == pytest.approx(expected["norm"], rel=1e-5)
        assert told["clip/lr"] == 0.01
    assert ours.clipper.history.clip_fraction == 0.5
    for p, q in zip(weights(*ours.model_parts), weights(*theirs.model_parts), strict=True):
        torch.testing.assert_close(p.full_tensor(), q.full_tensor(), rtol=1e-5, atol=1e-6)


def titan_by_name(method):
    """The loop with a method by its name where the diff has a fixed limit."""
    given = re.compile(r"cliplab\.Clipper\(\n(.+),\n")
    code, count = given.subn(rf"cliplab.create({method},\n\1,\n", with_diff("torchtitan"))
    assert count == 1
    return code


def test_torchtitans_step_moves_nothing_where_a_policy_skips(one_rank):
    ours = titan(
        titan_by_name('"skip_threshold"').replace("reduce=", "threshold=0.5, reduce="),
        one_rank,
        math.inf,
    )
    ours.train_step(1)
    before = weights(*ours.model_parts)
    told = ours.train_step(2)
    assert told["norm"] > 0.5
    assert told["clip/skipped"] == 1
    after = weights(*ours.model_parts)
    assert equal([p.full_tensor() for p in before], [p.full_tensor() for p in after])


def test_torchtitans_checkpointer_saves_and_loads_the_clipper(one_rank, tmp_path):
    code = titan_by_name('"autoclip"')
    trained, fresh = (titan(code, one_rank, math.inf) for _ in range(2))
    for step in range(4):
        trained.train_step(step)
    for optimizer in fresh.optimizers:  # a step on zero gradients makes the state to load into
        make_state(optimizer)
    dcp.save(trained.checkpointer.states, checkpoint_id=tmp_path)
    dcp.load(fresh.checkpointer.states, checkpoint_id=tmp_path)
    assert fresh.clipper.steps == 4
    assert fresh.clipper.state_dict(plain=True) == trained.clipper.state_dict(plain=True)


def make_state(optimizer):
    (group,) = optimizer.param_groups
    rate, group["lr"] = group["lr"], 0.0
    for p in group["params"]:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    group["lr"] = rate
    optimizer.zero_grad()


def engine(code, *, scaled=False):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scaled else None
    scope = {"torch": torch, "os": os, "SimpleNamespace": SimpleNamespace}
    scope |= {"FSDPModule": FSDPModule, "norm_is_finite": torch.isfinite}
    exec(code, scope)
    return scope["FSDPEngine"](sharded(), 1.0, scaler)


def train(engine, steps, spoiled=()):
    """The norms of steps, as verl's ``train_batch`` takes them."""
    norms = []
    for step in steps:
        engine.optimizer.zero_grad()
        loss = loss_of(engine.module, step, 0, spoiled)
        (loss if engine.scaler is None else engine.scaler.scale(loss)).backward()
        norms.append(engine.optimizer_step())
    return norms


@pytest.mark.parametrize("scaled", [True, False])
def test_verls_step_clips_and_leaves_out_as_its_own(one_rank, scaled):
    ours = engine(with_diff("verl"), scaled=scaled)
    theirs = engine(without_diff("verl"), scaled=scaled)
    norms, expected = (train(each, range(6), spoiled=(3,)) for each in (ours, theirs))
    assert norms == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert not math.isfinite(norms[3])
    assert ours.clipper.history.counts["skipped"] == 1
    assert ours.clipper.history.clip_fraction == pytest.approx(3 / 6)
    for p, q in zip(weights(ours.module), weights(theirs.module), strict=True):
        torch.testing.assert_close(p.full_tensor(), q.full_tensor(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scaled", [True, False])
def test_verls_step_moves_nothing_where_a_policy_skips(one_rank, scaled):
    skipping = r'cliplab.create("skip_threshold", \1, threshold=0.5)'
    ours = engine(with_diff("verl", made=skipping), scaled=scaled)
    train(ours, [1])
    before, taken = weights(ours.module), [s["step"].clone() for s in ours.optimizer.state.values()]
    (norm,) = train(ours, [2])
    assert norm > 0.5
    assert all(p.grad is None for p in ours.module.parameters())
    assert equal([p.full_tensor() for p in before], [p.full_tensor() for p in weights(ours.module)])
    assert taken == [s["step"] for s in ours.optimizer.state.values()] != []


def test_verls_checkpoint_holds_the_clipper(one_rank, tmp_path):
    code = with_diff("verl", made=r'cliplab.create("autoclip", \1)')
    saved, loaded = engine(code), engine(code)
    train(saved, range(4))
    saved.save_checkpoint(tmp_path)
    loaded.load_checkpoint(tmp_path)
    assert loaded.clipper.state_dict(plain=True) == saved.clipper.state_dict(plain=True)
    assert loaded.clipper.steps == 4
