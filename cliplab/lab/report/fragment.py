"""The HTML of an executed notebook made fit for a page: code folded, nothing loaded, all in reach.

What a page says of itself stands in the fragment: its title first, headings with names.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

from cliplab.lab.report.pictures import is_plot

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

FIRST_LINE = 60  # characters of code that stand for the rest
LONG = 20  # lines of text that scroll
WIDE = 32  # characters of a line that may not fit

LOADING = {"poster", "background", "href", "xlink:href"}  # attributes, beside src and srcset
STYLING = {"style", "fill", "stroke", "filter", "mask", "clip-path", "cursor"}
STYLING |= {"marker-start", "marker-mid", "marker-end"}
_REMOTE = re.compile(r"@import[^;]*;?|url\(\s*['\"]?(?!#|data:)[^)]*\)?", re.IGNORECASE)


def finished(body: str) -> str:
    """A fragment as a page shows it."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(body, "html.parser")
    _cut_network(soup)
    _fold_code(soup)
    _name_headings(soup)
    _reach(soup)
    for image in soup.select(".output_area img"):
        if is_plot(_content(str(image.get("src", "")))):
            image["class"] = "plot"
    _title_first(soup)
    return str(soup)


def contents(body: str) -> list[tuple[str, str]]:
    """The headings of a finished fragment below its title: their names, and their HTML."""
    found = re.findall(r'<h[23] id="([^"]+)">(.*?)</h[23]>', body, re.DOTALL)
    return [(name, re.sub(r"</?a\b[^>]*>", "", text)) for name, text in found]


def titled(body: str) -> tuple[str, str]:
    """A finished fragment as its title, which may be nothing, and the rest."""
    head, end, rest = body.partition("</h1>") if body.startswith("<h1") else ("", "", body)
    return head + end, rest


def _cut_network(soup: BeautifulSoup) -> None:
    """Remote pictures become links; scripts, frames, and all else that would load, go."""
    for tag in soup(["script", "iframe", "object", "embed", "link", "meta", "base"]):
        tag.decompose()
    for style in soup("style"):
        style.string = _REMOTE.sub("", style.get_text())
    for tag in soup(True):
        source = str(tag.get("src", "data:"))
        if not source.startswith("data:"):
            link = soup.new_tag("a", href=source)
            link.string = str(tag.get("alt") or source)
            tag.replace_with(link)
        tag.attrs.pop("srcset", None)
        for name in LOADING & tag.attrs.keys():
            is_link = tag.name in ("a", "area") and name != "background"
            if not is_link and not str(tag[name]).startswith(("data:", "#")):
                del tag[name]
        for name in STYLING & tag.attrs.keys():
            tag[name] = _REMOTE.sub("", str(tag[name]))


def _fold_code(soup: BeautifulSoup) -> None:
    """Each cell's code behind its first line; what papermill put in is told above, and goes."""
    for cell in soup.select(".code_cell"):
        code = cell.select_one(".input")
        if code is None:
            continue
        if "celltag_injected-parameters" in cell["class"] and not cell.select_one(".output_area"):
            cell.decompose()
            continue
        lines = code.get_text().strip().splitlines() or [""]
        details, summary = soup.new_tag("details"), soup.new_tag("summary")
        details["class"] = "code"
        many = f"{len(lines)} line{'s' if len(lines) > 1 else ''}"
        summary.string = f"Code, {many}: "
        first = soup.new_tag("code")
        first.string = lines[0] if len(lines[0]) <= FIRST_LINE else f"{lines[0][:FIRST_LINE]}…"
        summary.append(first)
        code.wrap(details)
        details.insert(0, summary)


def _name_headings(soup: BeautifulSoup) -> None:
    """A name of its own for each heading, so that the contents can link to it."""
    number = count(1)
    for heading in soup(["h2", "h3"]):
        heading.attrs = {"id": f"part-{next(number)}"}
    for tag in soup.select("[id^=cell-id]"):
        del tag["id"]


def _reach(soup: BeautifulSoup) -> None:
    """What may scroll can be scrolled by keyboard; headers that say nothing are none."""
    number = count(1)
    for header in soup("th"):
        if not header.get_text(strip=True):
            header.name = "td"
    for table in soup("table"):
        box = soup.new_tag("div")
        box.attrs = _scrolling("box", f"Table {next(number)}")
        table.wrap(box)
    number = count(1)
    for text in soup.select(".output_text pre, .output_error pre"):
        lines = text.get_text().splitlines()
        if len(lines) > LONG or any(len(line) > WIDE for line in lines):
            text.attrs |= _scrolling("long", f"Output {next(number)}")
    for formula in soup.select("math[display=block]"):
        formula["tabindex"] = "0"


def _scrolling(kind: str, name: str) -> dict[str, Any]:
    return {"class": kind, "tabindex": "0", "role": "group", "aria-label": name}


def _title_first(soup: BeautifulSoup) -> None:
    """The title of the notebook before all cells."""
    cell = soup.select_one(".cell")
    heading = cell.find("h1") if cell else None
    if heading is not None:
        heading.attrs = {}
        soup.insert(0, heading.extract())
    for other in _others(soup, heading):
        other.name = "h2"


def _others(soup: BeautifulSoup, title: Tag | None) -> Iterator[Tag]:
    return (heading for heading in soup("h1") if heading is not title)


def _content(source: str) -> bytes:
    """The bytes of a picture that is a ``data:`` address; none of any other."""
    try:
        return base64.b64decode(source.partition("base64,")[2])
    except ValueError:
        return b""
