"""Whether a notebook records its table once, as far as that can be seen without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cliplab.lab.notebook.syntax import bound_names, statements

ENDS = ("exit", "quit", "_exit")


def check_recorded_once(notebook: Mapping[str, Any]) -> None:
    """``ValueError`` if two statements that run in any case call ``record`` with rows."""
    text = "\n".join(cell["source"] for cell in notebook["cells"])
    if text.count("record") < 3 and "record as " not in text:  # an import, and one call
        return
    cells = [number for number, call in _calls(notebook) if _has_rows(call)]
    if len(cells) > 1:
        first, second = cells[:2]
        where = f"cells {first} and {second} do" if first != second else f"cell {first} does twice"
        raise ValueError(f"record(rows) takes all rows, once: {where}")


def _calls(notebook: Mapping[str, Any]) -> Iterator[tuple[int, ast.Call]]:
    """The calls of ``record``, with their cells, up to where the notebook may end itself."""
    records: set[str] = set()
    for number, cell in enumerate(notebook["cells"], 1):
        if cell["cell_type"] != "code" or "raises-exception" in cell["metadata"].get("tags", []):
            continue
        with suppress(SyntaxError):
            for node in statements(cell["source"]):
                records = records - set(bound_names(node)) | set(_imported(node))
                call = node.value if isinstance(node, ast.Expr) else None
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    records.discard(node.name)
                elif isinstance(node, ast.Raise):
                    return
                elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                    if call.func.id in ENDS:
                        return
                    if call.func.id in records:
                        yield number, call
                elif isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ENDS:
                    return


def _imported(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[:2] == [
        "cliplab",
        "lab",
    ]:
        yield from (alias.asname or "record" for alias in node.names if alias.name == "record")


def _has_rows(call: ast.Call) -> bool:
    given = [*call.args[:1], *(one.value for one in call.keywords if one.arg == "rows")]
    return any(
        not isinstance(one, ast.Starred)
        and not (isinstance(one, ast.Constant) and one.value is None)
        for one in given
    )
