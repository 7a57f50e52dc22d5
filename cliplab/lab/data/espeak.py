"""Speech by eSpeak NG through ctypes, with the phones it spoke; runs in a process of its own.

The synthesiser keeps state between utterances: only a fresh process speaks the same twice. Its
library (GPL-3) and voice data come with the package espeakng-loader; nothing else is used of it.
"""

import ctypes
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VARIANTS = ("f1", "f2", "f3", "f4", "m1", "m2", "m3", "m5")  # timbres of the one English voice
VOICE_DATA = (
    *("en_dict", "intonations", "lang/gmw/en-US", "phondata", "phonindex", "phontab"),
    *(f"voices/!v/{variant}" for variant in VARIANTS),
)
# Of these files, one after the other, in espeakng-loader 0.2.4:
VOICE_SHA256 = "83017121d904033106b969a54eae66c789ce9560ad7d10be15610abc251b0e49"
Request = tuple[str, str, int, int]  # text, variant, words a minute, pitch (0 to 100)


@dataclass(frozen=True, eq=False)
class Spoken:
    """An utterance: `audio` [samples] int16 at `rate` (Hz), phones and their starts (seconds)."""

    audio: NDArray[np.int16]
    rate: int
    phones: tuple[str, ...]
    starts: tuple[float, ...]


def synthesise(requests: Sequence[Request]) -> list[Spoken]:
    """Speak every request (text, variant, words a minute, pitch) with the voice en-us.

    Phones are the synthesiser's own, in IPA without stress marks. Raises `ModuleNotFoundError`
    without the package, `RuntimeError` where it is another version or the synthesiser fails.
    """
    found = importlib.util.find_spec("espeakng_loader")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "synthesised speech needs espeakng-loader: pip install 'cliplab[speech]'"
        )
    home = Path(found.origin).parent
    data = home / "espeak-ng-data"
    try:
        digest = hashlib.sha256(b"".join((data / name).read_bytes() for name in VOICE_DATA))
    except FileNotFoundError as error:
        raise RuntimeError(f"espeakng-loader has no {error.filename}") from None
    if digest.hexdigest() != VOICE_SHA256:
        raise RuntimeError(
            f"the voice data of espeakng-loader have sha256 {digest.hexdigest()}, expected "
            f"{VOICE_SHA256}: pip install espeakng-loader==0.2.4"
        )
    library = next(path for path in sorted(home.iterdir()) if path.suffix in (".so", ".dylib"))
    with tempfile.TemporaryDirectory() as work:
        answer = Path(work) / "spoken.npz"
        child = subprocess.run(
            [sys.executable, __file__, str(library), str(home), str(answer)],
            input=json.dumps(list(requests)).encode(),
            capture_output=True,
            env=os.environ | {"PYTHONSAFEPATH": "1"},  # the files beside this one are no modules
            check=False,
        )
        if child.returncode:
            said = child.stderr.decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"eSpeak NG failed: {said[-1] if said else child.returncode}")
        with np.load(answer) as stored:
            rate, audio, ends = int(stored["rate"]), stored["audio"], stored["ends"]
            phones = json.loads(str(stored["phones"]))
    pieces = np.split(audio, ends[:-1])
    return [
        Spoken(piece, rate, tuple(p for p, _ in own), tuple(at / rate for _, at in own))
        for piece, own in zip(pieces, phones, strict=True)
    ]


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):  # espeak_EVENT of espeak-ng/speak_lib.h
    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "identifier", "text", "length", "audio_ms")),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


RETRIEVAL, PHONEME_EVENTS, IPA, DONT_EXIT = 2, 1, 2, 0x8000
RATE, PITCH, CHARACTERS, UTF8 = 1, 3, 1, 1
LIST_TERMINATED, PHONEME = 0, 7


def _speak(library: str, home: str, requests: Sequence[Request], answer: str) -> None:
    """Speak all requests in this process and write audio and phones to a file."""
    espeak = ctypes.CDLL(library)
    rate = espeak.espeak_Initialize(RETRIEVAL, 0, home.encode(), PHONEME_EVENTS | IPA | DONT_EXIT)
    if rate <= 0:
        raise SystemExit(f"espeak_Initialize returned {rate}")
    chunks: list[NDArray[np.int16]] = []
    phones: list[tuple[str, int]] = []

    def receive(wave: Any, samples: int, events: Any) -> int:
        if wave and samples > 0:
            chunks.append(np.ctypeslib.as_array(wave, (samples,)).copy())
        at = 0
        while events[at].type != LIST_TERMINATED:
            name = bytes(events[at].id.string).decode(errors="replace").strip("ˈˌ")
            if events[at].type == PHONEME and name:
                phones.append((name, events[at].sample))
            at += 1
        return 0

    prototype = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    )
    callback = prototype(receive)
    espeak.espeak_SetSynthCallback(callback)
    audio, ends, spoken = [], [0], []
    for text, variant, speed, pitch in requests:
        chunks.clear()
        phones.clear()
        espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))  # the breath in voices is noise
        said = text.encode()
        failed = [
            espeak.espeak_SetVoiceByName(f"en-us+{variant}".encode()),
            espeak.espeak_SetParameter(RATE, speed, 0),
            espeak.espeak_SetParameter(PITCH, pitch, 0),
            espeak.espeak_Synth(said, len(said) + 1, 0, CHARACTERS, 0, UTF8, None, None),
        ]
        if any(failed) or not chunks or not phones:
            raise SystemExit(f"{text!r} with voice en-us+{variant} gave {failed}")
        audio.append(np.concatenate(chunks))
        ends.append(ends[-1] + len(audio[-1]))
        spoken.append(list(phones))
    np.savez(
        answer,
        rate=rate,
        audio=np.concatenate(audio),
        ends=np.array(ends[1:]),
        phones=json.dumps(spoken),
    )


if __name__ == "__main__":
    _speak(sys.argv[1], sys.argv[2], json.load(sys.stdin), sys.argv[3])
