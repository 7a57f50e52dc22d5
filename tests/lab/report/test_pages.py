"""Mathematics and titles of notebook pages; what a page as a whole must be is in test_report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell

from cliplab.lab.notebook.cells import title_and_question
from cliplab.lab.report.fragment import finished
from cliplab.lab.report.pages import mathml, notebook_body


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("it costs $5, or $10", "it costs &#36;5, or &#36;10"),
        ("`$a$` and ``x ` $b$``", "`$a$` and ``x ` $b$``"),
        ("```python\n$a$\n```\n", "```python\n$a$\n```\n"),
        ("~~~\n$a$", "~~~\n$a$"),
        (r"\$5 and $ 6 $", "&#36;5 and &#36; 6 &#36;"),
    ],
)
def test_dollars_that_are_no_mathematics(source: str, expected: str) -> None:
    assert mathml(source) == expected


def test_broken_tex_is_shown_as_it_was_written() -> None:
    body = notebook_body(new_notebook(cells=[new_markdown_cell(r"so $a_b_c < \frac{1}$ *then*")]))
    assert "<code>a_b_c &lt; \\frac{1}</code> <em>then</em>" in body


@given(st.text("ab $\\`{}_^*<>&|\n~[]()0", max_size=30))
def test_mathml_never_fails_and_leaves_markdown_without_dollars_alone(text: str) -> None:
    converted = mathml(text)
    if "$" not in text and "\\begin" not in text:
        assert converted == text


def test_title_and_question() -> None:
    cells = [new_markdown_cell("# A title, $c$\n\n**Question:** Does\nit *help*? Yes: it may.")]
    assert title_and_question(new_notebook(cells=cells)) == ("A title, $c$", "Does it help?")
    plain = new_notebook(cells=[new_markdown_cell("# Only a title\n\nProse.")])
    assert title_and_question(plain) == ("Only a title", "Only a title")
    assert title_and_question(new_notebook()) == ("", "")


@pytest.mark.parametrize(
    ("loads", "left"),
    [
        ("<img src='data:,' srcset='https://a.b/c 2x'/>", '<img src="data:,"/>'),
        ("<svg><image href='https://a.b/c'></image></svg>", "<svg><image/></svg>"),
        ("<svg><use xlink:href='//a.b/c#d'></use></svg>", "<svg><use></use></svg>"),
        ("<p style='color: red; background: url(\"https://a.b/c\")'>x</p>", '"color: red; back'),
        ("<video poster='https://a.b/c' src='data:,'></video>", '<video src="data:,"></video>'),
        ("<table background='https://a.b/c'></table>", "<table></table>"),
        ("<img alt='x' src='https://a.b/c'/>", '<a href="https://a.b/c">x</a>'),
        ("<style>p {background: URL( 'https://a.b/c')}</style>", "<style>p {background: }</style>"),
    ],
)
def test_nothing_of_another_machine_is_left_to_load(loads: str, left: str) -> None:
    body = finished(loads)
    assert left in body
    assert "a.b" not in body.replace('<a href="https://a.b/c">', "")


@pytest.mark.parametrize(
    "own",
    [
        '<svg><use xlink:href="#d"></use><path clip-path="url(#c)"></path></svg>',
        '<a href="https://a.b/c" style="color: red">x</a>',
        '<img src="data:image/png;base64,eA=="/>',
    ],
)
def test_what_loads_nothing_stays(own: str) -> None:
    assert finished(own) == own


def test_code_is_not_cleaned_twice_and_what_only_looks_like_it_is_cleaned() -> None:
    code = new_code_cell("x = '<b onclick=\"f()\">' & 1  # \u00e9")
    raw = new_raw_cell('<div class=" highlight"><pre><b onclick="f()">x</b></pre></div>')
    body = notebook_body(new_notebook(cells=[code, raw]))
    assert 'class="k' in body or 'class="n' in body
    assert "&lt;b onclick=" in body
    assert "<b onclick" not in body
