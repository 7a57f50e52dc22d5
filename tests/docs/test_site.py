"""The site is built without a warning, all its links lead somewhere, and it loads nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from needs import need
from waiting import LONG

bs4 = need("bs4", "lab")
for module in ("sphinx", "myst_nb", "furo", "sphinx_copybutton"):
    need(module, "docs")

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", ".", folder],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    said = [
        line for line in ran.stderr.splitlines() if re.search(r"\.(md|py)\b.*: (WARN|ERR)", line)
    ]
    assert (ran.returncode, said) == (0, []), ran.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {
        path.relative_to(site).as_posix(): bs4.BeautifulSoup(path.read_text("utf-8"), "html.parser")
        for path in site.rglob("*.html")
        if "_static" not in path.parts
    }


def test_every_page_of_the_documentation_is_in_the_site(site):
    own = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    assert len(own) > 40
    for path in (*own, Path("RESULTS.md"), Path("CHANGELOG.md"), Path("records/DEVIATIONS.md")):
        assert "_build" in path.parts or (site / path.with_suffix(".html")).exists(), path


def test_the_menu_shows_no_part_of_more_than_a_few_pages(pages):
    """What is more lies under one of them."""
    parts = pages["docs/index.html"].select(".sidebar-tree > ul")
    shown = [[entry.a["href"] for entry in part("li", recursive=False)] for part in parts]
    assert "study.html" in shown[-1]
    assert max(map(len, shown)) <= 5
    under = {a["href"] for a in parts[-1].select("li li a")}
    assert {"../benchmarks/clip.html", "../records/DEVIATIONS.html", "records.html"} <= under


def test_every_link_leads_somewhere(site, pages):
    broken, followed = [], 0
    anchors = {name: {tag["id"] for tag in page.select("[id]")} for name, page in pages.items()}
    for name, page in pages.items():
        for tag in page.select("a[href], img[src], link[href], script[src]"):
            target = tag.get("href") or tag["src"]
            url = urlsplit(target)
            if url.scheme in ("data", "mailto"):
                continue
            if url.scheme or url.netloc:
                if not re.fullmatch(r"https?://[\w-]+(\.[\w-]+)+(/[^\s<>\"]*)?", target):
                    broken.append(f"{name}: {target}")
                continue
            followed += 1
            path = ((site / name).parent / unquote(url.path)).resolve() if url.path else site / name
            if not path.is_file():
                broken.append(f"{name}: {target}")
            elif url.fragment and path.suffix == ".html":
                inner = path.relative_to(site.resolve() if url.path else site).as_posix()
                if unquote(url.fragment) not in anchors[inner]:
                    broken.append(f"{name}: {target}")
    assert followed > 5_000
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_a_network(site, pages):
    for name, page in pages.items():
        for tag in page(list(LOADED)):
            assert not urlsplit(tag.get(LOADED[tag.name], "")).netloc, f"{name}: {tag}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", path.read_text("utf-8"))


def test_formulas_are_mathml(pages):
    notebooks = {name: page for name, page in pages.items() if "/notebooks/" in name}
    assert sum(len(page("math")) for page in notebooks.values()) > 100
    for name, page in notebooks.items():
        article = bs4.BeautifulSoup(str(page.article), "html.parser")
        for code in article(["pre", "code"]):
            code.decompose()
        assert not re.search(r"\$|\\[a-z]{2}", article.get_text()), name


def test_an_unpublished_notebook_is_linked_as_a_file_and_a_published_one_as_its_page(site, pages):
    hrefs = {tag["href"] for tag in pages["RESULTS.html"].select("a[href]")}
    assert "docs/notebooks/03_choosing_a_threshold.html" in hrefs
    for href in hrefs:
        if href.endswith(".ipynb"):
            assert not (ROOT / "docs" / "notebooks" / f"{Path(href).stem}.md").exists()


def test_a_word_that_leads_to_the_glossary_says_what_it_means(pages):
    word = "article [href*='glossary.html#']"
    links = [link for page in pages.values() for link in page.select(word)]
    assert len(links) > 20
    for link in links:
        name = link["href"].partition("#")[2]
        (section,) = pages["docs/glossary.html"].select(f"section#{name}")
        assert section.p.get_text().rstrip(".").lower() == link["title"].lower()


CUT = """all => all.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML)"""


def test_on_a_phone_a_row_is_a_card_and_commands_wrap(site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        cut = page.locator("article table.docutils, .highlight-sh pre").evaluate_all(CUT)
        assert cut == [], name
    page.goto((site / "docs" / "which_method.html").as_uri())
    cell = page.locator("article tbody tr").first.locator("td").nth(1)
    label = "e => getComputedStyle(e, '::before').content"
    assert "What to do" in cell.evaluate(label)
    page.set_viewport_size({"width": 1280, "height": 900})
    assert cell.evaluate(label) == "none"
    page.close()


PAGES = (
    "docs/index",
    "docs/quick_start",
    "docs/recipes/index",
    "docs/recipes/other_libraries",
    "docs/which_method",
)
PAGES += ("docs/notebooks/04_dynamic_thresholds", "docs/api/clipper", "RESULTS", "docs/study")


def test_pages_fit_a_phone_and_the_search_works_from_files(site, browser):
    page = browser.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        for name in PAGES:
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.goto((site / "search.html").as_uri() + "?q=microbatch")
    page.wait_for_selector("#search-results li a", timeout=LONG * 1000)
    found = page.locator("#search-results li a").all_inner_texts()
    page.close()
    assert any("microbatch" in text for text in found)
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data"}
    assert not wrong
