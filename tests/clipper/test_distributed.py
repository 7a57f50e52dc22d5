"""Sharded and replicated training in real processes gives what one process gives."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from launching import launch, needs_gloo

HERE = Path(__file__).parent

LAYOUTS, PARALLEL = ("clipped", "stateless"), ("tensor_parallel", "two_dimensional")
OTHERS = ("extremes", "loss", "refused")

pytestmark = [pytest.mark.slow, needs_gloo]


@pytest.fixture(scope="module")
def ranks():
    """What the processes run, here."""
    specification = importlib.util.spec_from_file_location("ranks", HERE / "ranks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def single(ranks):
    """The same runs in one process."""
    return ranks.single()


@pytest.fixture(scope="module")
def wide(ranks):
    """The runs of the model for tensor parallelism in one process."""
    return ranks.single(ranks.make_wide_model)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    results = launch(folder, 2, "ddp", "fsdp", "mixed", "drop_ins", "lonely", "too_early", "save")
    return folder, results


@pytest.fixture(scope="module")
def four(two):
    folder, _ = two
    return launch(folder, 4, "fsdp", "two_meshes", "drop_ins", "lonely", "resume")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("layouts"), 4, *LAYOUTS, *PARALLEL, *OTHERS)


def same_as(run, expected):
    for key in ("weights", "norms", "limits", "state"):
        assert run[key] == pytest.approx(expected[key], rel=2e-4, abs=2e-5, nan_ok=True), key
    assert run["skipped"] == expected["skipped"]


def test_ranks_agree_bit_for_bit(two, four):
    for ranks in (two[1], four):
        for rank in ranks[1:]:
            for case in ("ddp", "fsdp", "mixed", "two_meshes", "drop_ins"):
                assert rank.get(case) == ranks[0].get(case), case


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_gradient_in_any_layout_is_measured_and_clipped_as_the_whole_one(layouts, case):
    found = {
        (name, rank): run["differ"][:5]
        for rank, results in enumerate(layouts)
        for name, run in results[case].items()
        if run["differ"] or run["numbers"] != layouts[0][case][name]["numbers"]
    }
    assert found == {}


def test_all_layouts_were_tried(layouts):
    """The test above compares something."""
    assert len(layouts[0]["clipped"]["tensor"]["numbers"]) > 2 * 100


@pytest.mark.parametrize("case", PARALLEL)
def test_tensor_parallel_training_gives_what_one_process_gives(layouts, wide, case):
    for name, run in layouts[0][case].items():
        same_as(run, wide[name.split(" on ")[0]])
    assert all(results[case] == layouts[0][case] for results in layouts)


def test_norms_over_ranks_keep_what_fp64_powers_lose(layouts):
    for results in layouts:
        for name, ratio in results["extremes"]["ratios"].items():
            assert ratio == pytest.approx(1.0, rel=1e-6), name


def test_a_nan_on_any_one_rank_is_known_to_all(layouts):
    assert [results["extremes"]["bad"] for results in layouts] == [["nan"] * 8] * 4


def test_a_loss_in_addends_is_shown_whole(layouts):
    assert [results["loss"] for results in layouts] == [1.0] * 4


def test_layouts_that_no_rank_can_measure_are_refused(layouts):
    expected = {
        "maximum": "summed or averaged, got placement P(max)",
        "maximum, a tensor": "summed or averaged, got placement P(max)",
        "ragged": "rows where",
        "plain": "a plain parameter has a DTensor as its gradient",
        "values of addends": "cannot be clamped one by one",
        "flat": "use fully_shard",
        "flat, a function": "use fully_shard",
    }
    outside = dict.fromkeys(("outside", "outside, a tensor"), "not in the mesh")
    for rank, results in enumerate(layouts):
        said = results["refused"]
        wanted = expected | (outside if rank > 1 else {})
        assert {name for name, part in wanted.items() if part not in said[name]} == set(), said


@pytest.mark.parametrize("case", ["ddp", "fsdp", "mixed"])
def test_two_ranks_give_what_one_process_gives(two, single, case):
    for name, run in two[1][0][case].items():
        same_as(run, single[name])


@pytest.mark.parametrize("case", ["fsdp", "two_meshes"])
def test_four_ranks_with_empty_shards_give_what_one_process_gives(four, single, case):
    for name, run in four[0][case].items():
        same_as(run, single[name])


def test_some_step_is_clipped_and_one_skipped(single):
    """The comparison above compares something."""
    assert single["skip"]["skipped"] == [False, False, True, False]
    assert max(single["global"]["norms"]) > 0.5


def test_stateless_forms_on_shards_addends_and_plain_tensors(two, four):
    torch.manual_seed(1)
    full = torch.cat([torch.randn(3, 4).flatten(), torch.randn(1, 4).flatten(), torch.randn(6)])
    full = torch.cat([full, torch.ones(2)])
    for ranks in (two[1], four):
        case = ranks[0]["drop_ins"]
        assert case["norm"] == case["returned"] == pytest.approx(float(full.norm()), rel=1e-6)
        assert case["after"] == pytest.approx((full / full.norm()).tolist(), rel=1e-4)
        assert case["addend"] == pytest.approx(math.sqrt(3))
        assert case["addend after"] == pytest.approx([1 / math.sqrt(3)] * 3)


def test_no_rank_hangs_and_all_agree_when_one_has_no_gradient_or_a_bad_one(two, four):
    for world, ranks in ((2, two[1]), (4, four)):
        for number, rank in enumerate(ranks):
            case = rank["lonely"]
            assert case["sizes"] == pytest.approx([math.sqrt(2 * world), math.sqrt(2)])
            assert case["clamped"] == [1.0, 0.5]
            assert "norm of tensor 0 is nan at step 1: " in case["told"]
            here = f"nan in tensor 0 of shape ({world}, 2) (1 of 2 tensors on this rank)"
            assert (here in case["told"]) == (number == world - 1)
            assert case["count"] == [1, 1]


def test_a_clipper_from_before_fully_shard_is_told_so(two):
    for rank in two[1]:
        assert "after fully_shard" in rank["too_early"]


def test_state_survives_from_two_to_four_ranks(two, four, single):
    assert two[1][0]["save"]["count"] == [2] * 5
    run, expected = four[0]["resume"], single["tensor"]
    assert run["weights"] == pytest.approx(expected["weights"], rel=2e-4, abs=2e-5)
    assert run["limits"] == pytest.approx(expected["limits"][-len(run["limits"]) :], rel=2e-4)
