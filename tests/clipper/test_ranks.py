"""Ranks that hold different tensors clip as the whole model does; ranks that should agree."""

import pytest
from launching import launch, needs_gloo

pytestmark = [pytest.mark.slow, needs_gloo]

TRAINED = ("summed", "missing", "sharded_stages")
OTHERS = ("raised", "far", "unlooked", "mistaken", "alike")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("apart"), 4, *TRAINED, *OTHERS)


@pytest.mark.parametrize("case", TRAINED)
def test_what_every_rank_holds_is_clipped_as_in_the_whole_model(ranks, case):
    found = {
        (name, rank): run["differ"]
        for rank, results in enumerate(ranks)
        for name, run in results[case].items()
        if run["differ"]
    }
    assert found == {}


@pytest.mark.parametrize("case", TRAINED)
def test_all_ranks_have_the_same_numbers_bit_for_bit(ranks, case):
    for name, run in ranks[0][case].items():
        for other in ranks[1:]:
            assert repr(other[case][name]["numbers"]) == repr(run["numbers"]), name


def test_steps_are_clipped_and_skipped_there(ranks):
    """The tests above compare something."""
    runs = ranks[0]["summed"]
    assert runs["skip"]["numbers"]["skipped"] == [0.0, 0.0, 1.0, 0.0]
    assert runs["by stage"]["numbers"]["threshold"][:3] == pytest.approx([0.1, 0.2, 0.3])
    for name, run in runs.items():
        assert name.startswith("skip") or any(f != 1.0 for f in run["numbers"]["factor"]), name


def test_norms_over_ranks_keep_what_fp64_powers_lose(ranks):
    for results in ranks:
        assert results["far"] == dict.fromkeys(results["far"], pytest.approx(1.0, rel=1e-6))


def test_a_nan_on_one_rank_raises_on_all_and_is_named_where_it_is(ranks):
    for rank, results in enumerate(ranks):
        told = results["raised"]["nan"]
        assert told.startswith("gradient norm is nan at step 1: ")
        where = "nan in 1.experts.0.weight (1 of 4 tensors on this rank)"
        assert where in told if rank == 2 else "all entries on this rank are finite" in told


def test_no_gradient_on_any_rank_is_warned_of(ranks):
    for results in ranks:
        (told,) = results["raised"]["nothing"]
        assert "no gradient at all" in told


def test_nothing_is_looked_at_on_an_accelerator(ranks):
    for results in ranks:
        assert results["unlooked"]["False"] == pytest.approx(results["unlooked"]["True"], rel=1e-6)


def test_what_does_not_go_together_is_refused_in_a_line(ranks):
    scopes = {s: f'needs scope "global" or "group", got \'{s}\'' for s in ("tensor", "unit")}
    scopes |= {s: f'needs scope "global" or "group", got \'{s}\'' for s in ("element", "member")}
    expected = scopes | {
        "text": "reduce must be process groups that this rank is in, or a function that sums a "
        "tensor over ranks, got 'stage'",
        "empty": "got []",
        "mesh": "reduce of head must be process groups",
        "outside": "got -100",
        "inf": "norm_type inf takes process groups",
        "nothing": "reduce must return the sums over ranks, a tensor of shape (1,), got None",
        "update": 'target "update"',
        "parts": "reduce: ranks have from 1 to 2 parts",
        "pattern": "no rank holds a parameter of *.bais",
        "precision": "some ranks hold float64, and some do not",
        "two rules": "whose rule holds?",
    }
    for results in ranks:
        said = results["mistaken"]
        assert {name: said[name] for name in expected if expected[name] not in said[name]} == {}
        assert set(said) == set(expected)
        assert not any("\n" in line for line in said.values())


def test_ranks_that_clip_different_gradients_are_told_so_on_all(ranks):
    for results in ranks:
        said = results["alike"]
        assert said == ranks[0]["alike"]
        for name in ("synchronised", "synchronised tensors", "staged and reduced"):
            assert said[name] == ""
        for name in ("not synchronised", "not synchronised tensors", "nan on one", "staged"):
            assert "ranks clip different gradients: the norm of " in said[name]
            assert "under DDP's no_sync they are not" in said[name]
        for number in range(4):
            assert f" on rank {number}" in said["not synchronised"]
        assert "nan on rank 1" in said["nan on one"]
        assert "on ranks 0, 2, 3" in said["nan on one"]
        assert "norm of weight is " in said["not synchronised tensors"]
        assert "number of parts is 1 on ranks 0, 1, 2; 2 on rank 3" in said["parts"]
