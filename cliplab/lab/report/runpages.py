"""The pages of a site that show one run each: finished, or as far as it got."""

from __future__ import annotations

import os
import re
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.notebook.cells import read_notebook
from cliplab.lab.report.folder import PAGES, check_ours, is_ours
from cliplab.lab.runs.canonical import digest
from cliplab.lab.runs.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import jinja2

    from cliplab.lab.batch.spec import Failure
    from cliplab.lab.report.beside import Told
    from cliplab.lab.runs.record import RunRecord

LONGEST = 60  # characters of a page's file name, before what tells it from all others
HEAD, BEGIN, END = "<!-- title -->", "<!-- cells -->", "<!-- end of cells -->"


class RunPages:
    """Writes the pages of runs into one folder.

    ``bad`` collects what is wrong with their notebooks.
    """

    def __init__(self, folder: Path, templates: jinja2.Environment) -> None:
        self.folder, self.template = folder, templates.get_template("page.html.j2")
        self.bad: list[str] = []
        self._names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def address(self, record: RunRecord) -> str:
        """Where the page of a finished run is, or will be."""
        return _address(self._claim("", record.notebook, record.preset, record.key))

    def finished(
        self,
        record: RunRecord,
        title: str,
        told: Sequence[Told] = (),
        before: Mapping[str, str] | None = None,
        after: Mapping[str, str] | None = None,
    ) -> None:
        """The executed notebook below what was found; its cells are kept while they are current."""
        notebook = record.directory / "notebook.ipynb"
        path = self._claim("", record.notebook, record.preset, record.key)
        known = len(self.bad)
        body = _kept(path) if _is_current(path, notebook) else ""
        self._write(
            path,
            title=title,
            subtitle=f"{record.notebook}, preset {record.preset}, run {record.key[:8]}",
            params=record.params,
            body=body or self._body(notebook),
            told=told,
            preset=record.preset,
            before=before,
            after=after,
        )
        if len(self.bad) > known:
            os.utime(path, (0, 0))  # never current: what is wrong is said each time

    def failed(self, failure: Failure) -> str:
        """The notebook as far as it got, if any, and the error in full; the page's address."""
        spec, log = failure.spec, failure.spec.directory / "error.txt"
        name = spec.name
        path = self._claim("failed-", name, spec.preset, spec.key)
        self._write(
            path,
            title=f"{name} failed",
            subtitle=f"{name}, preset {spec.preset}, run {spec.key[:8]}",
            params=spec.params,
            error=log.read_text("utf-8", "replace") if log.is_file() else failure.error,
            body=self._body(spec.evidence) if spec.evidence else "",
        )
        return _address(path)

    def remove_others(self) -> None:
        """Drop the pages, written by cliplab, of runs that this report does not have."""
        for path in self.folder.glob("*.html"):
            if path.name not in self._names and is_ours(path):
                path.unlink(missing_ok=True)  # another batch may do the same

    def _claim(self, kind: str, notebook: str, preset: str, key: str) -> Path:
        """Where a run's page goes: a name that is a file's whatever the notebook is called."""
        run = f"{notebook}-{preset}"
        plain = re.sub(r"[^\w.-]", "-", run)[:LONGEST]
        unique = key[:8] if plain == run else digest([notebook, preset, key])[:8]
        name = f"{kind}{plain}-{unique}.html"
        self._names.add(name)
        return self.folder / name

    def _write(self, path: Path, body: str, **content: Any) -> None:
        from cliplab.lab.report.fragment import contents, titled

        check_ours(path)
        head, rest = titled(body)
        parts = {"head": head, "body": rest, "contents": contents(rest)}
        marks = {"file": path.name, "HEAD": HEAD, "BEGIN": BEGIN, "END": END}
        write_atomic(path, self.template.render(content | parts | marks))

    def _body(self, path: Path) -> str:
        """The notebook as HTML, or a sentence where it cannot be shown."""
        from cliplab.lab.report.fit import fit
        from cliplab.lab.report.pages import notebook_body

        try:
            if not path.exists():
                raise ValueError(f"the executed notebook is missing: {path}")
            notebook = read_notebook(path)
            fit(notebook, path)
            return notebook_body(notebook)
        except ValueError as error:
            why = one_line(error)
        except Exception as error:  # it may hold anything, and nbconvert fails in many ways
            why = f"cannot show notebook {path}: {type(error).__name__}: {one_line(error)}"
        self.bad.append(why)
        return f"<p>{escape(why)}</p>"


def _kept(page: Path) -> str:
    """The title and the cells that a page shows; nothing where it does not say which they are."""
    text = page.read_text(encoding="utf-8", errors="replace")
    _, titled, rest = text.partition(HEAD)
    head, _, rest = rest.partition(HEAD)
    _, begun, rest = rest.partition(BEGIN)
    cells, ended, _ = rest.rpartition(END)
    return head + cells if titled and begun and ended else ""


def _address(page: Path) -> str:
    return f"{PAGES}/{quote(page.name)}"


def _is_current(page: Path, notebook: Path) -> bool:
    """Whether a page was made after its notebook, which is there, and by today's code."""
    try:
        made, executed = page.stat().st_mtime_ns, notebook.stat().st_mtime_ns
    except OSError:
        return False
    return made > max(executed, _code_changed_ns()) and is_ours(page)


@cache
def _code_changed_ns() -> int:
    """When the code that makes pages was last changed; looked up once for all pages."""
    folder = Path(__file__).parent
    names = ("alt.py", "fit.py", "fragment.py", "pages.py")
    made_by = [*(folder / name for name in names), Path(__file__)]
    sources = [*made_by, *(folder / "templates").iterdir()]
    return max(source.stat().st_mtime_ns for source in sources)
