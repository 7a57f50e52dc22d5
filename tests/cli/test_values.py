"""Values of parameters on the command line, as papermill takes them."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.cli.arguments import parse_arguments
from cliplab.lab.notebook.parameters import Signature
from cliplab.lab.notebook.values import Parameter, Text, same

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def params_of(*words: str) -> dict:
    """What a notebook gets that declares no types."""
    given = parse_arguments(["run", *words]).params
    return Signature({name: Parameter(name) for name in given}).typed(given)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_assignments_are_read_in_both_spellings():
    words = "-p lr 0.1 -p=a=1 -p x=y=z --grid lr2 1,5 --grid sizes=[1,2],[3] -p b -1 --seeds 3-5"
    options = parse_arguments(["run", *words.split(), "01", "02"])
    assert options.notebook == ["01", "02"]
    assert options.params == {"lr": "0.1", "a": "1", "x": "y=z", "b": "-1"}
    assert options.grid == {"lr2": ["1", "5"], "sizes": ["[1,2]", "[3]"]}
    assert options.seeds == range(3, 6)


@pytest.mark.parametrize(
    ("words", "params"),
    [
        (["-p", "lr", "-0.5"], {"lr": -0.5}),
        (["-p", "a=--b", "-p", "n", "3"], {"a": "--b", "n": 3}),
        (["-r", "lr", "0.1", "-r", "x=None"], {"lr": "0.1", "x": "None"}),
        (["-y", "{lr: 1e-3, n: 2e3, day: 2020-01-02, at: 12:30}"], {}),
        (["-y", "a: 1_000\nb: 0x10\nc: .5\nd: ~\ne: 1.\nf: 08\ng: yes"], {}),
        (["-b", base64.b64encode(b"x: [1, {a: null}]").decode()], {"x": [1, {"a": None}]}),
        (["-y", "a: 1", "-y", "b: 2", "-p", "c", "3"], {"a": 1, "b": 2, "c": 3}),
    ],
)
def test_papermills_options_give_values(words, params):
    yaml12 = {"lr": 0.001, "n": 2000.0, "day": "2020-01-02", "at": "12:30"}
    others = {"a": 1000, "b": 16, "c": 0.5, "d": None, "e": 1.0, "f": "08", "g": True}
    expected = params or (yaml12 if "lr" in words[1] else others)
    assert same(params_of(*words), expected)


@given(JSON)
def test_every_json_value_arrives_unchanged_however_it_is_given(tmp_path_factory, value):
    folder = tmp_path_factory.getbasetemp()
    text = json.dumps({"x": value})
    (folder / "x.json").write_text(text)
    encoded = base64.b64encode(text.encode()).decode()
    for words in (["-y", text], ["-b", encoded], ["-f", str(folder / "x.json")]):
        assert same(params_of(*words), {"x": value})


def test_files_of_every_kind_give_values(folder):
    (folder / "a.yaml").write_text("a: 1e-3\n")
    (folder / "b.json").write_text('{"b": [null]}')
    (folder / "c.toml").write_text("c = 2020-01-02\n")
    (folder / "d.YML").write_text("d: {e: 1}\n")
    words = [word for name in ("a.yaml", "b.json", "c.toml", "d.YML") for word in ("-f", name)]
    assert params_of(*words) == {"a": 0.001, "b": [None], "c": "2020-01-02", "d": {"e": 1}}


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["-p", "n=1", "-p", "n", "1"], "-p and by -p"),
        (["-p", "n=1", "-r", "n=1"], "-p and by -r"),
        (["-y", "n: 1", "-f", "n.json"], "-f n.json and by -y"),
        (["-f", "n.json", "-f", "n.json"], "-f n.json and by -f n.json"),
        (["-b", base64.b64encode(b"n: 1").decode(), "--grid", "n=1,2"], "-b and by --grid"),
        (["-f", "n.json", "--grid", "n.toml"], "-f n.json and by --grid n.toml"),
    ],
)
def test_a_name_given_twice_is_refused_and_both_options_named(words, flags, folder, capsys):
    (folder / "n.json").write_text('{"n": 1}')
    (folder / "n.toml").write_text("n = [1, 2]")
    assert f"parameter n is given twice, by {flags}\n" in refusal(words, capsys)


def test_seeds_are_not_given_twice_either(folder, capsys):
    (folder / "seeds.yaml").write_text("n_seeds: 3\n")
    for words in (["-f", "seeds.yaml"], ["-y", "n_seeds: 3"], ["--grid", "n_seeds=1,2"]):
        found = refusal([*words, "--seeds", "0-3"], capsys)
        assert f"n_seeds is given twice, by --seeds and by {words[0]}" in found


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-y", "[1]"], "expected parameters as NAME: VALUE"),
        (["-y", "{1: 2}"], "expected parameters as NAME: VALUE"),
        (["-y", "a: ["], "-y a: ["),
        (["-y", "{a: 1, a: 2}"], "'a' is given twice"),
        (["-y", "a: !!python/object:x.y {}"], "could not determine a constructor"),
        (["-b", "%"], "-b %: "),
        (["-b", base64.b64encode(b"\xff").decode()], "-b "),
        (["-f", "twice.json"], "'a' is given twice"),
        (["-f", "bytes.yaml"], "cannot read bytes.yaml"),
        (["-f", "deep.json"], "cannot read deep.json"),
        (["-f", "."], "expected a .yaml, .yml, .json or .toml file"),
        (["-p", "a b=1"], "expected NAME=VALUE or NAME VALUE"),
        (["-p", "lr", "--jobs", "2"], "expected NAME=VALUE or NAME VALUE"),
        (["--grid", "a='x"], '--grid a: "\'x": a quote has no other to close it'),
        (["--filter", "a=[1"], "--filter a: '[1': expected values separated by commas"),
    ],
)
def test_ill_values_are_one_line(words, complaint, folder, capsys):
    (folder / "twice.json").write_text('{"a": 1, "a": 2}')
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "deep.json").write_text("[" * 100_000)
    assert complaint in refusal(words, capsys)


def refusal(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        parse_arguments(["run", *words])
    err = capsys.readouterr().err
    assert (stop.value.code, err.count("\n")) == (2, 1)
    assert err.startswith("cliplab: error: ")
    return err


def test_quoted_commas_stay_whole():
    options = parse_arguments(["run", "--grid", "name='a,b',c", "-p", "ss=['a, b','c']"])
    assert options.grid == {"name": ["a,b", "c"]}
    assert options.params == {"ss": Text("['a, b','c']")}
    assert params_of("-p", "ss=['a, b','c']") == {"ss": ["a, b", "c"]}
