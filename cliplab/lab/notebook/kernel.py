"""Which kernel runs a notebook, and in which language."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

DEFAULT = "python3"
_OF_THIS_PYTHON = ("", "python", DEFAULT)  # to Jupyter, in any case


class Kernel(NamedTuple):
    """A kernel by the name that Jupyter knows it by, and its language."""

    name: str = DEFAULT
    language: str = "python"


def is_python(language: str) -> bool:
    """Whether a language by that name is Python, as all are that have none."""
    return language.lower() in ("", "python", "python3", "ipython")


def language_of(notebook: Mapping[str, Any]) -> str:
    """The language that a notebook says it is in, or ""; as papermill reads it."""
    spec, info = _specs(notebook)
    return str(info.get("name") or spec.get("language") or "")


def kernel_of(notebook: Mapping[str, Any], name: str | None = None) -> Kernel:
    """The kernel of that name, else the notebook's own, else python3.

    ``ValueError``: Jupyter knows no such kernel. It is asked only about others than python3.
    """
    language = language_of(notebook)
    name = name or str(_specs(notebook)[0].get("name") or "")
    if not name and not is_python(language):
        raise ValueError(f"it is in {language} and names no kernel; -k NAME does")
    if name.lower() in _OF_THIS_PYTHON:
        return Kernel()
    return Kernel(name, str(kernelspec(name).language) or language or "python")


def kernelspec(name: str) -> Any:
    """What Jupyter knows of a kernel, ``argv`` and ``language``; ``ValueError`` if nothing."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        return manager.get_kernel_spec(name)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs()))
        why = f"no kernel {name!r} here, only {known}; -k NAME runs it in another"
    except Exception as error:  # of whatever is wrong with the kernel's own file
        why = f"kernel {name!r} cannot be had: {error}"
    raise ValueError(why)


def is_this_python(program: str) -> bool:
    """Whether a kernel starts this interpreter: by its path, or as Jupyter calls it."""
    return program == sys.executable or bool(re.fullmatch(r"python(3(\.\d+)?)?", program))


def check_translatable(kernel: Kernel, values: Mapping[str, Any]) -> None:
    """``ValueError`` if papermill cannot write these values in the kernel's language."""
    from papermill.exceptions import PapermillException
    from papermill.translators import papermill_translators

    try:
        papermill_translators.find_translator(*kernel).codify(dict(values))
    except (PapermillException, NotImplementedError) as error:
        names = ", ".join(values)
        raise ValueError(f"{names}: papermill has no {kernel.language} for that: {error}") from None


def _specs(notebook: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = (notebook["metadata"].get(part) for part in ("kernelspec", "language_info"))
    return [part if isinstance(part, dict) else {} for part in found]
