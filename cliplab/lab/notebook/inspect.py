"""``cliplab inspect``: the parameters of a notebook, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import read_notebook
from cliplab.lab.notebook.kernel import is_python, language_of
from cliplab.lab.notebook.parameters import read_signature
from cliplab.lab.notebook.values import Parameter, literal, plain


def inspect_text(path: Path) -> str:
    """One line a parameter: name, type (in parentheses if it is inferred), default, help.

    ``ValueError``: the file is no notebook, or its parameters cell cannot be read.
    """
    found, language = read_signature(path), language_of(read_notebook(path)) or "python"
    head = f"{path} ({language})"
    if found.parameters:
        lines = [told(parameter) for parameter in found.parameters.values()]
        width = max(len(left) for left, _ in lines)
        return "\n".join([head, *(f"  {left:{width}}  {help}".rstrip() for left, help in lines)])
    if found.open and is_python(language):
        return f"{head}\n  no cell is tagged `parameters`: any name that it does not set itself"
    return f"{head}\n  no parameters are declared"


def told(parameter: Parameter) -> tuple[str, str]:
    """A parameter's declaration, and its help with its bound."""
    default = parameter.default if parameter.computed else repr(parameter.default)
    kind = parameter.type or f"({_inferred(parameter)})"
    bound = f"[{parameter.bound}]" if parameter.bound else ""
    value = "" if parameter.computed and default == "..." else f" = {default}"
    return f"{parameter.name}: {kind}{value}", f"{parameter.help} {bound}".strip()


def _inferred(parameter: Parameter) -> str:
    """The type of a default, as Python calls it; another language's, where it is a literal too."""
    value: Any = parameter.default
    if parameter.computed:
        words = {"true": True, "false": False, "null": None, "nothing": None}
        try:
            value = words[value.lower()] if value.lower() in words else plain(literal(value))
        except ValueError:
            return "computed"
    return "None" if value is None else type(value).__name__
