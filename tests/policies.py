"""Every policy, and streams of sizes for them."""

import torch

from cliplab import (
    AGGC,
    EMA,
    RMS,
    AdaNorm,
    AfterWarmup,
    Band,
    Bounded,
    Context,
    Decay,
    Deviations,
    Fixed,
    GradientStabilizer,
    LossRatio,
    MovingAverage,
    Percentile,
    Queue,
    RateScaled,
    RobustSpike,
    Scheduled,
    SpikeSkip,
    Surprise,
    Switch,
    TargetRate,
    TrustRatio,
    WeightRatio,
    ZScore,
)
from cliplab.thresholds import Known

POLICIES = [
    lambda: Fixed(1.0),
    lambda: Decay(1.0, alpha=0.5, patience=2, floor=0.1),
    lambda: TargetRate(0.3, initial=1.0, speed=0.5),
    lambda: Scheduled(lambda step, lr: 2.0),
    lambda: RMS(1.0),
    lambda: RateScaled(2.0),
    lambda: TrustRatio(0.5),
    lambda: Surprise(),
    lambda: LossRatio(2.0, span=3),
    lambda: MovingAverage(2.0, window=4, warmup=2),
    lambda: Deviations(2.0, window=4, warmup=2),
    lambda: EMA(1.1, beta=0.5, warmup=3),
    lambda: EMA(1.1, beta=0.5, warmup=0),
    lambda: ZScore(0.5, 0.7, warmup=3),
    lambda: ZScore(0.5, 0.7, warmup=3, response="mean", learn_spikes=False),
    lambda: ZScore(0.5, 0.7, warmup=3, response="level"),
    lambda: Queue(length=4, initial=5.0),
    lambda: WeightRatio(0.5),
    lambda: Percentile(30.0),
    lambda: Percentile(30.0, window=4),
    lambda: RobustSpike(window=5),
    lambda: SpikeSkip(window=5, warmup=3),
    lambda: Switch([([True, False], Decay()), ([False, True], Percentile(50))]),
    lambda: GradientStabilizer(0.5, 0.7),
    lambda: AdaNorm(0.5),
    lambda: AGGC(0.5, low=(0.9, 1.1), high=(1.5, 2.0), raise_small=True),
    lambda: Switch([([True, False], AGGC(0.5)), ([False, True], Decay())]),
    lambda: AfterWarmup(Bounded(AdaNorm(0.5), high=3.0), steps=3, until=Decay()),
    lambda: Bounded(ZScore(0.5, 0.7, warmup=3), 0.5, 2.0),
    lambda: AfterWarmup(Bounded(MovingAverage(1.0, 2, 1), high=3.0), steps=3, until=Decay()),
]


def context_of(sizes, active=None, step=0):
    """A context as a Clipper would make it, with weights of norm 2 and 9 entries a part."""
    cpu = {"device": "cpu"}
    active = torch.ones(len(sizes), dtype=torch.bool, **cpu) if active is None else active
    fine = active & sizes.isfinite()
    return Context(
        active,
        step,
        lr=0.1,
        loss=torch.tensor(1.0, **cpu),
        measured=Known(
            total_norm=sizes[fine].float().norm(),
            weight_norms=torch.full((len(sizes),), 2.0, dtype=torch.float32, **cpu),
            numels=torch.full((len(sizes),), 9, dtype=torch.long, **cpu),
            surprise=torch.full((len(sizes),), 2.0, dtype=torch.float32, **cpu),
        ),
    )


def feed(policy, stream, active=None, first=0):
    """Limits of a two-part policy over a stream of sizes; both parts get the same.

    Of a band it is the limit in force.
    """
    out = []
    for step, size in enumerate(stream):
        sizes = torch.full((2,), size, dtype=torch.float32, device="cpu")
        out.append(in_force(policy(sizes, context_of(sizes, active, first + step)), sizes).clone())
    return torch.stack(out) if out else torch.empty(0, 2)


def in_force(limits, sizes):
    """The limits, of a band those that a size meets."""
    return limits.at(sizes)[0] if isinstance(limits, Band) else limits


def start(make):
    policy = make()
    policy.init(2)
    return policy


def leaves(state):
    """All tensors of a nested state, in order, and for each of its lists one of the numbers."""
    if isinstance(state, dict):
        return [tensor for entry in state.values() for tensor in leaves(entry)]
    if isinstance(state, list):
        return [torch.tensor(flat(state), dtype=torch.float64, device="cpu")]
    return [state]


def flat(entry):
    """The numbers of nested lists."""
    return [x for each in entry for x in flat(each)] if isinstance(entry, list) else [entry]
