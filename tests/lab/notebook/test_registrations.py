"""A registration: its hash, the seeds that follow from it, and who reads it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.notebook.collection import copy_collection, find_records
from cliplab.lab.notebook.presets import preset_params, read_presets
from cliplab.lab.notebook.registrations import (
    find_registration,
    read_registration,
    registration_path,
    sealed,
)

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
)
contents = st.dictionaries(
    st.text(max_size=4).map(lambda name: f"_{name}"),
    st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)
SEEDS = ("first_seed", "replica_seed")
finite = contents.filter(lambda content: "Infinity" not in json.dumps(content))


@given(finite)
def test_the_seeds_follow_from_the_content_alone(content):
    one = sealed(content)
    assert sealed(one) == one
    assert sealed(dict(reversed(content.items()))) == one
    assert sealed(json.loads(json.dumps(one))) == one
    assert {name: one[name] for name in content} == content
    assert all(10**6 <= one[name] < 10**9 for name in SEEDS)
    assert one["first_seed"] != one["replica_seed"]


@given(finite, finite)
def test_any_change_changes_the_hash_and_both_seeds(content, other):
    if json.dumps(content, sort_keys=True) != json.dumps(other, sort_keys=True):
        one, two = sealed(content), sealed(other)
        assert one["hash"] != two["hash"]
        assert all(one[name] != two[name] for name in SEEDS)


@pytest.fixture
def notebook(tmp_path, make_notebook):
    path = make_notebook(tmp_path / "notebooks" / "01_a.ipynb", parameters="n: int = 1")
    presets = "[01_a.verdict]\nn = 9\nfirst_seed = 3000\n[01_a.fingerprint]\nn = 2\n"
    path.with_name("presets.toml").write_text(presets)
    return path


CONTENT = {"notebook": "01_a", "params": {"n": 9}, "margin": 0.1}


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return content


def test_verdict_and_replica_have_the_registered_seeds_and_no_other_preset(notebook):
    assert preset_params(notebook, "verdict")["first_seed"] == 3000
    with pytest.raises(ValueError, match="01_a cannot be replicated, as it is not registered"):
        preset_params(notebook, "replica")
    content = write(registration_path(notebook), sealed(CONTENT))
    assert read_registration(notebook) == content
    presets = read_presets(notebook)
    assert presets["verdict"] == {"n": 9, "first_seed": content["first_seed"]}
    assert presets["replica"] == {"n": 9, "first_seed": content["replica_seed"]}
    assert presets["fingerprint"] == {"n": 2, "first_seed": content["first_seed"]}
    assert presets["quick"] == {}


def test_a_notebook_without_a_verdict_preset_has_no_replica(notebook):
    notebook.with_name("presets.toml").write_text("")
    write(registration_path(notebook), sealed(CONTENT))
    assert list(read_presets(notebook)) == ["quick"]


@pytest.mark.parametrize(
    "tampered",
    [
        sealed(CONTENT) | {"margin": 0.2},
        sealed(CONTENT) | {"first_seed": 1234567},
        sealed(CONTENT) | {"more": 1},
        {k: v for k, v in sealed(CONTENT).items() if k != "margin"},
        CONTENT,
        [],
        None,
        CONTENT | {"margin": float("nan")},
    ],
)
def test_a_registration_that_was_changed_is_refused_and_the_file_is_named(notebook, tampered):
    write(registration_path(notebook), tampered)
    for read in (read_registration, read_presets):
        with pytest.raises(ValueError, match=r"01_a\.registration\.json: "):
            read(notebook)


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, None])
def test_a_registration_that_cannot_be_read_is_refused_and_the_file_is_named(notebook, text):
    path = registration_path(notebook)
    path.parent.mkdir()
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"01_a\.registration\.json: "):
        read_registration(notebook)


def test_it_lies_in_the_same_place_however_the_notebook_is_named(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    assert registration_path(type(notebook)("01_a.ipynb")) == registration_path(notebook)


@pytest.mark.parametrize(("folder", "records"), [("notebooks", "records"), ("nb", "nb/records")])
def test_a_running_notebook_finds_the_records_of_its_folder(folder, records, tmp_path, monkeypatch):
    (tmp_path / folder).mkdir()
    path = registration_path(tmp_path / folder / "01_a.ipynb")
    write(path, sealed(CONTENT))
    monkeypatch.chdir(tmp_path / folder)
    assert find_records() == path.parent == tmp_path / records
    assert find_records(str(path.parent)) == path.parent
    with pytest.raises(ValueError, match="no registrations in elsewhere"):
        find_records("elsewhere")


def test_a_copied_collection_brings_its_registrations_which_its_own_records_overrule(
    notebook, monkeypatch, tmp_path
):
    notebook.with_name("claims.toml").write_text("")
    content = write(registration_path(notebook), sealed(CONTENT))
    where = "cliplab.lab.notebook.collection.collection"
    monkeypatch.setattr(where, lambda: notebook.parent)
    copies = [tmp_path / "once" / "nb", tmp_path / "twice" / "nb"]
    for copy in copies:  # the second is a copy of the copy, as a wheel's is
        made = copy_collection(copy)
        assert copy / "01_a.registration.json" in made
        assert preset_params(copy / "01_a.ipynb", "verdict")["first_seed"] == content["first_seed"]
        assert copy_collection(copy) == []
        monkeypatch.setattr(where, lambda copy=copy: copy)
    own = copies[0] / "01_a.ipynb"
    again = write(registration_path(own), sealed(CONTENT | {"margin": 0.3}))
    assert find_registration(own) == registration_path(own)
    assert preset_params(own, "verdict")["first_seed"] == again["first_seed"]
