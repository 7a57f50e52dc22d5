"""papermill and nbformat, imported without what takes long and no notebook needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def papermill() -> Any:
    """The module; see :mod:`cliplab.lab.kernels.light_jsonschema`."""
    return _light("papermill")


def nbformat() -> Any:
    """The module; see :mod:`cliplab.lab.kernels.light_jsonschema`."""
    return _light("nbformat")


def _light(name: str) -> Any:
    import_module("cliplab.lab.kernels.light_jsonschema")
    return import_module(name)
