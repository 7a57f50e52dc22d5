"""An executed notebook as HTML that loads nothing: maths as MathML, figures embedded, no script."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from cliplab.lab.kernels.quick_imports import nbformat
from cliplab.lab.report.alt import Figures
from cliplab.lab.report.fragment import finished
from cliplab.lab.report.markdown import CODE, FORMULA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Text in what highlighted code is made of, and no more: there is nothing in it to clean.
HIGHLIGHTED = re.compile(r'(?:[^<]++|</?(?:div|pre|span)(?: class="[^"<>]*+")?>)*+')
_TOKENS = re.compile(rf"{CODE}|{FORMULA}|(?P<dollar>\\?\$)", re.DOTALL | re.MULTILINE)


def mathml(markdown: str) -> str:
    r"""Markdown with its LaTeX ($…$, $$…$$, \begin{…}) as MathML, or as code where that fails.

    Code stays as it is, and so do amounts of money: an opening dollar touches what follows it, a
    closing one what precedes it, and no digit follows the closing one (Pandoc's rule).

    >>> mathml("from $5 to $10, `$x$`")
    'from &#36;5 to &#36;10, `$x$`'
    >>> mathml("$c$").endswith("<mrow><mi>c</mi></mrow></math>")
    True
    """
    return _TOKENS.sub(_replace, markdown)


def _replace(token: re.Match[str]) -> str:
    if token["code"]:
        return token["code"]
    if token["dollar"]:
        return "&#36;"
    if token["inline"]:
        return _convert(token["inline"], "inline")
    return _convert(token["display"] or token["environment"], "block")


def _convert(tex: str, display: str) -> str:
    from xml.etree import ElementTree

    from latex2mathml.converter import convert_to_element

    tex = html.unescape(tex)  # in markdown, &lt; is a good way to write <
    try:
        tree = convert_to_element(tex.strip(), display=display)
    except Exception:  # the library has no common base for what it raises on malformed TeX
        return f"<code>{_opaque(' '.join(tex.split()))}</code>"
    for element in tree.iter():
        element.text = html.unescape(element.text or "")
    if any(re.match(r"\\[A-Za-z]", element.text or "") for element in tree.iter()):
        return f"<code>{_opaque(' '.join(tex.split()))}</code>"  # a command it does not know
    text: str = ElementTree.tostring(tree, encoding="unicode", short_empty_elements=False)
    return re.sub(r"(?<=>)[^<]+", lambda part: _opaque(html.unescape(part[0])), text)


def _opaque(text: str) -> str:
    """Text whose punctuation markdown cannot read as its own."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)


def notebook_body(executed: Mapping[str, Any]) -> str:
    """The cells and outputs of an executed notebook, in any language, as an HTML fragment."""
    import warnings

    notebook = nbformat().from_dict(executed)  # a copy
    kernel = notebook.metadata.get("kernelspec", {})
    notebook.metadata.setdefault("language_info", {"name": kernel.get("language", "python")})
    figures = Figures(executed["cells"])
    for place, cell in enumerate(notebook.cells):
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata.setdefault("transient", {})["remove_source"] = True
        if cell.cell_type == "markdown":
            cell.source = mathml(cell.source)
        for data, metadata in _bundles(cell):
            if "text/markdown" in data:
                data["text/markdown"] = mathml(data["text/markdown"])
            for kind in {"image/png", "image/jpeg", "image/svg+xml"} & set(data):
                told = figures.alt(place, str(data.get("text/plain", "")))
                metadata.setdefault(kind, {}).setdefault("alt", told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a language that pygments does not know is plain text
        body, _ = _exporter().from_notebook_node(notebook)
    return finished(body)


def markdown_html(text: str) -> str:
    """A sentence of Markdown, with maths, as HTML that loads nothing."""
    from nbconvert.filters.markdown import markdown2html

    body = finished(markdown2html(mathml(text))).strip()
    one = re.fullmatch(r"<p>((?:(?!<p>).)*)</p>", body, re.DOTALL)
    return one[1] if one else body


@cache
def _exporter() -> Any:
    """One for all pages: its templates are compiled once. Highlighted code is not cleaned again."""
    from nbconvert import HTMLExporter
    from nbconvert.filters.strings import clean_html

    def cleaned(text: str) -> str:
        return text if HIGHLIGHTED.fullmatch(str(text)) else str(clean_html(text))

    exporter = HTMLExporter(
        template_name="basic",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    exporter.register_filter("clean_html", cleaned)
    return exporter


def _bundles(cell: Any) -> Iterator[tuple[Any, Any]]:
    for output in cell.get("outputs", []):
        if "data" in output:
            yield output.data, output.setdefault("metadata", {})
