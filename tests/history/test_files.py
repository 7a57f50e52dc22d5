"""Files: a history comes back as it was, and a file that holds something else is a ValueError."""

import gzip
import io
import math
import os
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from needs import need

from cliplab.cli.main import main
from cliplab.diagnosis import diagnose
from cliplab.history import ClipReport, History

SPECIAL = [0.0, math.nan, math.inf, 0.1, 1e-45, 3e38, 1 / 3]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("histories")


@st.composite
def histories(draw):
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    parts, steps = draw(st.integers(1, 3)), draw(st.integers(0, 5))
    double = dtype is torch.float64
    sizes = st.sampled_from([*SPECIAL, 1e60] if double else SPECIAL) | st.floats(0, 1e30)
    scalar = parts == 1 and draw(st.booleans())
    labels = [] if scalar else draw(st.lists(TEXT, min_size=parts, max_size=parts) | st.just([]))
    history = History(labels, scalar=scalar)
    history.first_step = draw(st.sampled_from([0, 7, 20_000_001, 1 << 53]))
    for _ in range(steps):
        numbers = draw(st.lists(sizes, min_size=4 * parts, max_size=4 * parts))
        flags = draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=2 * parts, max_size=2 * parts))
        row = torch.tensor(numbers + flags, dtype=dtype).reshape(6, parts)
        history.append(row, draw(st.none() | st.floats(0) | st.just(0.1)))
        if draw(st.booleans()):
            history.put_update(draw(st.floats(0) | st.sampled_from(SPECIAL)))
    return history


def same(one, other, *, text=False):
    """Bit for bit; of no step, and of numbers that fp32 holds, a table does not say the dtype."""
    assert (len(one), one.scalar) == (len(other), other.scalar)
    if not text or len(one):
        assert (one.first_step, one.part_names) == (other.first_step, other.part_names)
    for name in (*ClipReport.fields, "lr", "update_norm"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert text or ours.dtype is theirs.dtype
        torch.testing.assert_close(
            ours.double(), theirs.double(), rtol=0, atol=0, equal_nan=True, msg=name
        )


def some_history(parts=2, steps=4):
    history = History([f"layer {i}" for i in range(parts)])
    for step in range(steps):
        sizes, nothing = torch.arange(1.0, parts + 1) + step / 3, torch.zeros(parts)
        history.append(torch.stack([sizes, sizes, sizes + 1, nothing + 1, nothing, nothing]), 0.1)
    return history


def loaded(path, data):
    """The history of these bytes, one that can be read, or None where they are refused."""
    path.write_bytes(data)
    try:
        history = History.load(path)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert len(refusal) < 300
        assert "weights_only" not in refusal
        return None
    history.summary(), diagnose(history), history.replay(1.0)
    return history


# --- what was written is read -----------------------------------------------------------------


@given(histories())
def test_a_saved_history_is_the_history(folder, history):
    history.save(folder / "a.pt")
    same(history, History.load(folder / "a.pt"))


@given(histories())
def test_a_table_holds_every_number(folder, history):
    history.to_csv(folder / "a.csv")
    same(history, History.load(folder / "a.csv"), text=True)


def test_a_table_holds_any_label_and_doubles_that_look_like_singles(folder):
    row = torch.tensor([0.5, 0.5, 0.5, 0.1, 0, 0], dtype=torch.float64)[:, None]
    for history in (History(["\r", "a\nb"]), History(scalar=True)):
        history.append(row.expand(6, len(history.labels) or 1), 0.1)
        history.to_csv(folder / "odd.csv")
        same(history, History.load(folder / "odd.csv"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_table_keeps_the_precision(folder, dtype):
    history = History(scalar=True)
    rows = torch.rand(20, 6, 1, dtype=dtype, generator=torch.Generator().manual_seed(0))
    for row in rows:
        history.append(torch.cat([row[:4], torch.zeros(2, 1, dtype=dtype)]), 0.1)
    history.to_csv(folder / "precise.csv")
    again = History.load(folder / "precise.csv")
    assert again.rows.dtype is dtype
    same(history, again)
    need("pandas", "lab")
    history.to_frame().to_csv(folder / "frame.csv", index=False)
    same(history, History.load(folder / "frame.csv"))


def test_a_history_without_parts_is_saved(folder):
    history = History()
    history.append(torch.zeros(6, 0), 0.1)
    history.save(folder / "none.pt")
    same(history, History.load(folder / "none.pt"))
    assert history.summary()["steps"] == len(history.replay(1.0)) == 1


def test_a_saved_file_is_no_larger_than_its_steps(folder):
    some_history(steps=1).save(folder / "small.pt")
    assert (folder / "small.pt").stat().st_size < 4000


@pytest.mark.parametrize("checksums", [True, False])
def test_saving_needs_no_option_of_torch_and_changes_none(folder, checksums):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(checksums)
    try:
        some_history().save(folder / "a.pt")
        assert torch.serialization.get_crc32_options() is checksums
    finally:
        torch.serialization.set_crc32_options(before)
    same(some_history(), History.load(folder / "a.pt"))


def test_a_file_of_the_first_version_is_read(folder):
    """Its learning rates were fp32."""
    history = some_history()
    history.save(folder / "old.pt")
    state = torch.load(folder / "old.pt", weights_only=True)
    state["lr"] = state["lr"].float()
    torch.save(state, folder / "old.pt")
    assert History.load(folder / "old.pt").lr.tolist() == history.lr.float().tolist()


# --- damage -----------------------------------------------------------------------------------


def damage(data, kind, at, byte):
    at %= len(data)
    if kind == "truncated":
        return data[:at]
    if kind == "a byte lost":
        return data[:at] + data[at + 1 :]
    if kind == "a byte added":
        return data[:at] + bytes([byte]) + data[at:]
    return data[:at] + bytes([data[at] ^ (byte or 1)]) + data[at + 1 :]


DAMAGE = {
    "kind": st.sampled_from(["flipped", "truncated", "a byte lost", "a byte added"]),
    "at": st.integers(0, 1 << 20),
    "byte": st.integers(0, 255),
}


@given(**DAMAGE)
def test_a_damaged_file_is_the_history_or_refused(folder, kind, at, byte):
    history = some_history()
    history.save(folder / "damaged.pt")
    data = (folder / "damaged.pt").read_bytes()
    again = loaded(folder / "damaged.pt", damage(data, kind, at, byte))
    if again is not None:
        same(history, again)


def test_no_changed_byte_is_read_as_another_number(folder):
    history = some_history()
    history.save(folder / "flipped.pt")
    data = (folder / "flipped.pt").read_bytes()
    equal = 0
    for at in range(0, len(data), 3):
        (folder / "flipped.pt").write_bytes(damage(data, "flipped", at, 1))
        try:
            again = History.load(folder / "flipped.pt")
        except ValueError:
            continue
        same(history, again)
        equal += 1
    assert equal < len(data) / 6  # the rest is padding and dates


@given(**DAMAGE)
def test_a_damaged_table_is_a_table_or_refused(folder, kind, at, byte):
    some_history().to_csv(folder / "damaged.csv")
    data = (folder / "damaged.csv").read_bytes()
    loaded(folder / "damaged.csv", damage(data, kind, at, byte))


CELLS = st.sampled_from(
    ["", "nan", "-1", "1e999", "0.5", "True", "x", "1,2", '"', "\0", "9" * 5000]
)
FIELDS = ["step", "part", "label", "lr", "loss", *ClipReport.fields]


@given(st.lists(st.sampled_from(FIELDS), max_size=6), st.lists(st.lists(CELLS, max_size=6)))
def test_any_table_is_read_or_refused(folder, head, body):
    lines = [",".join(row) for row in [["norm_before", *head], *body]]
    loaded(folder / "any.csv", "\n".join(lines).encode())


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.lists(st.integers(0, 3) | TEXT | st.none(), max_size=3)
    | st.builds(torch.zeros, st.lists(st.integers(0, 6), max_size=4))
    | st.sampled_from([
        torch.zeros(4, 6, 2, device="meta"),
        torch.zeros(4, 6, 2, dtype=torch.int64),
        torch.zeros(4, 6, 2, dtype=torch.complex64),
        torch.zeros(4, 6, 2).to_sparse(),
        torch.zeros(1).expand(1 << 40, 6, 2),
        torch.zeros(1).expand(1 << 40),
    ])
)  # fmt: skip


@given(
    st.sampled_from(
        [
            "format",
            "labels",
            "scalar",
            "first_step",
            "max_bytes",
            "rows",
            "lr",
            "update_norm",
        ]
    ),
    JUNK,
)
def test_a_field_that_lies_is_refused(folder, field, junk):
    some_history().save(folder / "field.pt")
    state = torch.load(folder / "field.pt", weights_only=True)
    file = io.BytesIO()
    torch.save(state | {field: junk}, file)
    loaded(folder / "field.pt", file.getvalue())


LIES = {
    "labels": (None, "ab", ["a", 1], ["a", "b", "c"], ("a", "b")),
    "scalar": (True, 1, None),
    "first_step": (-1, 1.0, True, math.inf, 1 << 63, None),
    "max_bytes": (0, -1, 1e9, None, True),
    "lr": (None, torch.zeros(3), torch.zeros(4, 1), torch.zeros(4, dtype=torch.int64), [0.1] * 4),
    "rows": (
        None,
        torch.zeros(4, 6),
        torch.zeros(4, 5, 2),
        torch.zeros(4, 6, 2, device="meta"),
        torch.zeros(4, 6, 2).bool(),
        torch.zeros(1).expand(4, 6, 2),
        torch.full((4, 6, 2), -1.0),
        torch.full((4, 6, 2), 0.5),
    ),
}


UPDATES = (None, torch.zeros(3), torch.zeros(4, 1), torch.full((4,), -1.0), [0.1] * 4)


@pytest.mark.parametrize("lie", UPDATES)
def test_norms_of_updates_that_lie_are_refused(tmp_path, lie):
    some_history().save(tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    torch.save(state | {"update_norm": lie}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="not a saved history: update_norm must be"):
        History.load(tmp_path / "a.pt")


def test_what_has_no_norm_of_an_update_is_written_as_before(tmp_path):
    history = some_history()
    history.save(tmp_path / "a.pt")
    history.to_csv(tmp_path / "a.csv")
    assert "update_norm" not in torch.load(tmp_path / "a.pt", weights_only=True)
    assert "update_norm" not in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("field", LIES)
def test_the_message_names_the_field(tmp_path, field):
    some_history().save(tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    for lie in (*LIES[field], ...):
        changed = {k: v for k, v in state.items() if k != field}
        torch.save(changed if lie is ... else changed | {field: lie}, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=rf"not a saved history: {field} must be"):
            History.load(tmp_path / "a.pt")


# --- what is no history -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("step,norm_before\ninf,1\n", "line 2: step is 'inf', expected a whole number >= 0"),
        ("step,norm_before\n-1,1\n", "line 2: step is '-1', expected a whole number"),
        ("step,norm_before\n0.5,1\n", "line 2: step is '0.5', expected a whole number"),
        ("step,norm_before\n,1\n", "line 2: step is '', expected a whole number"),
        ("step,norm_before\n0,1\n0,1\n", "line 3: step is 0, expected 1"),
        ("step,norm_before\n0,1\n10,1\n", "without the column they count from 0"),
        ("step,part,norm_before\n0,0,1\n0,0,2\n", "line 3: step is 0, expected 1"),
        ("step,part,norm_before\n0,0,1\n1,1,1\n", "line 3: step is 1, in that step also 0"),
        ("part,norm_before\n0,1\n1,1\n0,1\n", "the same parts in the same order"),
        ("part,label,norm_before\n0,a,1\n0,b,1\n", "the same labels in the same order"),
        ("norm_before,norm_before\n1,2\n", "expected one column norm_before, got several"),
        ("norm_before,lr\n1\n", "line 2: expected 2 columns, got 1"),
        ("norm_before\n1,2\n", "line 2: expected 1 columns, got 2"),
        ("norm_before\n-1\n", "norm_before is '-1', expected a number >= 0"),
        ("norm_before,skipped\n1,2\n", "skipped is '2', expected 0 or 1"),
        ("norm_before,clipped\n1,\n", "clipped is '', expected 0 or 1"),
        ("norm_before\n1\0\n", "expected a number"),
        ("part,lr,norm_before\n0,1,1\n1,2,1\n", "line 3: lr is 2.0, in that step also 1.0"),
    ],
)
def test_a_table_that_lies_is_refused(tmp_path, table, complaint):
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(ValueError, match=complaint):
        History.load(tmp_path / "a.csv")


def test_parts_of_a_table_may_have_names(tmp_path):
    (tmp_path / "a.csv").write_text("part,norm_before\nweight,1\nbias,2\nweight,3\nbias,4\n")
    assert History.load(tmp_path / "a.csv").part_names == ["weight", "bias"]


class Run:
    """What a pickle can do to whoever trusts it."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


OTHERS = {
    "nothing": b"",
    "text": b"norm\n",
    "junk": bytes(range(256)) * 9,
    "gzip": gzip.compress(b"norm_before\n1\n"),
    "UTF-16": "norm_before\n1\n".encode("utf-16"),
    "UTF-16 without a mark": "norm_before\n1\n".encode("utf-16-le"),
    "code": pickle.dumps(Run()),
    "code in a field": pickle.dumps({"format": "cliplab history 1", "rows": Run()}),
    "a pickle": pickle.dumps({"format": "cliplab history 1"}),
}


@pytest.mark.parametrize("suffix", [".pt", ".csv", ".CSV", ""])
@pytest.mark.parametrize("content", OTHERS)
def test_another_content_is_refused_and_nothing_is_run(tmp_path, monkeypatch, content, suffix):
    monkeypatch.chdir(tmp_path)
    assert loaded(tmp_path / f"a{suffix}", OTHERS[content]) is None
    torch.save({"format": "cliplab history 1", "rows": Run()}, "code.pt")
    assert loaded(tmp_path / "code.pt", (tmp_path / "code.pt").read_bytes()) is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".csv"])
def test_what_cannot_be_read_at_all_is_an_oserror(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(IsADirectoryError):
        History.load(tmp_path / f"folder{suffix}")
    with pytest.raises(FileNotFoundError):
        History.load(tmp_path / f"none{suffix}")
    with pytest.raises(FileNotFoundError):
        some_history().save(tmp_path / "none" / "a.pt")


@pytest.mark.parametrize("suffix", [".pt", ".csv"])
def test_the_command_says_so_in_one_line(tmp_path, capsys, suffix):
    paths = [tmp_path / f"folder{suffix}", tmp_path / f"none{suffix}"]
    paths[0].mkdir()
    for name, content in OTHERS.items():
        paths.append(tmp_path / f"{name}{suffix}")
        paths[-1].write_bytes(content)
    for path in paths:
        assert main(["diagnose", str(path)]) == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert error.startswith("cliplab: error: ")
        assert error.count("\n") == 1
