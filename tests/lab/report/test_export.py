"""One table of parameters beside recorded values, and what its files give back."""

import csv
import json
import math

import pytest
from needs import need
from recording import put

from cliplab.lab.report.export import as_csv, as_json, table_of, write_export
from cliplab.lab.report.results import read_records

NESTED = {"a": [1, {"b": None}], "c": 'x, "y"\nz'}
ROWS = [
    {"arm": "a", "seed": 0, "lr": 0.1 + 0.2, "ok": True, "name": 'ü, "q"\r\n'},
    {"arm": "b", "seed": 0, "loss": 5e-324, "ok": False},
]


@pytest.fixture
def results(tmp_path):
    """A notebook of rows, one of values below a folder, and one that recorded nothing."""
    results = tmp_path / "results"
    put(results, "01_rows", {"lr": 0.3, "sizes": [1, 2], "n_seeds": 1}, rows=ROWS)
    put(results, "mine/b", {"lr": None, "deep": NESTED}, values={"lr": 1, "best": -0.0})
    put(results, "c", {}, preset="smoke")
    return results


def table(results, *words, preset=None):
    records, damaged = read_records(results, words, preset, notebooks=results.parent / "nb")
    assert damaged == []
    return table_of(records)


def test_a_row_for_each_recorded_row_and_one_for_a_run_without(results):
    found = table(results)
    assert found.columns == [
        *("notebook", "preset", "key"),
        *("parameter.lr", "sizes", "n_seeds", "deep"),
        *("arm", "seed", "lr", "ok", "name", "loss"),
        *("value.lr", "best"),
    ]
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert [row["notebook"] for row in rows] == ["01_rows", "01_rows", "c", "mine/b"]
    first, second, nothing, values = rows
    assert (first["parameter.lr"], first["lr"], second["lr"]) == (0.3, 0.1 + 0.2, None)
    assert first["key"] == second["key"] == next(results.glob("01_rows/quick/*")).name
    assert {name for name, value in nothing.items() if value is not None} == {
        *("notebook", "preset", "key")
    }
    assert (values["value.lr"], values["deep"], values["arm"]) == (1, NESTED, None)


def test_a_name_that_is_taken_is_called_by_its_kind(results):
    put(results, "d", {"key": 1, "parameter.key": 2, "arm": 3}, values={"preset": 4})
    columns = table(results, "d").columns
    assert columns[3:] == ["parameter.key", "parameter.parameter.key", "arm", "value.preset"]
    assert "parameter.arm" in table(results).columns


def test_csv_gives_back_every_number_and_text(results):
    found = table(results)
    content = as_csv(found).decode()
    header, *lines = csv.reader(content.splitlines(keepends=True))
    assert header == found.columns
    for row, line in zip(found.rows, lines, strict=True):
        for value, cell in zip(row, line, strict=True):
            if value is None:
                assert cell == ""
            elif isinstance(value, str):
                assert cell == value
            elif isinstance(value, float):
                assert float(cell).hex() == value.hex()
            else:
                assert json.loads(cell) == value


def test_pandas_reads_the_csv(results, tmp_path):
    pandas = need("pandas", "lab")
    (tmp_path / "table.csv").write_bytes(as_csv(table(results)))
    frame = pandas.read_csv(tmp_path / "table.csv")
    assert frame["loss"][1] == 5e-324
    assert list(frame["ok"][:2]) == [True, False]


def test_json_is_json_also_of_what_it_does_not_have(results):
    put(results, "d", {"x": math.inf}, values={"y": [math.nan, 1.5]})
    row = json.loads(as_json(table(results, "d")), parse_constant=pytest.fail)[0]
    assert (row["x"], row["y"]) == (None, [None, 1.5])


def test_parquet_restores_types_and_numbers(results, tmp_path):
    need("pyarrow", "parquet")
    from pyarrow import parquet

    put(results, "d", {"lr": 2**70, "mixed": "a"}, values={"big": 2**70, "nan": math.nan})
    put(results, "e", {"mixed": 1, "n_seeds": 2.5})
    path = tmp_path / "out" / "table.parquet"
    found = table(results)
    write_export(found, path)
    write_export(found, path)  # ours
    read = parquet.read_table(path)
    assert read.column_names == found.columns
    rows = read.to_pylist()
    ours = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    for name in ("loss", "lr", "ok", "name", "sizes", "seed", "n_seeds", "best", "arm"):
        assert [row[name] for row in rows] == [row[name] for row in ours]
    types = {name: str(read.schema.field(name).type) for name in read.column_names}
    assert (types["ok"], types["lr"], types["sizes"]) == ("bool", "double", "list<element: int64>")
    assert [json.loads(row["deep"]) for row in rows if row["deep"]] == [NESTED]
    assert {row["mixed"] for row in rows} == {None, "a", "1"}
    assert str(2**70) in [row["big"] for row in rows]


def test_a_notebook_is_named_by_prefix_name_or_path(results, tmp_path):
    def names(*words, preset=None):
        return sorted({row[0] for row in table(results, *words, preset=preset).rows})

    assert names("01") == ["01_rows"]
    assert names("mine/b") == names("b") == ["mine/b"]
    assert names(str(tmp_path / "nb" / "c.ipynb"), "b") == ["c", "mine/b"]
    assert names(preset="smoke") == ["c"]
    for words, why in [(("x",), "'x' matches no notebook"), (("",), "matches no notebook")]:
        with pytest.raises(ValueError, match=why):
            table(results, *words)
    with pytest.raises(ValueError, match="no records of preset 'full'"):
        table(results, preset="full")
    with pytest.raises(ValueError, match="is not a folder"):
        table(results / "nowhere")


def test_one_bad_record_is_told_and_the_rest_is_read(results):
    bad = next(results.glob("01_rows/quick/*/record.json"))
    bad.write_text("{")
    records, damaged = read_records(results, notebooks=results)
    assert [record.notebook for record in records] == ["c", "mine/b"]
    assert str(bad) in str(damaged[0])


def test_a_record_that_lies_there_twice_is_one_and_other_files_are_nobodys(results):
    (old,) = results.glob("01_rows/quick/*")
    (results / "01_rows" / "copy").mkdir()
    for place in ("01_rows/copy", ".trash/quick"):
        (results / place).mkdir(parents=True, exist_ok=True)
        (results / place / old.name).mkdir()
        (results / place / old.name / "record.json").write_bytes((old / "record.json").read_bytes())
    (results / "01_rows" / "quick" / "record.json").write_text("mine")
    assert len(table(results).rows) == 4


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_file_that_is_no_export_is_kept(suffix, results, tmp_path):
    path = tmp_path / f"mine{suffix}"
    path.write_text("notebook,mine\n")
    found = table(results)
    with pytest.raises(ValueError, match="--force overwrites"):
        write_export(found, path)
    assert path.read_text() == "notebook,mine\n"
    write_export(found, path, force=True)
    write_export(table(results, "c"), path)
    assert b"01_rows" not in path.read_bytes()
    (folder := tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(ValueError, match="a folder"):
        write_export(found, folder, force=True)


def test_a_folder_of_names_means_all_below_it(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(results, "mine/deep/d", {})
    put(results, "miner", {})
    inside = ["mine/b", "mine/deep/d"]
    for word in ("mine", "mine/", "./mine", str(tmp_path / "mine")):
        assert [row[0] for row in table(results, word).rows] == inside, word
    assert [row[0] for row in table(results, "mine/deep", "c").rows] == ["c", "mine/deep/d"]
    put(results, "mine", {})  # a notebook of that very name
    assert [row[0] for row in table(results, "mine").rows] == ["mine"]
    for word in ("mi", "mine/none", ".", ""):
        with pytest.raises(ValueError, match=r"matches (no|4) notebook"):
            table(results, word)
