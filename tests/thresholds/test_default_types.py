"""Torch's default dtype and device decide nothing: policies and responses name their own."""

import pytest
import torch
from policies import POLICIES, feed, leaves, start

from cliplab import AfterWarmup, Percentile, RobustSpike, SpikeSkip, Switch, TargetRate
from cliplab.thresholds import Context, Step, as_column, respond

STREAM = [0.5, 1.5, 2.5, 0.2, 8.0, 3.0, 1.0, 1.0, 1.2, 0.7, 0.1, 9.0]
DTYPES = [torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(params=[*DTYPES, "meta"], ids=str)
def default(request):
    """Another default dtype, or a default device whose values cannot be read."""
    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(request.param)
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(torch.float32)


class Histogram(Percentile):
    exact_sizes = 4


MORE = [
    *POLICIES,
    lambda: Histogram(33.3),
    lambda: Percentile(33.3),
    lambda: SpikeSkip(5.3, window=7, warmup=3, floor=0.013),
    lambda: RobustSpike(1.7, window=7, spread=0.37, prior=3.3),
    lambda: TargetRate(0.37, initial=0.37, speed=0.21),
    lambda: AfterWarmup(TargetRate(0.1), steps=2, until=Histogram(60.0)),
]
EXPECTED = []


@pytest.fixture(scope="module", autouse=True)
def expected():
    """Limits and states of every policy under torch's own defaults."""
    for make in MORE:
        policy = start(make)
        EXPECTED.append((feed(policy, STREAM), leaves(policy.state_dict())))


@pytest.mark.parametrize("index", range(len(MORE)))
def test_limits_and_states_are_the_same_bit_for_bit(default, index):
    policy = start(MORE[index])
    limits = feed(policy, STREAM)
    wanted, state = EXPECTED[index]
    assert limits.dtype == torch.float32
    assert torch.equal(limits, wanted)
    for found, saved in zip(leaves(policy.state_dict()), state, strict=True):
        assert found.dtype == saved.dtype
        assert torch.equal(found, saved)


def test_a_loss_is_judged_in_the_precision_of_the_sizes(default):
    active = torch.ones(1, dtype=torch.bool, device="cpu")
    policy = SpikeSkip(window=4, warmup=2)
    policy.init(1)
    limits = []
    for loss in (1.0, 1.001, 1.002, 1.5, 1.0):
        sizes, seen = (torch.tensor(x, dtype=torch.float32, device="cpu") for x in ([1.0], loss))
        limits.append(float(policy(sizes, Context(active, loss=seen))))
    assert [limit > 0 for limit in limits] == [True, True, True, False, True]


@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise", "skip", "clamp"])
def test_every_column_of_a_response_has_the_dtype_of_the_sizes(default, mode):
    sizes = torch.tensor([3.3, 0.7, 1e30], dtype=torch.float32, device="cpu")
    limits = torch.full_like(sizes, 1.1)
    finite = torch.ones(3, dtype=torch.bool, device="cpu")
    for mask in (None, finite):
        for nonfinite in ("zero", "skip", "propagate"):
            step = respond(sizes, limits, mask, mode, nonfinite)
            assert {column.dtype for column in step} == {torch.float32}
            assert {column.device.type for column in step} == {"cpu"}
            if mode == "rescale":
                assert torch.equal(step.factor, (limits / sizes).clamp(max=1.0))


def test_a_number_becomes_a_column_of_single_precision(default):
    column = as_column(Step(3.1, 1.1, 1.1, 1.1 / 3.1, 1.0, 0.0).factor)
    assert column.dtype == torch.float32
    assert column.tolist() == [torch.tensor(1.1 / 3.1, dtype=torch.float32, device="cpu").item()]


def test_masks_are_read_where_they_lie(default):
    with pytest.raises(ValueError, match="exactly one mask"):
        Switch([([True, True], 1.0), ([True, False], 2.0)])
