"""Which notebooks a name means, and the presets beside each."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.notebook.presets import (
    find_notebooks,
    named_notebooks,
    notebook_name,
    preset_params,
    read_presets,
)


@pytest.fixture
def tree(tmp_path, make_notebook, monkeypatch):
    """Notebooks of the collection, of others, and what is none of them."""
    for name in (
        *("notebooks/01_a", "notebooks/02_b", "notebooks/sub/03_c", "A/30_data", "A/deep/31"),
        *("notebooks/.~01_a", "notebooks/.ipynb_checkpoints/01_a-checkpoint", "A/.hidden/x"),
        *("A/results/01_a/quick/ab/notebook", "A/reports/x", "A/copied/x", "A/out/k/notebook"),
    ):
        make_notebook(tmp_path / f"{name}.ipynb")
    (tmp_path / "A" / "results" / "last_run.json").write_text("[]")
    (tmp_path / "A" / "reports" / ".cliplab").write_text("reports\n")
    (tmp_path / "A" / "copied" / ".cliplab").write_text("notebooks\n")
    (tmp_path / "A" / "out" / "k" / ".lock").touch()
    (tmp_path / "A" / "folder.ipynb").mkdir()
    (tmp_path / "B").symlink_to("A")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(tree, *names):
    paths = find_notebooks(names, tree / "notebooks")
    return [path.relative_to(tree).with_suffix("").as_posix() for path in paths]


def test_all_of_a_folder_are_those_below_it_that_are_a_users(tree):
    assert found(tree) == ["notebooks/01_a", "notebooks/02_b", "notebooks/sub/03_c"]
    assert found(tree, "A") == ["A/30_data", "A/copied/x", "A/deep/31"]
    assert found(tree, "A/deep", "01", "./A/deep/") == ["A/deep/31", "notebooks/01_a"]
    assert found(tree, ".")[:3] == ["A/30_data", "A/copied/x", "A/deep/31"]


def test_a_notebook_is_meant_by_any_of_its_names(tree):
    for name in ("03", "03_c", "sub/03_c", "sub/0", "notebooks/sub/03_c.ipynb"):
        assert found(tree, name) == ["notebooks/sub/03_c"]
    for name in ("A/30_data", "A/30_data.ipynb", "A/../A/30_data.ipynb"):
        assert found(tree, name, "A/30_data.ipynb") == ["A/30_data"]
    assert found(tree, "B/30_data.ipynb", "A/30_data.ipynb") == ["B/30_data", "A/30_data"]


def test_a_notebook_is_meant_by_its_number_and_by_a_word_of_its_name(make_notebook, tmp_path):
    for name in ("01_what_is_a_rate", "03_Dynamic_rates", "10_games", "sub/13_rl_board_games"):
        make_notebook(tmp_path / "notebooks" / f"{name}.ipynb")

    def meant(name):
        return found(tmp_path, name)[0].removeprefix("notebooks/")

    for name in ("1", "01", "001", "what", "rate", "is-a"):
        assert meant(name) == "01_what_is_a_rate"
    for name in ("3", "dynamic", "DYNAMIC", "03_Dyn", "rates"):
        assert meant(name) == "03_Dynamic_rates"
    for name in ("13", "board", "board_games", "Board games", "sub/13_rl"):
        assert meant(name) == "sub/13_rl_board_games"
    for name, complaint in {
        "games": "'games' matches 2 notebooks: 10_games, sub/13_rl_board_games",
        "dinamic": "'dinamic' matches no notebook: the nearest is 03_Dynamic_rates",
        "10_game5": "'10_game5' matches no notebook: the nearest is 10_games",
        "dyn": "'dyn' matches no notebook",  # a word, not a part of one
        "7": "'7' matches no notebook: 01_what_is_a_rate, 03_Dynamic_rates, 10_games, sub/13_rl_",
        "_": "'_' matches no notebook",
    }.items():
        with pytest.raises(ValueError, match=re.escape(complaint)):
            meant(name)


def test_what_lies_there_by_that_name_comes_before_a_word(tree, make_notebook):
    make_notebook(tree / "notebooks" / "04_data_A.ipynb")
    make_notebook(tree / "data.ipynb")
    assert found(tree, "A")[0] == "A/30_data"
    assert found(tree, "data") == ["data"]
    (tree / "data.ipynb").unlink()
    assert found(tree, "data") == ["notebooks/04_data_A"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("s3://bucket/x.ipynb", "s3://bucket/x.ipynb: only files on this machine are run"),
        ("gs://x", "only files on this machine"),
        ("https://example.org/x.ipynb", "only files on this machine"),
        ("-", "-: only files on this machine"),
        ("", "'' matches no notebook"),
        ("0", "'0' matches 3 notebooks: 01_a, 02_b, sub/03_c"),
        ("none", "'none' matches no notebook: 01_a, 02_b, sub/03_c"),
        ("A/none.ipynb", "no notebook A/none.ipynb"),
        ("A/reports", "no notebooks in A/reports"),
        ("A/folder.ipynb", "no notebooks in A/folder.ipynb"),
    ],
)
def test_what_is_no_notebook_here_is_refused(tree, name, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        find_notebooks([name], tree / "notebooks")


def test_what_was_named_is_told_from_what_its_folder_was(tree):
    named = named_notebooks(["A", "A/30_data.ipynb", "01"], tree / "notebooks")
    assert [path.stem for path, own in named.items() if own] == ["30_data", "01_a"]
    assert not any(named_notebooks([], tree / "notebooks").values())


def test_presets_lie_beside_a_notebook_anywhere(tree):
    path = tree / "A" / "30_data.ipynb"
    path.with_name("presets.toml").write_text("[30_data.mine]\nn_seeds = 1\n")
    assert preset_params(path, "mine") == {"first_seed": 0, "n_seeds": 1}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("01_a = 3", "01_a = 3: expected a table [NOTEBOOK.PRESET]"),
        ("[01_a]\nsmoke = 3", "01_a.smoke = 3: expected a table [01_a.smoke]"),
        ("[01_a]\nquick = []", "01_a.quick = []: expected a table [01_a.quick]"),
        ("[01_a]\nverdict = 1\nfingerprint = {}", "01_a.verdict = 1"),
        ("[[01_a]]\n", "expected a table [NOTEBOOK.PRESET]"),
        ("[", "presets.toml: "),
        ("x = " + "[" * 10_000, "presets.toml: "),
        (b"\xff", "presets.toml: "),
        (None, "presets.toml: Is a directory"),
    ],
)
def test_presets_of_another_shape_are_refused_and_the_file_is_named(text, complaint, tree):
    path = tree / "notebooks" / "presets.toml"
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"presets\.toml: ") as caught:
        read_presets(tree / "notebooks" / "01_a.ipynb")
    assert complaint in str(caught.value)


def test_an_ill_table_is_no_matter_of_other_notebooks(tree):
    (tree / "notebooks" / "presets.toml").write_text("01_a = 3")
    assert read_presets(tree / "notebooks" / "02_b.ipynb") == {"quick": {}}


TOML = st.recursive(
    st.booleans() | st.integers(-9, 9).map(str) | st.just('"x"'),
    lambda inner: st.lists(inner, max_size=2).map(lambda v: f"[{', '.join(map(str, v))}]"),
    max_leaves=4,
).map(lambda value: str(value).replace("True", "true").replace("False", "false"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "a.quick", "a.verdict", "a.fingerprint", "a.quick.n", "b"]), TOML
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_no_presets_are_more_than_refused(tmp_path_factory, lines, header):
    folder = tmp_path_factory.getbasetemp()
    text = "\n".join(f"{name} = {value}" for name, value in lines)
    (folder / "presets.toml").write_text("[a]\n" * header + text)
    presets, refused = {"quick": {}}, "presets.toml: "
    try:
        presets = read_presets(folder / "a.ipynb")
    except ValueError as error:
        refused = str(error)
    (folder / "presets.toml").unlink()
    assert "presets.toml: " in refused
    assert all(isinstance(values, dict) for values in presets.values())


def test_no_notebook_is_called_like_one_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for path in (Path("01_a.ipynb"), Path("notebooks/01_a.ipynb")):
        path.touch()
    assert notebook_name(Path("notebooks/01_a.ipynb"), Path("notebooks")) == "01_a"
    assert notebook_name(Path("01_a.ipynb"), Path("notebooks")).startswith("outside/01_a-")
    assert notebook_name(Path("02_b.ipynb"), Path("notebooks")) == "02_b"
