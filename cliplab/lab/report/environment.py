"""The templates of pages, and the filters that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.lab.report import tables
from cliplab.lab.report.alt import plain
from cliplab.lab.report.measured import of_each
from cliplab.lab.report.words import PARTS, WORDS, slug

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

__all__ = ["environment"]


def environment(*folders: Path) -> jinja2.Environment:
    """Those of the folders, and the report's own."""
    import jinja2
    from markupsafe import Markup, escape

    from cliplab.lab.report.pages import markdown_html, mathml

    loader = jinja2.FileSystemLoader([*folders, Path(__file__).with_name("templates")])
    found = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    found.globals.update(parts=PARTS, explained=WORDS)
    found.filters.update(
        slug=slug,
        number=tables.number,
        percent=tables.percent,
        duration=tables.duration,
        p_value=tables.p_value,
        effect=tables.effect,
        of_each=of_each,
        points=tables.points,
        word=_word,
        css_class=_css_class,
        plain=plain,
        json=lambda value: json.dumps(value, ensure_ascii=False),
        tex=lambda text: Markup(_title(mathml(str(escape(text))))),
        markdown=lambda text: Markup(markdown_html(text)),
    )
    return found


def _word(text: str, word: str = "", page: str = "") -> Markup:
    """A text that leads to the explanation of its word, and has it as its title."""
    from markupsafe import Markup

    word = word or text
    link = '<a class="word" href="{}#word-{}" title="{}">{}</a>'
    return Markup(link).format(page, slug(word), WORDS[word], text)


def _title(text: str) -> str:
    """Code in a title, where the rest is plain."""
    return re.sub("`([^`<>]+)`", r"<code>\1</code>", text)


def _css_class(word: str) -> str:
    return word.replace(" ", "-").replace("/", "-")
