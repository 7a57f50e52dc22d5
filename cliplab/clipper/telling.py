"""What a clipper says of itself and of its arguments.

Makes numbers: no.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from cliplab.checks import counted, described, may_look, tell
from cliplab.clipper.engine import Engine
from cliplab.history import html_table
from cliplab.thresholds import Fixed, Threshold, all_of

P = ParamSpec("P")
T = TypeVar("T")

WORDS_FOR_THE_LIMIT = {
    "max_norm",
    "max_grad_norm",
    "clip_norm",
    "clip_value",
    "clip_val",
    "clip_grad",
    "grad_clip",
    "gradient_clip_val",
}


def hinting(make: Callable[P, T]) -> Callable[P, T]:
    """Answer another library's word for the limit with the one that it is called here."""

    @wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for word in WORDS_FOR_THE_LIMIT & kwargs.keys():
            raise TypeError(
                f"a Clipper has no argument {word!r}: its limit is "
                f'threshold={described(kwargs[word])} (of every entry: scope="element")'
            )
        return make(*args, **kwargs)

    return call


def warn_of_zero(policy: Threshold) -> None:
    """Say what a limit of 0 does; elsewhere it often means "off"."""
    if any(isinstance(each, Fixed) and each.value == 0 for each in all_of(policy)):
        tell(
            "a threshold of 0 makes every gradient 0 (mode 'skip': no step is taken): "
            "for no clipping pass math.inf"
        )


def kind_of(policy: Threshold) -> str:
    """The types of a policy and of those that it is made of: ``Bounded(ZScore)``."""
    inner = ", ".join(kind_of(each) for each in getattr(policy, "inner", {}).values())
    return type(policy).__name__ + (f"({inner})" if inner else "")


def settings(clipper: Engine) -> dict[str, Any]:
    """How a clipper was made; a policy that does not fit a line is told by its type."""
    policy = repr(clipper.policy)
    if len(policy) > 160 or "<" in policy:
        policy = kind_of(clipper.policy)
    own: dict[str, Any] = {"threshold": policy, "scope": clipper.scope, "mode": clipper.mode}
    own["nonfinite"] = clipper.nonfinite
    if clipper.target != "gradient":
        own["target"] = clipper.target
    if clipper.eps:
        own["eps"] = clipper.eps
    return own if clipper.norm_type == 2.0 else own | {"norm_type": f"{clipper.norm_type:g}"}


def facts(clipper: Engine) -> list[str]:
    """What a clipper holds and has done, as far as it is known without waiting."""
    entries = sum(p.numel() for p in clipper.params)
    held = f"{counted(len(clipper.params), 'parameter')} ({entries:,} entries)"
    told = [f"{held} in {counted(clipper.partition.n_parts, 'part')}"]
    told.append(counted(clipper.steps, "step"))
    counts = clipper.history.counts if may_look(clipper.params[0]) else {"steps": 0}
    if counts["steps"]:
        told.append(f"{100 * counts['clipped'] / counts['steps']:.3g} % clipped")
        if counts["skipped"]:
            told.append(f"{100 * counts['skipped'] / counts['steps']:.3g} % skipped")
    if clipper.attached is not None:
        told.append(clipper.attached.where)
    return told


def as_line(clipper: Engine) -> str:
    """A clipper in a line."""
    threshold, *others = settings(clipper).items()
    arguments = [threshold[1], *(f"{name}={value!r}" for name, value in others)]
    return f"{type(clipper).__name__}({', '.join(arguments)}): {', '.join(facts(clipper))}"


def as_table(clipper: Engine) -> str:
    """The same as a table in HTML."""
    rows = {**settings(clipper), "holds": ", ".join(facts(clipper))}
    return html_table(
        ("", type(clipper).__name__), [(k, str(v)) for k, v in rows.items()], text=True
    )
