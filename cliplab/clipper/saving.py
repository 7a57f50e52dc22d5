"""What a clipper saves, and what of it another takes over: all, or nothing.

Makes numbers: no.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cliplab.checks import check_count, counted, described
from cliplab.clipper.engine import Engine
from cliplab.clipper.telling import kind_of

NEEDED = {"steps", "policy"}


def state_of(clipper: Engine, plain: bool) -> dict[str, Any]:
    """The state of a clipper, in tensors, or in lists and numbers."""
    state = clipper.policy.state_dict()
    return {
        "steps": clipper.steps,
        "counts": clipper.history.counts,
        "policy": _plain(state) if plain else state,
        **_identity(clipper),
    }


def load_state(clipper: Engine, state: Mapping[str, Any], strict: bool) -> None:
    """Take a state over; ``ValueError``, and nothing has changed, for one that does not fit."""
    identity = _identity(clipper)
    known = NEEDED | {"counts"} | set(identity)
    if not isinstance(state, Mapping) or not NEEDED <= set(state) <= known:
        given = sorted(map(str, state)) if isinstance(state, Mapping) else state
        raise ValueError(f"expected a state with 'steps' and 'policy', got {described(given)}")
    if strict:
        _check_identity(identity, state)
    steps = check_count("steps", state["steps"], zero=True)
    clipper.policy.check_state_dict(state["policy"])
    if "counts" in state:
        clipper.history.count_from(state["counts"])
    clipper.history.rewind(steps)
    clipper.policy.load_state_dict(state["policy"])
    clipper.steps = steps


def _identity(clipper: Engine) -> dict[str, Any]:
    """What a state is of: where any of it differs, sizes mean something else."""
    return {
        "method": kind_of(clipper.policy),
        "scope": clipper.scope,
        "parts": clipper.partition.n_parts,
        "target": clipper.target,
        "norm_type": clipper.norm_type,
    }


def _check_identity(own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """``ValueError`` that names what differs; older states, of gradients, do not say it all."""
    theirs = {**own, "target": "gradient", **{name: state[name] for name in own if name in state}}
    differs = [name for name in own if theirs[name] != own[name]]
    if differs:
        raise ValueError(
            f"the state is of {_told(theirs)}, this clipper is {_told(own)}, so they differ in "
            f"{' and '.join(differs)}: make the clipper as it was, or pass strict=False"
        )


def _told(identity: Mapping[str, Any]) -> str:
    words = [f"scope {identity['scope']!r}", counted(identity["parts"], "part")]
    words.append(f"target {identity['target']!r}")
    if identity["norm_type"] != 2.0:
        words.append(f"norm_type {identity['norm_type']}")
    return f"{identity['method']} ({', '.join(words)})"


def _plain(state: Any) -> Any:
    """A state with lists for its tensors: numbers of fp32 are doubles that are just as large."""
    if isinstance(state, Mapping):
        return {name: _plain(entry) for name, entry in state.items()}
    return state.tolist() if isinstance(state, Tensor) else state
