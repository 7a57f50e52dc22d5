"""What the notebooks share; needs ``cliplab[lab]``. A name's file is imported at its first use."""

from importlib import import_module
from typing import TYPE_CHECKING

# Not lazy: importing a file of this name first would put the module in the function's place.
from cliplab.lab.contrasts import contrasts

if TYPE_CHECKING:
    from cliplab.lab.claims.judge import judge
    from cliplab.lab.notebook.loading import load_preset
    from cliplab.lab.notebook.parameters import check_parameters
    from cliplab.lab.runs.tidy import record
    from cliplab.lab.training.ensemble import Ensemble

__all__ = ["Ensemble", "check_parameters", "contrasts", "judge", "load_preset", "record"]

_FILES = (
    "notebook.parameters",
    "notebook.loading",
    "runs.tidy",
    "claims.judge",
    "training.ensemble",
)


def __getattr__(name: str) -> object:
    for file in _FILES if name in __all__ else ():
        module = import_module(f"cliplab.lab.{file}")
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module 'cliplab.lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
