"""What an argument must be, whether a value may be looked at, and how both are spoken of.

May use: torch alone.
Makes numbers: yes.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

LONGEST = 60  # characters of a value in an error
INSIDE = str(Path(torch.__file__).parent), str(Path(__file__).parent)  # not the caller's code
LOOK = True  # False: no value is looked at, as if every tensor lay on an accelerator


class NonFiniteGradientError(FloatingPointError):
    """A gradient held NaN or inf and the clipper was told to raise."""


def may_look(tensor: Tensor) -> bool:
    """Whether a value can be looked at: it would neither wait for a device nor break a graph."""
    return LOOK and tensor.is_cpu and not torch.compiler.is_compiling()


def described(value: object) -> str:
    """What a value is, for an error: one short line, whatever it holds.

    >>> described("unti"), described([0.5, torch.nn.Linear(4, 3)])
    ("'unti'", '[0.5, a module (Linear)]')
    >>> described(torch.zeros(2, 3))
    'a tensor of shape (2, 3), torch.float32'
    """
    if isinstance(value, Tensor):
        if is_lazy(value):
            return "a lazy parameter without a shape"
        if value.numel() == 1 and value.is_cpu:
            return _cut(repr(value.detach()))
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype}"
    if isinstance(value, nn.Module | torch.optim.Optimizer):
        kind = "a module" if isinstance(value, nn.Module) else "an optimizer"
        return f"{kind} ({type(value).__name__})"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, list | tuple | Mapping):
        return _cut(_listed(value))
    return _cut(repr(value))


def _listed(values: list[Any] | tuple[Any, ...] | Mapping[Any, Any]) -> str:
    if isinstance(values, Mapping):
        pairs = islice(values.items(), LONGEST)
        return f"{{{', '.join(f'{key!r}: {described(held)}' for key, held in pairs)}}}"
    inner = ", ".join(map(described, values[:LONGEST]))
    if isinstance(values, list):
        return f"[{inner}]"
    return f"({inner},)" if len(values) == 1 else f"({inner})"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"


def near(value: object, known: Iterable[str]) -> str:
    """A hint at the known name that ``value`` is like, in any case of letters; or nothing.

    >>> near("AutoClip", ["agc", "autoclip"])
    " (did you mean 'autoclip'?)"
    >>> near("dropout", ["agc", "autoclip"])
    ''
    """
    names = {name.lower(): name for name in known}
    found = get_close_matches(value.lower(), names, n=1) if isinstance(value, str) else []
    return f" (did you mean {names[found[0]]!r}?)" if found else ""


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "part"), counted(2500, "part")
    ('1 part', '2,500 parts')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def tell(message: str) -> None:
    """Warn at the caller's line: the first one that is neither of cliplab's nor of torch's."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def check_choice(name: str, value: Any, choices: Any) -> Any:
    """Return ``value`` if it is one of the choices of a ``Literal``; ``ValueError`` otherwise."""
    known = get_args(choices)
    if not isinstance(value, str) or value not in known:
        hint = f"{described(value)}{near(value, known)}"
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {hint}")
    return value


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False; ``ValueError`` otherwise."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {described(value)}")
    return value


def check_positive(name: str, value: object, *, zero: bool = False) -> float:
    """Return ``value`` as a float; ``ValueError`` for NaN, a bool, text, and numbers below 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    is_scalar = isinstance(value, Tensor) and not is_lazy(value) and value.numel() == 1
    if isinstance(value, Tensor) and (value.dtype == torch.bool or value.is_complex()):
        is_scalar = False
    number = _float(value) if is_number or is_scalar else math.nan
    if not (number > 0 or (zero and number == 0)):
        least = ">= 0" if zero else "> 0"
        raise ValueError(f"{name} must be a number {least}, got {described(value)}")
    return number


def check_count(name: str, value: object, *, zero: bool = False) -> int:
    """Return ``value`` if it is an int >= 1 (``zero``: >= 0); ``ValueError`` otherwise."""
    least, whole = 0 if zero else 1, isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not least <= int(value) < 2**63:  # type: ignore[call-overload]
        raise ValueError(f"{name} must be an integer >= {least}, got {described(value)}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_norm_type(norm_type: float) -> float:
    """Return ``norm_type`` as a float; ``ValueError`` unless it is > 0 (``inf`` included)."""
    order = _float(norm_type)
    if isinstance(norm_type, bool) or not order > 0:
        raise ValueError(f"norm_type must be a number > 0 or inf, got {described(norm_type)}")
    return order


def _float(value: Any) -> float:
    """``value`` as a float; NaN for what is none, or too large for one."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
