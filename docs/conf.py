"""The site that `make docs` builds of the Markdown files of the repository, without a network."""

from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.application import Sphinx

from cliplab import __version__
from cliplab.lab.report.markdown import relinked
from cliplab.lab.report.pages import mathml
from cliplab.lab.report.words import WORDS, slug

ROOT = Path(__file__).parents[1]
MEANINGS = {slug(word): meaning for word, meaning in WORDS.items()}

project = "cliplab"
author = "The cliplab authors"
copyright = author
version = release = __version__

# The repository is the source: a link from page to page is the same here and on a forge.
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "benchmarks/*.md",
    "records/DEVIATIONS.md",
    "RESULTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "results", "reports", "docs/_build", "docs/static", "docs/top"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True  # within a paragraph, as Jupyter takes it
myst_dmath_allow_space = False  # "from $5 to $10" is money, as on the report's pages
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a notebook's headings may leave out a level

autodoc_member_order = "bysource"
autodoc_mock_imports = [  # of cliplab.integrations, which need not be installed
    "accelerate",
    "ignite",
    "keras",
    "lightning",
    "skorch",
    "stable_baselines3",
    "transformers",
]
autodoc_typehints = "none"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"cliplab {version}"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["top"]
html_show_search_summary = False  # asks for pages, which a browser refuses of files
html_copy_source = False
copybutton_prompt_text = ">>> |... |$ "
copybutton_prompt_is_regexp = True


def lead_to_pages(app: Sphinx, docname: str, content: list[str]) -> None:
    """A link to a notebook leads to its page, where there is one; one to a folder nowhere."""
    folder = (ROOT / docname).parent

    def lead(label: str, target: str) -> str:
        path = folder / target
        if "#" not in target and path.is_dir():
            return label
        if "#" in target or path.suffix != ".ipynb":
            return f"[{label}]({target})"
        page = f"docs/notebooks/{path.stem}"
        has_page = page != docname and (ROOT / f"{page}.md").exists()
        return f"[{label}](/{page}.md)" if has_page else f"[{label}](path:{target})"

    content[0] = relinked(content[0], lead)


def finish(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, str], doctree: object
) -> None:
    """Name the column of each cell, for narrow screens; say in a title what a word means.

    The captions of the menu are headings without a level in the theme, which they need.
    """
    menu, body = context.get("furo_navigation_tree", ""), context.get("body", "")
    context["furo_navigation_tree"] = menu.replace('"heading"', '"heading" aria-level="2"')
    if "<table" not in body and "glossary.html#" not in body:
        return
    soup = BeautifulSoup(body, "html.parser")
    for table in soup.select("table.docutils"):
        names = [head.get_text(" ", strip=True) for head in table.select("thead th")]
        for row in table.select("tbody tr"):
            for name, cell in zip(names, row("td"), strict=False):
                if cell.get_text(strip=True):
                    cell["data-label"] = name
    for link in soup.select("a[href*='glossary.html#']"):
        link["title"] = MEANINGS[link["href"].partition("#")[2]]
    context["body"] = str(soup)


def visit_inline(translator: object, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(mathml(f"${node.astext().strip()}$"))
    raise nodes.SkipNode


def visit_display(translator: object, node: nodes.math_block) -> None:
    """Write a formula of its own."""
    translator.body.append(f"<div class='formula'>{mathml(f'$${node.astext().strip()}$$')}</div>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Write formulas as MathML, which browsers show without a script; follow notebooks; finish."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.connect("source-read", lead_to_pages)
    app.connect("html-page-context", finish, priority=900)  # after the theme
