"""The pages of a site that show one run each: finished, or as far as it got."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.lab.notebook.cells import read_notebook

if TYPE_CHECKING:
    import jinja2

    from cliplab.lab.batch.spec import Failure
    from cliplab.lab.runs.record import RunRecord

MOST_TEXT = 100_000  # characters of one output that a page shows


class RunPages:
    """Writes the pages of runs into one folder; each method returns the page's address."""

    def __init__(self, folder: Path, templates: jinja2.Environment) -> None:
        self.folder, self.template = folder, templates.get_template("page.html.j2")
        self._names: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def finished(self, record: RunRecord) -> str:
        """The executed notebook; a page that is there already is kept while it is current."""
        notebook = record.directory / "notebook.ipynb"
        path = self._claim(f"{record.notebook}-{record.preset}-{record.key[:8]}.html")
        if not _is_current(path, notebook):
            self._write(
                path,
                title=record.notebook,
                subtitle=f"{record.notebook}, preset {record.preset}, run {record.key[:8]}",
                params=record.params,
                body=_body(notebook),
            )
        return f"{self.folder.name}/{path.name}"

    def failed(self, failure: Failure) -> str:
        """The notebook as far as it got, if any, and the error in full."""
        spec, log = failure.spec, failure.spec.directory / "error.txt"
        name = spec.name
        path = self._claim(f"failed-{name}-{spec.preset}-{spec.key[:8]}.html")
        self._write(
            path,
            title=f"{name} failed",
            subtitle=f"{name}, preset {spec.preset}, run {spec.key[:8]}",
            params=spec.params,
            error=log.read_text(encoding="utf-8") if log.exists() else failure.error,
            body=_body(spec.evidence) if spec.evidence else "",
        )
        return f"{self.folder.name}/{path.name}"

    def remove_others(self) -> None:
        """Drop the pages of runs that this report does not have."""
        for path in self.folder.glob("*.html"):
            if path.name not in self._names:
                path.unlink(missing_ok=True)  # another batch may do the same

    def _claim(self, name: str) -> Path:
        name = name.replace("/", "-")
        self._names.add(name)
        return self.folder / name

    def _write(self, path: Path, **content: Any) -> None:
        path.write_text(self.template.render(content), encoding="utf-8")


def _is_current(page: Path, notebook: Path) -> bool:
    """Whether a page was made after its notebook, and by today's code."""
    made = page.stat().st_mtime_ns if page.exists() else 0
    return made > max(notebook.stat().st_mtime_ns, _code_changed_ns())


@cache
def _code_changed_ns() -> int:
    """When the code that makes pages was last changed; looked up once for all pages."""
    folder = Path(__file__).parent
    sources = [folder / "pages.py", Path(__file__), *(folder / "templates").iterdir()]
    return max(source.stat().st_mtime_ns for source in sources)


def _body(path: Path) -> str:
    from cliplab.lab.report.pages import notebook_body

    try:
        notebook = read_notebook(path)
    except ValueError:  # its process ended while it was written
        return "<p>The notebook is damaged.</p>"
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if len(text := output.get("text", "")) > MOST_TEXT:
                left_out = len(text) - MOST_TEXT
                note = f"[… {left_out:,} more characters in {path}]"
                output["text"] = f"{text[:MOST_TEXT]}\n{note}\n"
    return notebook_body(notebook)
