"""What an executed notebook gave, and outputs that look like it."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from cliplab.lab.batch.client import merged
from cliplab.lab.batch.payload import payload_of
from cliplab.lab.batch.spec import RunError
from cliplab.lab.runs.record import MIME

SCRAP = "application/scrapbook.scrap.json+json"
TEXT = "application/scrapbook.scrap.text+json"
OLD = "application/papermill.record+json"


def shown(*bundles):
    outputs = [new_output("display_data", bundle) for bundle in bundles]
    return new_notebook(cells=[new_code_cell(outputs=outputs)])


def test_values_come_from_record_scrapbook_and_papermill_of_old_the_last_of_a_name_counts():
    payload = payload_of(
        shown(
            {MIME: {"values": {"a": 1, "b": 1}, "provenance": {"versions": {}}}},
            {SCRAP: {"name": "b", "data": [2, {"c": None}], "encoder": "json", "version": 1}},
            {OLD: {"d": "x"}, "text/plain": "x"},
            {TEXT: {"name": "e", "data": "y", "encoder": "text", "version": 1}},
            {MIME: {"values": {"a": 3}, "rows": [{"arm": "m", "seed": 0}]}},
        )
    )
    assert payload["values"] == {"a": 3, "b": [2, {"c": None}], "d": "x", "e": "y"}
    assert payload["rows"] == [{"arm": "m", "seed": 0}]
    assert payload["provenance"] == {"versions": {}}


def test_a_notebook_that_records_nothing_gives_nothing():
    nothing = {"rows": [], "curves": [], "choices": {}, "provenance": {}, "values": {}}
    assert payload_of(shown({"text/plain": "x"})) == nothing


@pytest.mark.parametrize(
    "bundle",
    [
        {MIME: "text"},
        {MIME: [1]},
        {MIME: {"rows": {}}},
        {MIME: {"rows": [1]}},
        {MIME: {"rows": [{"loss": 1.0}]}},
        {MIME: {"curves": [{"arm": 1, "seed": 0}]}},
        {MIME: {"values": None}},
        {MIME: {"provenance": []}},
        {MIME: {"surprise": 1}},
        {SCRAP: "text"},
        {SCRAP: {"data": 1}},
        {SCRAP: {"name": 3, "data": 1}},
        {OLD: [1]},
    ],
)
def test_outputs_of_another_shape_are_refused_in_one_line_and_for_good(bundle):
    with pytest.raises(RunError, match=r"^an output of type application/") as caught:
        payload_of(shown(bundle))
    assert "\n" not in str(caught.value)
    assert not caught.value.retry


def test_long_lines_take_no_time_of_their_own():
    flood = new_output("stream", name="stdout", text="x" * 10_000_000 + "\ry")
    assert [o["text"] for o in merged([flood])] == ["y"]  # a quadratic search would take days


def test_streams_are_one_output_each_between_others_and_show_what_stays():
    def stream(text, name="stdout"):
        return new_output("stream", name=name, text=text)

    picture = new_output("display_data", {"image/png": "…"})
    found = merged(
        [
            *[stream(f"{i}\n") for i in range(3)],
            stream("\r 10%", "stderr"),
            stream("3\n"),
            stream("\r 20%\r 90%\n", "stderr"),
            picture,
            stream("a\r\nb\r"),
        ]
    )
    assert [(o.get("name"), o.get("text")) for o in found] == [
        ("stdout", "0\n1\n2\n3\n"),
        ("stderr", " 90%\n"),
        (None, None),
        ("stdout", "a\r\nb\r"),
    ]
