"""A notebook as it ran, as a page: what is on it, how large it is, what stays when it is redone."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import reporting as fakes
from PIL import Image

from cliplab.lab.claims import Ledger
from cliplab.lab.report.notebook_pages import LARGEST, notebook_page, orphans, with_generated
from cliplab.lab.report.publish import publish, regenerate, stale
from cliplab.lab.runs.record import MIME

ROOT = Path(__file__).parents[3]
NAME = fakes.NAME
README_SECTIONS = ("answers", "computing")
DEMONSTRATED = Ledger({c.id: c for c in (fakes.SHOWN, fakes.IDENTITY, fakes.WITHDRAWN)}, 25)
TABLE = (
    "<div><style>td {color: red}</style><script>run()</script><table border='1' class='t'>\n\n"
    "  <tr><td colspan='2' style='x'>1</td></tr>\n</table></div>"
)


def png(size: int = 8, seed: int | None = None) -> str:
    """A picture of one colour, or of noise that no palette makes small."""
    noise = np.random.default_rng(seed or 0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    image = Image.fromarray(noise if seed is not None else np.zeros_like(noise))
    written = io.BytesIO()
    image.save(written, "png")
    return base64.b64encode(written.getvalue()).decode()


def shown(**data):
    return nbformat.v4.new_output("display_data", data)


def notebook(folder: Path, *outputs, source: str = "x = 1\nprint(x)") -> None:
    """Write an executed notebook over the one of a record."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell(
            "# 04 · Does it $c$?\n\nSee [03](03_other.ipynb#A-Part), [here](#B-B)."
        ),
        new.new_markdown_cell("*Not measured yet.*", metadata={"tags": ["found"]}),
        new.new_code_cell("lr: float = 0.1", metadata={"tags": ["parameters"]}),
        new.new_markdown_cell("## The `norms` [of all](../docs/study.md)"),
        new.new_code_cell(source, outputs=list(outputs)),
    ]
    nbformat.write(new.new_notebook(cells=cells), folder / "notebook.ipynb")


def page_of(record, root: Path) -> tuple[str, dict[str, bytes]]:
    files = {path.name: content for path, content in notebook_page(record, root).items()}
    text = files.pop(f"{record.notebook}.md")
    return text, files


def test_a_page_has_text_folded_code_what_was_printed_tables_and_pictures(tmp_path):
    record = fakes.run_record(tmp_path)
    outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="one\ntwo\n"),
        shown(**{"text/html": TABLE, "text/plain": "1"}),
        shown(**{MIME: {}, "text/plain": "<recorded>"}),
        shown(**{"text/markdown": "*said*", "text/plain": "said"}),
        shown(**{"image/png": png(), "text/plain": "<Figure>"}),
    ]
    source = "x = 1\nax.set_title('losses [nats]')"
    notebook(record.directory, *outputs, source=source)
    text, files = page_of(record, tmp_path)
    assert text.startswith("# 04 · Does it $c$?\n\n<!-- found:begin -->\n")
    assert "not measured" not in text.lower()
    code = "<details><summary>Code: {}</summary>\n\n```python\n{}\n```\n\n</details>"
    assert code.format("parameters", "lr: float = 0.1") in text
    assert code.format("2 lines", source) in text
    assert "```text\none\ntwo\n```" in text
    assert '<div><table>\n<tr><td colspan="2">1</td></tr>\n</table></div>' in text
    assert "recorded" not in text
    assert "*said*" in text
    assert f"![Figure 1, The norms of all: losses \\[nats\\]]({NAME}_1.png)" in text
    assert list(files) == [f"{NAME}_1.png"]
    assert Image.open(io.BytesIO(files[f"{NAME}_1.png"])).size == (8, 8)


def test_links_are_as_they_are_seen_from_the_page(tmp_path):
    record = fakes.run_record(tmp_path)
    notebook(record.directory)
    text, _ = page_of(record, tmp_path)
    assert "[03](../../notebooks/03_other.ipynb#A-Part), [here](#b-b)" in text
    assert "[of all](../study.md)" in text
    assert f"at commit `{record.provenance['git_sha'][:12]}`" in text


def test_what_looks_like_a_link_in_code_stays(tmp_path):
    record = fakes.run_record(tmp_path)
    said = "`rows[0](lr)`, [`rows[0](lr)`](03.ipynb), $f[0](x)$\n\n```python\nrows[0](lr)\n```"
    notebook(record.directory, shown(**{"text/markdown": said}))
    assert said.replace("03", "../../notebooks/03") in page_of(record, tmp_path)[0]


def test_preformatted_lines_of_a_table_stay(tmp_path):
    record = fakes.run_record(tmp_path)
    html = "<div>\n\n  <pre>def f():\n\n    return 1</pre>\n  <p>x</p></div>"
    notebook(record.directory, shown(**{"text/html": html}))
    text = page_of(record, tmp_path)[0]
    assert "<div>\n<pre>def f():&#10;&#10;    return 1</pre>\n<p>x</p></div>" in text


def test_code_with_fences_of_its_own_stays_one_block(tmp_path):
    record = fakes.run_record(tmp_path)
    notebook(record.directory, source='a = """\n```\n"""')
    assert '````python\na = """\n```\n"""\n````' in page_of(record, tmp_path)[0]


def test_a_large_picture_gets_smaller_and_one_that_does_not_is_refused(tmp_path):
    record = fakes.run_record(tmp_path)
    notebook(record.directory, shown(**{"image/png": png(600, seed=1)}))
    assert len(base64.b64decode(png(600, seed=1))) > LARGEST
    (picture,) = page_of(record, tmp_path)[1].values()
    assert len(picture) < LARGEST
    notebook(record.directory, shown(**{"image/png": png(1400, seed=1)}))
    with pytest.raises(
        ValueError, match=rf"{NAME}_1.png has \d+ bytes, expected at most {LARGEST}"
    ):
        notebook_page(record, tmp_path)
    notebook(record.directory, nbformat.v4.new_output("stream", text="x" * LARGEST))
    with pytest.raises(ValueError, match=rf"the page of {NAME} has \d+ bytes, at most {LARGEST}"):
        notebook_page(record, tmp_path)


def test_what_is_said_is_put_in_place_as_it_is(tmp_path):
    record = fakes.run_record(tmp_path)
    notebook(record.directory)
    (page, text), *_ = notebook_page(record, tmp_path).items()
    page.parent.mkdir(parents=True)
    page.write_text(text)
    once = with_generated(
        page, {"found": r"It \frac{1}{2}s, \1 [there](../RESULTS.md)", "other": "no"}
    )
    assert "\n\nIt \\frac{1}{2}s, \\1 [there](../../RESULTS.md)\n\n<!-- found:end -->" in once
    page.write_text(once)
    assert notebook_page(record, tmp_path)[page] == once  # what is known stays until it is redone
    assert with_generated(page, {"found": ""}) == text


@pytest.fixture
def project(tmp_path, make_notebook):
    """A project of one published notebook with a figure."""
    tables = "".join(f"<!-- {name}:begin --><!-- {name}:end -->\n" for name in README_SECTIONS)
    (tmp_path / "README.md").write_text(tables)
    path = tmp_path / "notebooks" / f"{NAME}.ipynb"
    make_notebook(path, "x = 1", parameters="lr: float = 0.1")
    content = json.loads(path.read_text())
    cell = {"cell_type": "markdown", "id": "found", "metadata": {"tags": ["found"]}, "source": ""}
    content["cells"].insert(1, cell)
    path.write_text(json.dumps(content))
    (tmp_path / "notebooks" / "presets.toml").write_text(f"[{NAME}.verdict]\n")
    record = fakes.run_record(tmp_path / "r")
    notebook(record.directory, *[shown(**{"image/png": png()})] * 2)
    publish([record], tmp_path, DEMONSTRATED)
    return tmp_path, record


def test_a_published_page_follows_the_records_and_loses_old_pictures(project):
    root, record = project
    pages = root / "docs" / "notebooks"
    page = pages / f"{NAME}.md"
    assert "+0.170 [+0.155, +0.185] nats, 8 seeds (a demonstration" in page.read_text()
    assert sorted(path.name for path in pages.iterdir()) == [
        f"{NAME}.md", f"{NAME}_1.png", f"{NAME}_2.png"
    ]  # fmt: skip
    assert stale(root, DEMONSTRATED) == []

    page.write_text(page.read_text().replace("+0.170", "+0.270"))
    assert stale(root, DEMONSTRATED) == [page.name]
    assert regenerate(root, DEMONSTRATED) == [page]
    assert "+0.170" in page.read_text()

    notebook(record.directory, shown(**{"image/png": png()}))
    assert publish([record], root, DEMONSTRATED) == [page]
    assert sorted(path.name for path in pages.iterdir()) == [f"{NAME}.md", f"{NAME}_1.png"]
    assert publish([replace(record)], root, DEMONSTRATED) == []


def test_pictures_of_a_page_with_a_longer_name_are_not_lost(tmp_path):
    page = tmp_path / "clip.md"
    page.write_text("![Figure 1](clip_1.png)")
    for name in ("clip_1.png", "clip_2.png", "clip_rnn_1.png", "clip_1_2.png"):
        (tmp_path / name).touch()
    assert [path.name for path in orphans(page)] == ["clip_2.png"]


PAGES = sorted((ROOT / "docs" / "notebooks").glob("[0-9]*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_this_project_is_of_the_published_run_and_small(page):
    text = page.read_text("utf-8")
    published = json.loads((ROOT / "records" / f"{page.stem}.json").read_text("utf-8"))
    assert f"at commit `{published['provenance']['git_sha'][:12]}`" in text
    pictures = sorted(page.parent.glob(f"{page.stem}_*.png"))
    assert sorted(re.findall(r"^!\[.+\]\((.+\.png)\)$", text, re.M)) == [p.name for p in pictures]
    assert max(path.stat().st_size for path in (page, *pictures)) < LARGEST


def test_there_are_pages():
    assert len(PAGES) > 15
