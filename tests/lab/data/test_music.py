import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.data import music
from cliplab.lab.data.fetch import DataUnavailable, cache_dir
from cliplab.lab.data.music import chorale_rolls, roll_windows

network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)


def score(voices: list[list[tuple[float, int]]]) -> bytes:
    """A score in MusicXML: for every voice its notes, (quarters, MIDI pitch), 0 for a rest."""
    from music21 import musicxml, note, stream

    parts = []
    for voice in voices:
        notes = [
            note.Note(pitch, quarterLength=held) if pitch else note.Rest(quarterLength=held)
            for held, pitch in voice
        ]
        parts.append(stream.Part(notes))
    return musicxml.m21ToXml.GeneralObjectExporter().parse(stream.Score(parts))


FIRST = [[(1, 72), (1, 74)], [(2, 67)], [(0.5, 64), (0.5, 65), (1, 64)], [(1, 0), (1, 48)]]
OTHER = [[(1, 70 - 3 * v), (0.25, 60 + v), (0.75, 71 - v), (1, 69 - 2 * v)] for v in range(4)]
HIGHER = [[(held, pitch + 2 if pitch else 0) for held, pitch in voice] for voice in FIRST]


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of four scores in the cache, in place of music21's: the path of its rolls."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    wheel = cache_dir() / "music21-10.5.1" / music.CHORALES.member
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, voices in {"a": FIRST, "b": FIRST[:2], "c": HIGHER, "d": OTHER}.items():
            archive.writestr(f"music21/corpus/bach/{name}.xml", score(voices))
        archive.writestr("music21/corpus/bach/more/e.xml", b"not a score")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(music, "CHORALES", dataclasses.replace(music.CHORALES, sha256=sha256))
    return wheel.with_name("chorales.npz")


def pin(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Takes what is read now for what was meant."""
    rolls = music._without_repeats(music._parse(music.fetch(music.CHORALES)))
    monkeypatch.setattr(music, "ROLLS_SHA256", music._digest(rolls))
    return rolls


def test_four_part_scores_are_read_once(scores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = pin(monkeypatch)  # two voices are no chorale; c is a, two semitones higher
    assert first.shape == (8, 88)
    sounding = [[int(i) + 21 for i in np.flatnonzero(frame)] for frame in first]
    assert sounding == [[64, 67, 72]] * 2 + [[65, 67, 72]] * 2 + [[48, 64, 67, 74]] * 4
    assert len(other) == 12

    rolls = chorale_rolls()
    assert [len(rolls.train), len(rolls.valid), len(rolls.test)] == [2, 0, 0]
    assert torch.equal(rolls.train[0], torch.from_numpy(first))
    assert "non-commercial" in rolls.notice
    monkeypatch.setattr(music, "fetch", None)  # from here on the wheel is not needed
    again = chorale_rolls()
    assert all(torch.equal(a, b) for a, b in zip(rolls.train, again.train, strict=True))
    assert [path.name for path in scores.parent.iterdir() if path.suffix == ".npz"] == [scores.name]


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_rolls_are_read_again(
    scores: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    rolls = pin(monkeypatch)
    chorale_rolls()
    if damage == "cut":
        scores.write_bytes(scores.read_bytes()[:-200])
    else:
        np.savez_compressed(scores, frames=1 - np.concatenate(rolls), lengths=[8, 12])
    assert torch.equal(chorale_rolls().train[0], torch.from_numpy(rolls[0]))
    assert music._load(scores) is not None


def test_another_reading_is_refused(scores: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"reads the scores differently.*==10\.5\.1"):
        chorale_rolls()
    assert not scores.exists()


def test_unknown_music_is_named() -> None:
    with pytest.raises(ValueError, match="no music 'jazz': choose one of chorales, fixture"):
        chorale_rolls("jazz")


def test_fixture_is_always_the_same_and_needs_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path / "nothing"))
    rolls = chorale_rolls("fixture")
    assert [len(rolls.train), len(rolls.valid), len(rolls.test)] == [32, 4, 4]
    pieces = [*rolls.train, *rolls.valid, *rolls.test]
    assert all(0 < piece.sum(1).max() <= 4 for piece in pieces)
    assert all(piece.dtype == torch.uint8 and piece.shape[1] == 88 for piece in pieces)
    digest = music._digest([piece.numpy() for piece in pieces])
    assert digest == "cd5585ebf98e0eea253541246b6832b00876349d3ea16c9c90310fcec18ab4e2"
    assert not (tmp_path / "nothing").exists()


def test_only_repeats_are_left_out() -> None:
    generator = np.random.default_rng(0)
    piece = (generator.random((64, 88)) < 0.05).astype(np.uint8)
    piece[:, 70:] = 0
    piece[:, :10] = 0
    higher = np.roll(piece, 7, axis=1)
    third = np.concatenate([piece[:20], generator.permuted(piece, axis=1)])
    kept = music._without_repeats([piece, higher, third, piece[:48]])
    assert [len(roll) for roll in kept] == [64, 84]


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 1000)
)
def test_windows_predict_every_frame_once(lengths: list[int], length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rolls = [torch.randint(0, 2, (n, 5), generator=generator, dtype=torch.uint8) for n in lengths]
    frames, mask = roll_windows(rolls, length)
    assert frames.shape == (len(mask), length + 1, 5)
    targets, inputs = frames[:, 1:][mask.bool()], frames[:, :-1][mask.bool()]
    assert torch.equal(targets, torch.cat(rolls).float())
    silence = torch.zeros(1, 5)
    before = torch.cat([torch.cat([silence, roll.float()])[:-1] for roll in rolls])
    assert torch.equal(inputs, before)
    assert not frames[:, 1:][~mask.bool()].any()


def test_windows_refuse_what_they_cannot_cut() -> None:
    with pytest.raises(ValueError, match="length must be at least 1 frame, got 0"):
        roll_windows([torch.ones(3, 88)], 0)
    with pytest.raises(ValueError, match="rolls holds no piece"):
        roll_windows([], 4)


@pytest.mark.network
@network
def test_real_chorales() -> None:
    rolls = chorale_rolls()
    assert [len(rolls.train), len(rolls.valid), len(rolls.test)] == [285, 35, 35]
    frames = torch.cat([*rolls.train, *rolls.valid, *rolls.test])
    assert frames.shape == (77_344, 88)
    assert 3.8 < frames.sum(1).double().mean() < 4
