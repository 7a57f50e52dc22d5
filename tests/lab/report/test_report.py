"""The HTML report: complete, escaped, self-contained, and right about the numbers."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from reporting import (
    CLAIMS,
    LEDGER,
    NAME,
    STUDY,
    WITHDRAWN,
    executed_notebook,
    published,
    run_record,
    studied_record,
)
from studying import comparison, share, study, surface

from cliplab.lab.batch.spec import Failure, RunSpec
from cliplab.lab.claims import Ledger, judge, judge_all
from cliplab.lab.report.answers import found_cell
from cliplab.lab.report.site import write_report

VOID = {"meta", "img", "br", "hr", "input", "link", "wbr"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; refuses tags that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data

    def loads(self) -> list[str]:
        """Whatever the browser would fetch."""
        found = re.findall(r"@import[^;]*|url\([^)]*\)", self.source)
        for tag, attributes in self.tags:
            names = ["src", "srcset", "poster", "data"] + ["href"] * (
                tag in {"link", "image", "use"}
            )
            found += [str(attributes[n]) for n in names if n in attributes]
        return [address for address in found if not address.startswith("data:")]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    records = [studied_record(folder / "results")]
    failed = folder / "results" / "02_other" / "verdict" / ("f" * 16)
    failed.mkdir(parents=True)
    (failed / "error.txt").write_text("line 1\nZeroDivisionError: 1 < 2")
    spec = RunSpec(
        notebook=Path("notebooks/02_other.ipynb"),
        name="02_other",
        preset="verdict",
        params={"lr": 5.0},
        key="f" * 64,
        code_key="",
        results=folder / "results",
        label="02_other lr=5.0",
    )
    failures = [Failure(spec, "ZeroDivisionError: 1 < 2")]
    studies = {NAME: {"toy": STUDY.about()}}
    verdicts = judge_all({NAME: records[0].rows}, "verdict", LEDGER, studies)
    index, bad = write_report(records, verdicts, LEDGER, folder / "reports", failures)
    assert bad == []
    assert index == folder / "reports" / "index.html"
    return index.parent


def test_the_site_is_whole_and_links_lead_somewhere(site: Path) -> None:
    index = Page(site / "index.html")
    linked = [a["href"] for tag, a in index.tags if tag == "a" and not a["href"].startswith("#")]
    assert {site / href for href in linked} == set((site / "pages").iterdir())
    for page in (site / "pages").iterdir():
        assert ("a", {"href": "../index.html"}) in Page(page).tags
    anchors = {a["href"][1:] for tag, a in index.tags if tag == "a" and a["href"].startswith("#")}
    assert anchors <= {str(a["id"]) for _, a in index.tags if "id" in a}


def test_nothing_is_loaded_from_anywhere(site: Path) -> None:
    for path in [site / "index.html", *(site / "pages").iterdir()]:
        page = Page(path)
        assert page.loads() == []
        assert "script" not in {tag for tag, _ in page.tags}
        assert any(
            "default-src 'none'" in str(a.get("content")) for t, a in page.tags if t == "meta"
        )


def test_the_index_states_each_question_with_its_answer(site: Path) -> None:
    page = Page(site / "index.html")
    text = " ".join(page.text.split())
    for word in ("helps", "harms", "no matter", "unclear (below margin)", "not run", "shown"):
        assert word in text
    assert "Does good clipping help where x < y & z?" in text  # escaped, so text again
    assert "where x &lt; y &amp; z" in page.source
    assert "Does clipping at" in text
    assert "4 of 8" in text  # diverged runs of the unclipped arm, in words
    assert "Holm p" in text
    assert "[90 % interval]" in text
    assert "2 min 05 s" in text
    assert "1,234" in text  # or it rounded
    assert "ZeroDivisionError: 1 < 2" in text


def test_signs_units_and_words_of_the_table_are_right(site: Path) -> None:
    page = Page(site / "index.html")
    cells = {}
    for row in re.findall(r'<tr id="(\w+)"[^>]*>(.*?)</tr>', page.source, re.DOTALL):
        found = re.findall(r"<td[^>]*>(.*?)</td>", row[1], re.DOTALL)
        texts = (unescape(re.sub("<[^>]*>", "", cell)) for cell in found)
        cells[row[0]] = [" ".join(text.split()) for text in texts]
    assert list(cells) == [c.id for c in CLAIMS if c is not WITHDRAWN]
    _, word, loss, margin, failures, p = cells["good_clip"]
    assert (word, margin, p) == ("helps", "0.100", "< 0.001")
    interval = r"\+0\.\d+ \[\+0\.\d+, \+0\.\d+\] nats"
    assert re.fullmatch(rf"{interval} ?1\.\d+ \(good\), 2\.\d+ \(none\)", loss)
    counts = r"0 of 33 \(good\), 0 of 33 \(none\); 10 would matter"
    assert re.fullmatch(rf"0\.0 \[−7\.7, \+7\.7\] points ?{counts}", failures)
    assert cells["bad_clip"][2].startswith("−1.")
    assert "good against none, " in cells["good_clip"][0]
    assert cells["absent_clip"][1:] == ["not run", "–", "0.100", "–", "–"]
    assert cells["shown"][1:] == ["shown", cells["shown"][2], "–", "–", "–"]
    assert cells["shown"][2].startswith("+0.170 [+0.1")
    assert "clip 1 against none (demonstration)" in cells["shown"][0]
    assert "diverged: 0 of 8 and 4 of 8" in cells["shown"][0]
    assert cells["identity"][1] == "holds"
    for told in cells.values():
        assert not re.search(r"None|nan|inf|\d\.\d{6}", " ".join(told))


def test_what_is_withdrawn_is_folded_away_and_counted(site: Path) -> None:
    page = Page(site / "index.html")
    assert "Withdrawn, being redone: 1" in page.text
    assert "It was claimed once" in page.text
    tally = page.source[page.source.index('<ul class="chips">') :]
    chip = r'<li class="([\w-]+)">(\d+) <a [^>]*>([\w ]+)</a></li>'
    tally = re.findall(chip, tally[: tally.index("</ul>")])
    assert tally == [
        ("helps", "1", "helps"), ("no-matter", "1", "no matter"), ("harms", "1", "harms"),
        ("unclear", "1", "unclear"), ("holds", "1", "holds"), ("shown", "1", "shown"),
        ("not-run", "1", "not run"), ("withdrawn", "1", "withdrawn"),
    ]  # fmt: skip


def test_the_forest_plot_marks_each_answer_by_shape_and_by_word(site: Path) -> None:
    page = Page(site / "index.html")
    plot = page.source[page.source.index('<table class="forest">') :]
    plot = plot[: plot.index("</table>")]
    rows = {
        kind: re.search(rf'<tr class="row {kind}">.*?</tr>', plot, re.DOTALL)[0]
        for kind in ("helps", "harms", "no-matter", "unclear")
    }
    assert '<circle r="4.5">' in rows["helps"]
    assert ">helps</a></td>" in rows["helps"]
    assert '<a href="#good_clip">good_clip</a>' in rows["helps"]
    assert '<rect x="-4"' in rows["harms"]
    assert "<path" in rows["harms"]  # an arrow: 10 margins are off the scale
    assert "l6 6l-6 6" in rows["no-matter"]
    assert 'class="hollow"' in rows["unclear"]
    zero = float(re.search(r'class="axis" x1="([\d.]+)%"', plot)[1])
    x = {kind: float(re.findall(r'<svg x="([\d.]+)%"', rows[kind])[-1]) for kind in rows}
    assert x["harms"] < zero < x["unclear"] < x["helps"]
    every = [float(n) for n in re.findall(r' (?:x|x1|x2)="([\d.]+)%"', plot)]
    assert 0 <= min(every) <= max(every) <= 100
    assert "Without a difference in loss: absent_clip." in page.text


def test_a_notebook_page_shows_its_cells_outputs_and_mathematics(site: Path) -> None:
    page = Page(next((site / "pages").glob(f"{NAME}*")))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("math") == 6
    assert ("math", "block") in {(t, a.get("display")) for t, a in page.tags}
    assert "$" not in page.text.replace("$5 to $10", "").replace("$x$", "")
    assert "\\undefinedcommand{y}" in page.text
    assert "em" in tags  # markdown still works beside the mathematics
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 1
    assert pictures[0]["src"].startswith("data:image/png;base64,")
    assert pictures[0]["alt"] == "Figure 1, Exploding gradients, g > c"
    assert pictures[0]["class"] == "plot"
    assert "dataframe" in page.source
    assert "lr <= 0" in page.text
    assert "ansi-red-fg" in page.source
    assert ("a", {"href": "https://example.org/b.svg"}) in page.tags  # a link, not a picture


def test_a_failed_run_has_a_page_with_its_traceback(site: Path) -> None:
    page = Page(site / "pages" / "failed-02_other-verdict-ffffffff.html")
    assert "line 1\nZeroDivisionError: 1 < 2" in page.text


def failed_spec(results: Path) -> RunSpec:
    spec = RunSpec(Path("02.ipynb"), "02", "quick", {}, "f" * 64, "", results, "02")
    spec.directory.mkdir(parents=True)
    return spec


def test_a_damaged_notebook_does_not_cost_the_report(tmp_path: Path) -> None:
    spec = failed_spec(tmp_path)
    (spec.directory / "notebook.ipynb").write_text('{"cells": [')
    failures = [Failure(spec, "disk full", "3/9")]
    index, bad = write_report([], [], Ledger(), tmp_path / "reports", failures)
    assert [str(spec.directory / "notebook.ipynb") in why for why in bad] == [True]
    assert "disk full" in index.read_text()
    assert "3/9" in index.read_text()
    (page,) = (tmp_path / "reports" / "pages").iterdir()
    assert "cannot read notebook" in page.read_text()


def test_a_failed_run_shows_the_attempt_that_failed_not_an_older_result(tmp_path: Path) -> None:
    spec = failed_spec(tmp_path)
    for name in ("notebook", "failed"):
        cells = [new_markdown_cell(f"This is the {name} one.")]
        nbformat.write(new_notebook(cells=cells), spec.directory / f"{name}.ipynb")
    write_report([], [], Ledger(), tmp_path / "reports", [Failure(spec, "disk full")])
    (page,) = (tmp_path / "reports" / "pages").iterdir()
    assert "This is the failed one." in page.read_text()


def test_a_report_without_claims_speaks_of_none_and_drops_older_pages(tmp_path: Path) -> None:
    record = run_record(tmp_path / "results")
    index, _ = write_report([record], [], Ledger(), tmp_path / "reports")
    page = Page(index)
    assert "claim" not in page.text.lower()
    assert "gradient clipping" not in page.text
    assert len(list((tmp_path / "reports" / "pages").iterdir())) == 1
    page = Page(write_report([], [], Ledger(), tmp_path / "reports")[0])
    assert "claim" not in page.text.lower()
    assert list((tmp_path / "reports" / "pages").iterdir()) == []


def test_too_few_seeds_for_an_interval(tmp_path: Path) -> None:
    record = run_record(tmp_path / "results", n=3)
    verdicts = judge_all({NAME: record.rows}, "smoke", LEDGER)
    page = Page(write_report([record], verdicts, LEDGER, tmp_path / "reports")[0])
    assert "∞" not in page.text
    assert "no verdict (smoke)" in page.text
    assert ("li", {"class": "no-verdict"}) in page.tags
    assert "2 no verdict" in page.text
    assert "<svg" not in page.source  # no comparison has a difference


def published_beside(folder: Path) -> tuple[Page, Page]:
    """Index and page of a smoke run, beside published verdicts and an answer."""
    record = run_record(folder / "results", preset="smoke", n=3)
    verdicts = judge_all({NAME: record.rows}, "smoke", LEDGER)
    index, bad = write_report([record], verdicts, LEDGER, folder / "reports", (), published())
    assert bad == []
    (page,) = (folder / "reports" / "pages").iterdir()
    return Page(index), Page(page)


def test_a_run_that_decides_nothing_stands_beside_what_is_published(tmp_path: Path) -> None:
    index, page = published_beside(tmp_path)
    row = re.search(r'<tr id="shown".*?</tr>', index.source, re.DOTALL)[0]
    assert 'data-outcome="shown"' in row
    assert re.search("published: <a [^>]*>shown</a>", row)
    assert "here: no verdict (smoke)" in row
    assert "here: +0.1" in row
    assert ("li", {"class": "helps"}) in index.tags  # published, as no study was run
    identity = re.search(r'<tr id="identity".*?</tr>', index.source, re.DOTALL)[0]
    assert "here: no verdict (smoke), in all 3 rows" in identity
    assert "Preset smoke decides nothing" in index.text
    said = " ".join(page.text.split())
    assert "What was found" in said
    assert "This run (smoke): no verdict (smoke) · difference +0.1" in said
    assert "This run (smoke): no verdict (smoke) · in all 3 rows" in said
    assert said.index("What was found") < said.index("Does clipping at")


def test_answers_come_first_and_link_to_their_notebooks(tmp_path: Path) -> None:
    index, _ = published_beside(tmp_path)
    assert '<li id="answer-3" value="3">' in index.source
    assert "<code>c</code> at <math" in index.source
    headings = re.findall(r'<h2 id="(\w+)"', index.source)
    assert headings[:3] == ["answers", "notebooks", "claims"]
    answer = index.source[index.source.index('<li id="answer-3"') : index.source.index("</ol>")]
    assert f'<a href="pages/{NAME}' in answer
    assert "02_other (not run)" in answer
    assert re.search('#word-replicated" [^>]*>replicated</a> 2, <a [^>]*>decided</a> 1', answer)


def test_a_report_of_one_notebook_of_ones_own_is_called_as_that_is(tmp_path: Path) -> None:
    record = run_record(tmp_path / "results")
    verdicts = judge_all({NAME: record.rows}, "verdict", LEDGER)
    page = Page(write_report([record], verdicts, LEDGER, tmp_path / "reports")[0])
    assert re.search("<h1>Exploding gradients, <math.*</h1>", page.source)
    assert f">{NAME}</a></h3>" in page.source  # its card does not say so again
    collection = published_beside(tmp_path / "collection")[0].source
    assert "<h1>What gradient clipping does, question by question</h1>" in collection
    assert re.search(">Exploding gradients, <math.*</a></h3>", collection)


def test_comparisons_come_before_the_other_kinds(tmp_path: Path) -> None:
    record = studied_record(tmp_path / "results")
    ledger = Ledger({claim.id: claim for claim in reversed(CLAIMS)}, LEDGER.family)
    verdicts = judge_all({NAME: record.rows}, "verdict", ledger, {NAME: {"toy": STUDY.about()}})
    page = Page(write_report([record], verdicts, ledger, tmp_path / "reports")[0])
    table = page.source.partition('<table class="cards claims">')[2].partition("</table>")[0]
    found = re.findall(r'colspan="6">(\w+)</th>|<tr id="(\w+)"', table)
    said = [kind or name for kind, name in found]
    compared = [claim.id for claim in reversed(CLAIMS) if claim.kind == "comparison"]
    others = ["Demonstrations", "shown", "Identities", "identity"]
    assert said == ["Comparisons", *compared, *others]


def test_a_word_has_its_explanation_as_title_and_leads_to_it(tmp_path: Path) -> None:
    index, page = published_beside(tmp_path)
    told = dict(re.findall(r'<dt id="([\w-]+)">[^<]*</dt><dd>([^<]*)</dd>', index.source))
    words = {}
    for one, begin in ((index, "#"), (page, "../index.html#")):
        links = [a for tag, a in one.tags if tag == "a" and a.get("class") == "word"]
        assert all(a["href"].startswith(begin) for a in links)
        words |= {a["href"].removeprefix(begin): a["title"] for a in links}
    assert {"word-helps", "word-unclear-below-margin", "word-holm-p", "word-identity"} <= set(words)
    assert words.items() <= {name: unescape(text) for name, text in told.items()}.items()


def test_pages_lead_to_their_neighbours_and_keep_their_cells(tmp_path: Path) -> None:
    records = [run_record(tmp_path / f"{i}", first_seed=i * 100) for i in range(1, 4)]
    write_report(records[:2], [], Ledger(), tmp_path / "reports")
    first, second = (next((tmp_path / "reports" / "pages").glob(f"*-{r.key[:8]}.html"))
                     for r in records[:2])  # fmt: skip
    assert ("a", {"href": second.name, "rel": "next"}) in Page(first).tags
    assert "prev" not in {a.get("rel") for _, a in Page(first).tags}
    first.write_text(first.read_text().replace("undefinedcommand", "kept"))
    second.write_text(second.read_text().replace("undefinedcommand", "gone"))
    (records[1].directory / "notebook.ipynb").touch()  # newer than its page
    write_report(records, [], Ledger(), tmp_path / "reports")
    assert "kept" in first.read_text()
    assert "undefinedcommand" in second.read_text()
    assert {a.get("rel") for _, a in Page(second).tags} > {"prev", "next"}


def test_code_is_folded_behind_its_first_line_and_headings_are_contents(tmp_path: Path) -> None:
    record = run_record(tmp_path / "run")
    notebook = executed_notebook()
    notebook.cells.insert(1, new_markdown_cell("## What the *norm* does\n\n### In detail"))
    tags = {"tags": ["injected-parameters"]}
    notebook.cells.insert(2, new_code_cell("# Parameters\nlr = 0.125", metadata=tags))
    nbformat.write(notebook, record.directory / "notebook.ipynb")
    write_report([record], [], Ledger(), tmp_path / "reports")
    (path,) = (tmp_path / "reports" / "pages").iterdir()
    page = Page(path)
    assert "Code, 4 lines: <code>import torch</code></summary>" in page.source
    assert '<a href="#part-1">What the <em>norm</em> does</a>' in page.source
    assert '<h2 id="part-1">' in page.source
    assert '<h3 id="part-2">' in page.source
    assert "0.125" not in page.text  # the parameters of the run are told once, above
    assert page.source.count("<h1") == 1
    assert page.source.index("<h1>Exploding gradients") < page.source.index('id="contents"')
    assert "<title>Exploding gradients" in page.source


def test_a_share_opens_a_notebook_in_percent():
    counted = [{"arm": "error", "seed": k, "seen": k < 2} for k in range(3)]
    found = found_cell([judge(share(), counted)])
    assert found.endswith("* Errors that are seen: 67 % [25 %, 92 %], 2 of 3 errors.")
    none_asked = [row | {"seen": None} for row in counted]
    assert found_cell([judge(share(), none_asked)]).endswith("Errors that are seen: 0 of 0 errors.")


def test_an_estimate_opens_a_notebook_without_a_word():
    rows = study(surface(gain=0.3)).run("half", 100)
    found = found_cell([judge(comparison(kind="estimate"), rows)])
    assert "z? Loss: " in found
    assert found.endswith("p = 1.00). (an estimate: no verdict)")
