"""The HTML report in a real browser: what is seen, reached, filtered and printed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from needs import need
from reporting import LEDGER, NAME, published, run_record

from cliplab.lab.batch.spec import Failure, RunSpec
from cliplab.lab.claims import judge_all
from cliplab.lab.report.site import write_report

WIDTHS, SCHEMES = (390, 800, 1280), ("light", "dark")
MOST_BYTES = 2_000_000


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """The report of two small runs that decide nothing, and of one that failed."""
    folder = tmp_path_factory.mktemp("report")
    records = [run_record(folder / "runs", "smoke", seed, n=3) for seed in (2000, 3000)]
    (folder / "02_other" / "smoke" / ("f" * 16)).mkdir(parents=True)
    spec = RunSpec(Path("02_other.ipynb"), "02_other", "smoke", {}, "f" * 64, "", folder, "02")
    failures = [Failure(spec, "ZeroDivisionError: 1 < 2")]
    verdicts = judge_all({NAME: records[0].rows}, "smoke", LEDGER)
    index, bad = write_report(records, verdicts, LEDGER, folder / "reports", failures, published())
    assert bad == []
    return index.parent


def pages(report: Path) -> list[Path]:
    return [report / "index.html", *sorted((report / "pages").iterdir())]


@pytest.fixture
def opened(browser, report) -> Any:
    """Opens a page of the report, at a width and in a colour scheme."""
    contexts = []

    def open_(path: Path, width: int = 1280, scheme: str = "light") -> Any:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()


Open = Callable[..., Any]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_fails_or_is_fetched(browser, report, width, scheme):
    size = {"width": width, "height": 900}
    with browser.new_context(viewport=size, color_scheme=scheme) as context:
        page = context.new_page()
        wrong, fetched = [], []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: fetched.append(request))
        for path in pages(report):
            page.goto(path.as_uri())
            assert wrong == []
            own = [r.url for r in fetched if not r.is_navigation_request()]
            assert [url for url in own if not url.startswith("data:")] == []
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path.name} is {wide} px wide"
            broken = page.locator("img").evaluate_all("all => all.filter(i => !i.naturalWidth)")
            assert broken == []


def test_every_page_is_small(report):
    assert len(pages(report)) == 4
    for path in pages(report):
        assert path.stat().st_size <= MOST_BYTES, path


def test_every_link_leads_to_something_that_is_there(opened: Open, report):
    there = {path: opened(path) for path in pages(report)}
    followed = 0
    for path, page in there.items():
        for href in page.locator("a").evaluate_all("all => all.map(a => a.href)"):
            if not href.startswith("file:///"):
                continue
            address, part = urldefrag(href)
            target = Path(unquote(address.removeprefix("file://")))
            assert target in there, f"{path.name}: {href}"
            assert not part or there[target].locator(f'[id="{part}"]').count() == 1, href
            followed += 1
    assert followed > 30


def test_the_menu_leads_down_the_index_and_on_to_the_next_page(opened: Open, report):
    page = opened(report / "index.html")
    menu = page.locator("nav.bar a")
    assert menu.all_inner_texts()[:4] == ["Failures", "Answers", "Notebooks", "Comparisons"]
    menu.get_by_text("Comparisons").click()
    assert page.evaluate("scrollY") > 500
    assert page.locator("#claims").bounding_box()["y"] > menu.first.bounding_box()["y"] + 10
    page.locator("#notebooks ~ ul h3 a").first.click()
    first = page.url
    page.get_by_text("Next →").click()
    assert page.url != first
    page.locator('nav.bar a[rel="prev"]').click()
    assert page.url == first
    page.locator("nav.bar").get_by_text("Report").click()
    assert page.url.endswith("index.html")


def shown(page: Any) -> list[str]:
    """The comparisons that can be seen."""
    rows = page.locator("table.claims tbody tr[id]")
    return rows.evaluate_all("all => all.filter(r => r.checkVisibility()).map(r => r.id)")


def test_comparisons_are_filtered_by_outcome_kind_and_notebook_without_a_script(
    opened: Open, report
):
    page = opened(report / "index.html")
    assert page.locator("script").count() == 0
    everything = shown(page)
    assert len(everything) == 7
    kinds = page.locator("table.claims .group:visible")
    assert kinds.all_inner_texts() == ["Comparisons", "Demonstrations", "Identities"]
    page.locator("#by-outcome").select_option("helps")
    assert shown(page) == ["good_clip"]
    assert kinds.all_inner_texts() == ["Comparisons"]
    page.locator("#by-kind").select_option("identity")
    assert shown(page) == []
    page.locator("#by-outcome").select_option("")
    assert shown(page) == ["identity"]
    page.get_by_role("button", name="Show all").click()
    assert shown(page) == everything
    page.locator("#by-notebook").select_option("n0")
    assert shown(page) == everything


def test_below_640_px_a_table_is_cards_that_name_their_values(opened: Open, report):
    for width, cards in ((390, True), (800, False)):
        page = opened(report / "index.html", width)
        row, head = page.locator("#good_clip"), page.locator("table.claims thead")
        answer = row.locator('[data-label="Answer"]')
        label = answer.evaluate("e => getComputedStyle(e, '::before').content")
        assert ("Answer" in label) == cards
        assert (head.bounding_box()["height"] > 10) != cards
        assert answer.get_by_text("helps").bounding_box()["x"] < width - 30


def test_a_badge_leads_to_what_its_word_means_by_keyboard_too(opened: Open, report):
    for path in (report / "index.html", pages(report)[1]):
        page = opened(path)
        badge = page.locator(".badge").filter(has_text="published: helps").first
        word = badge.get_by_role("link", name="helps")
        title = word.get_attribute("title")
        word.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dt:target")
        assert page.locator("dt:target + dd").inner_text() == title
        assert (
            page.locator("dt:target").bounding_box()["y"]
            >= page.locator(".bar").bounding_box()["height"]
        )


def test_figures_are_dark_in_dark_mode_and_say_what_they_show(opened: Open, report):
    for path in pages(report)[:3]:
        filters = {}
        for scheme in SCHEMES:
            page = opened(path, scheme=scheme)
            plot = page.locator("img.plot").first
            filters[scheme] = plot.evaluate("e => getComputedStyle(e).filter")
        assert filters["light"] == "none"
        assert "invert" in filters["dark"]
        for alt in page.locator("img").evaluate_all("all => all.map(i => i.alt)"):
            assert "Exploding gradients" in alt


def test_code_is_folded_and_one_tick_shows_all_of_it(opened: Open, report):
    page = opened(pages(report)[1])
    code = page.locator("details.code pre")
    assert not code.is_visible()
    page.locator("details.code summary").click()
    assert code.is_visible()
    page.locator("details.code summary").click()
    assert not code.is_visible()
    page.get_by_label("All code").check()
    assert code.evaluate("e => e.checkVisibility({contentVisibilityAuto: true})")
    assert code.bounding_box()["height"] > 20


def test_print_has_everything_that_is_folded_and_cuts_nothing(opened: Open, report):
    for path in pages(report):
        page = opened(path, width=690)  # of A4, between the margins
        page.emulate_media(media="print")
        hidden = page.locator("details > *:not(summary)").evaluate_all(
            "all => all.filter(e => !e.checkVisibility() || !e.getBoundingClientRect().height)"
        )
        assert hidden == []
        cut = page.locator("table, pre, img").evaluate_all(
            "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1"
            " || e.scrollWidth > e.clientWidth + 1 && e.tagName == 'PRE').map(e => e.outerHTML)"
        )
        assert cut == []
        assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(opened: Open, report, width, scheme):
    axe = need("axe_playwright_python.sync_playwright", "browser").Axe()
    for path in pages(report):
        found = axe.run(opened(path, width, scheme)).response["violations"]
        serious = [
            (rule["id"], rule["nodes"][0]["html"][:200])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert serious == [], path.name
