"""Real speech with phone labels out of Debian's package festvox-ru (opt-in, 179 MB)."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.data.espeak import Spoken
from cliplab.lab.data.fetch import DataUnavailable, cache_dir

SHA256 = "2cd1cff6798ee87f907b1f3c9f1efd4f42b600190b906c9ef7265d5c81c0e4d0"  # wav, then lab files
VOICE = "usr/share/festival/voices/russian/msu_ru_nsh_clunits"
NOTICE = (
    "festvox-ru, (c) 2005 Nickolay V. Shmyrev, BSD-like licence: one Russian speaker, phone "
    "labels probably automatic"
)


def festvox() -> tuple[dict[str, list[Spoken]], str]:
    """Phrases of 620 recordings (18 of every 20 train, one validates, one tests), and the notice.

    Raises `DataUnavailable` where Debian's tools, the network or the right recordings are missing.
    """
    home = _home()
    splits: dict[str, list[Spoken]] = {"train": [], "valid": [], "test": []}
    for k, path in enumerate(sorted((home / "lab").glob("*.lab"))):
        with wave.open(str(home / "wav" / f"{path.stem}.wav")) as sound:
            rate = sound.getframerate()
            audio = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).copy()
        lines = [line.split() for line in path.read_text().splitlines()]
        ends = [(float(line[0]), line[2]) for line in lines if len(line) == 3]
        split = "train" if k % 20 < 18 else "valid" if k % 20 == 18 else "test"
        splits[split] += phrases(audio, rate, ends)
    return splits, NOTICE


def phrases(audio: NDArray[np.int16], rate: int, ends: Sequence[tuple[float, str]]) -> list[Spoken]:
    """The stretches of two and more phones between the pauses ("pau") of one recording.

    `ends` says when (seconds) each phone ends, as festival's label files do.

    >>> [one.phones for one in phrases(np.zeros(9, np.int16), 1, [(3, "a"), (5, "b"), (6, "pau")])]
    [('a', 'b')]
    """
    found: list[Spoken] = []
    phones: list[str] = []
    starts: list[float] = []
    before = 0.0
    for end, phone in [*ends, (len(audio) / rate, "pau")]:
        if phone != "pau":
            phones.append(phone)
            starts.append(before)
        else:
            if len(phones) > 1:
                piece = audio[int(starts[0] * rate) : int(before * rate)]
                found.append(
                    Spoken(piece, rate, tuple(phones), tuple(at - starts[0] for at in starts))
                )
            phones, starts = [], []
        before = end
    return found


def _home() -> Path:
    """The checked recordings, fetched and unpacked (not installed) by Debian's tools at first."""
    home = cache_dir() / "festvox-ru"
    if home.is_dir():
        return _checked(home)
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise DataUnavailable(f"festvox-ru is fetched with {tool}, which is not here")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".festvox-") as folder:
        work = Path(folder)
        _run(work, "apt-get", "download", "festvox-ru")
        _run(work, "dpkg", "-x", next(work.glob("*.deb")).name, ".")
        _checked(work / VOICE)
        with contextlib.suppress(OSError):  # another process was faster
            os.replace(work / VOICE, home)
    return home


def _run(work: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DataUnavailable(
            f"festvox-ru: {' '.join(command)} failed: {said}; it needs the network and, perhaps, "
            "`apt-get update` first"
        )


def _checked(home: Path) -> Path:
    digest = hashlib.sha256()
    for path in sorted([*home.glob("wav/*.wav"), *home.glob("lab/*.lab")]):
        digest.update(path.read_bytes())
    if digest.hexdigest() != SHA256:
        raise DataUnavailable(
            f"{home} has sha256 {digest.hexdigest()}, expected {SHA256}: other recordings, or "
            "damaged; remove the folder if it is in the cache"
        )
    return home
