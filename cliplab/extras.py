"""What is to be installed where a package is missing? torch is all that cliplab always brings.

May use: nothing.
Makes numbers: no.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

_OTHERS = {"pyarrow": "parquet", "dask_jobqueue": "cluster", "distributed": "dask"}
_TRAINERS = ("lightning", "transformers", "accelerate", "stable_baselines3", "ignite", "skorch")
_OTHERS |= dict.fromkeys((*_TRAINERS, "keras", "tensorboard"), "integrations")


def require(*modules: str) -> None:
    """``ModuleNotFoundError`` that says what to install, unless all of these can be imported."""
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(advice(module), name=module)


def advice(module: str | None) -> str:
    """What to install for a module, in one line; nothing where no extra brings it.

    >>> advice("yaml")
    'yaml is not installed: pip install "cliplab[lab]"'
    """
    name = (module or "").partition(".")[0]
    if name in ("", "cliplab", "torch", *sys.stdlib_module_names):
        return ""
    return f'{name} is not installed: pip install "cliplab[{_OTHERS.get(name, "lab")}]"'
