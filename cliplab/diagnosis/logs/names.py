"""Which column is what? Guessed by the names that trainers and trackers give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NONE = "none"  # names no column at all
LISTED = 12  # columns that a refusal lists
# Patterns of a whole name or of its last part, in lower case with "_" for other signs. The columns
# that match the first pattern of a role are its candidates; the next is asked where none does.
PATTERNS = {
    "norm": (
        r"norm_before|(raw|pre_?clip|unclipped)_(total_)?grad(ient)?_norm|grad_norm_pre_?clip",
        r"(total_|global_)?grad(ient)?s?_?(l2_?|2_0_?)?norm(_total|_l2)?"
        r"|(total|global)_norm|gnorm|l2_norm_grad_global",
    ),
    "loss": (
        r"loss",
        r"train(ing)?_loss|train_loss_step",
        r"(reduced_train|lm|ce|nll|cross_?entropy|total|global_avg|policy|pg)_loss"
        r"|crossentropyloss",
    ),
    "lr": (
        r"lr|learning_?rate",
        r"(lr|learning_?rate)_(group_?)?0_?",
        r"lr_\w*(adam|sgd|muon|lion)\w*",
    ),
    "step": (
        r"step",
        r"global_?step",
        r"it|iter|iteration|iter_num",
        r"(num_|n_)?updates?|(optimizer|training|train|current)_steps?|steps",
        r"_step",
    ),
    "threshold": (
        r"threshold",
        r"(clip(ping)?|grad(ient)?)_threshold|max_(grad(ient)?_)?norm",
        r"(grad(ient)?_)?clip(_val)?",
    ),
}
OTHER_DATA = ("eval", "evaluation", "val", "valid", "validation", "test", "dev")
OPTIONS = {"lr": "--lr-column"}


@dataclass(frozen=True)
class Naming:
    """Which columns were named; ``None``: guess, ``"none"``: there is none.

    ``threshold`` may be the number itself.
    """

    norm: str | None = None
    loss: str | None = None
    lr: str | None = None
    step: str | None = None
    threshold: str | float | None = None

    @property
    def is_given(self) -> bool:
        """Whether anything was named."""
        return self != Naming()


def option_of(role: str) -> str:
    """The option that names the column of a role."""
    return OPTIONS.get(role, f"--{role}")


def candidates(role: str, names: Iterable[str]) -> list[str]:
    """The columns that may be what is asked for: one is a guess, several are too many.

    >>> candidates("norm", ["step", "train/loss", "eval/loss", "train/grad-norm"])
    ['train/grad-norm']
    >>> candidates("loss", ["actor/loss", "critic/loss", "eval_loss", "val/loss"])
    ['actor/loss', 'critic/loss']
    """
    known = [(name, _forms(name)) for name in names]
    for pattern in PATTERNS[role]:
        found = [n for n, forms in known if any(re.fullmatch(pattern, form) for form in forms)]
        if found:
            return found
    return []


def _forms(name: str) -> list[str]:
    """A name as a whole and its last part; nothing for one of other data than training's."""
    pieces = [re.sub(r"[^a-z0-9]+", "_", part) for part in re.split(r"/|\.| - ", name.lower())]
    if pieces[0] in OTHER_DATA:
        return []
    return ["_".join(pieces), pieces[-1]]


def choose(
    role: str, named: str | None, names: Sequence[str], needed: bool
) -> tuple[str | None, str]:
    """The column of a role, and what there is to say about the choice.

    ``ValueError`` for a name that is none of the columns, and, where a column is ``needed``, for
    several candidates.
    """
    if named == NONE:
        return None, ""
    if named is not None:
        if named not in names:
            raise ValueError(f"{option_of(role)} {named}: no such column; {listed(names)}")
        return named, ""
    found = candidates(role, names)
    if len(found) < 2:
        return (found[0] if found else None), ""
    several = f"{' or '.join(found[:LISTED])}: name it with {option_of(role)}"
    if needed:
        raise ValueError(f"the {role} may be {several}")
    return None, f"no {role} used, it may be {several}"


def listed(names: Sequence[str]) -> str:
    """The columns there are, in words."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"columns of numbers: {', '.join(names[:LISTED]) or 'none'}{more}"
