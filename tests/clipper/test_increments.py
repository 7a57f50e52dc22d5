"""Over real ranks increments are clipped as in one process, and gradients in the backward pass."""

import pytest
from launching import launch, needs_gloo

pytestmark = [pytest.mark.slow, needs_gloo]

CASES = ("micro_batches", "in_backward")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("increments"), 2, *CASES, "unsynchronised")


@pytest.mark.parametrize("case", CASES)
def test_ranks_give_what_one_process_gives(ranks, case):
    runs = [(name, i, run) for i, rank in enumerate(ranks) for name, run in rank[case].items()]
    assert {(name, i): run["differ"] for name, i, run in runs if run["differ"]} == {}


@pytest.mark.parametrize("case", CASES)
def test_all_ranks_have_the_same_numbers_bit_for_bit(ranks, case):
    for name, run in ranks[0][case].items():
        assert repr(ranks[1][case][name]["rows"]) == repr(run["rows"]), name


def test_unsynchronised_ranks_clip_their_own(ranks):
    assert [rank["unsynchronised"]["differ"] for rank in ranks] == [[], []]
    assert ranks[0]["unsynchronised"]["rows"] != ranks[1]["unsynchronised"]["rows"]
