"""What a test needs and not every environment has: the one way to skip for want of a package."""

import importlib
import os
import warnings
from types import ModuleType

import pytest

REQUIRED = frozenset(os.environ.get("CLIPLAB_REQUIRE", "").replace(",", " ").split())


def need(module: str, extra: str) -> ModuleType:
    """The module, which ``cliplab[extra]`` brings. Without it the test, or the file, is skipped.

    It fails with the ``ImportError`` if ``CLIPLAB_REQUIRE`` names the extra. What the module warns
    of while it is imported is its own affair.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        if extra in REQUIRED:
            raise
        pytest.skip(f"needs cliplab[{extra}]: {error}", allow_module_level=True)
