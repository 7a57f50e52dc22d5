"""Speech as log-mel features with its phones: synthesised, real (opt-in), or generated patterns."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from cliplab.lab.data.choose import choose
from cliplab.lab.data.espeak import VARIANTS, Spoken, synthesise
from cliplab.lab.data.festvox import festvox
from cliplab.lab.data.fetch import DataUnavailable

BLANK = 0  # CTC's symbol for "no phone here"
WORDS = """
    zero one two three four five six seven eight nine ten red blue green white black yellow boat
    chair house tree river stone bread water milk fish dog cat bird horse mouse apple table door
    window hand foot head heart sun moon star cloud rain snow wind fire jump sing walk sleep read
    write open close big small fast slow
"""


@dataclass(frozen=True, eq=False)
class Utterances:
    """N utterances, padded: `frames` [N,T,F] of `lengths` [N]; `phones` [N,S] of `counts` [N].

    `starts` [N,S] is the frame (a fraction) in which each phone starts. N may be several axes.
    """

    frames: Tensor
    lengths: Tensor
    phones: Tensor
    counts: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, index: Tensor) -> Utterances:
        """The utterances at `index` [...], with no more padding than the longest of them needs."""
        index = index.to(self.lengths.device)
        lengths, counts = self.lengths[index], self.counts[index]
        longest, most = int(lengths.max()), int(counts.max())
        return Utterances(
            self.frames[:, :longest][index],
            lengths,
            self.phones[:, :most][index],
            counts,
            self.starts[:, :most][index],
        )

    def to(self, device: torch.device | str) -> Utterances:
        """The same on a device."""
        return Utterances(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True, eq=False)
class SpeechCorpus:
    """Utterances in splits; phone i is `alphabet[i]`, of which the first is CTC's blank."""

    name: str
    train: Utterances
    valid: Utterances
    test: Utterances
    alphabet: tuple[str, ...]
    hop_ms: int
    digest: str
    notice: str


def speech_corpus(
    name: str = "synthesised",
    *,
    utterances: int = 800,
    bands: int = 25,
    hop_ms: int = 20,
    deltas: bool = False,
) -> SpeechCorpus:
    """Speech with its phones: `synthesised`, `festvox-ru` (real, opt-in) or `fixture`.

    * `synthesised`: pairs of 60 short words spoken by eSpeak NG (needs `cliplab[speech]`) in
      8 timbres at random speed and pitch, with the phones it spoke. No sentence is in two splits.
    * `festvox-ru`: 620 sentences of one Russian speaker, cut at pauses; of every 20 sentences 18
      train. 179 MB, fetched once with `apt-get download` and unpacked, not installed. The phone
      labels are probably automatic.
    * `fixture`: smooth noisy patterns made here, no speech at all. For smoke tests.

    `utterances` train, a quarter as many validate and half as many test (`festvox-ru`: all there
    are). Features are those of `log_mel`. `digest` is the sha256 of what was read.
    Raises `ValueError` for an unknown name, `DataUnavailable` where the speech cannot be had.
    """
    readers = {
        "synthesised": _synthesised,
        "festvox-ru": lambda _: festvox(),
        "fixture": _fixture,
    }
    read = choose(readers, name, "speech")
    for what, value in (("utterances", utterances), ("bands", bands), ("hop_ms", hop_ms)):
        if value < 1:
            raise ValueError(f"{what} must be at least 1, got {value}")
    splits, notice = read(utterances)
    everything = [one for split in splits.values() for one in split]
    alphabet = ("", *sorted({phone for one in everything for phone in one.phones}))
    digest = hashlib.sha256()
    for one in everything:
        digest.update(one.audio.tobytes() + " ".join(one.phones).encode())
    padded = {split: _padded(own, alphabet, bands, hop_ms, deltas) for split, own in splits.items()}
    return SpeechCorpus(
        name, **padded, alphabet=alphabet, hop_ms=hop_ms, digest=digest.hexdigest(), notice=notice
    )


def log_mel(
    audio: Tensor, rate: int, *, bands: int = 25, hop_ms: int = 20, deltas: bool = False
) -> Tensor:
    """Log-mel energies and the log energy, of mean 0 and variance 1 over the utterance.

    ``audio`` [samples] -> [T, bands + 1]: 25 ms Hann windows every ``hop_ms``, triangular filters
    evenly spaced on the mel scale ``2595 log10(1 + f / 700)``. ``deltas`` appends first and second
    differences (regression over 5 frames): 40 bands with deltas are the 123 features of Graves,
    Mohamed, Hinton 2013.
    """
    hop, window = rate * hop_ms // 1000, rate * 25 // 1000
    size = 2 ** math.ceil(math.log2(window))
    if audio.ndim != 1 or len(audio) <= size // 2:
        raise ValueError(f"audio must be [samples] of more than {size // 2}, got {audio.shape}")
    spectrum = torch.stft(audio, size, hop, window, torch.hann_window(window), return_complex=True)
    power = spectrum.abs().square().T
    energies = [power @ mel_filters(bands, size, rate).T, power.sum(1, keepdim=True)]
    features = torch.cat(energies, 1).add(1e-4).log()
    if deltas:
        slope = _slope(features)
        features = torch.cat([features, slope, _slope(slope)], 1)
    return (features - features.mean(0)) / features.std(0).clamp(min=1e-3)


def mel_filters(bands: int, size: int, rate: int) -> Tensor:
    """Triangles over the bins of an FFT, each from its neighbours' peaks: [bands, size/2 + 1]."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    peaks = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    frequency = torch.linspace(0, rate / 2, size // 2 + 1)
    rising = (frequency - peaks[:-2, None]) / (peaks[1:-1] - peaks[:-2])[:, None]
    falling = (peaks[2:, None] - frequency) / (peaks[2:] - peaks[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def _slope(features: Tensor) -> Tensor:
    """The slope of a line through each feature's 5 frames around t: [T, F] -> [T, F]."""
    kernel = torch.arange(-2.0, 3.0).view(1, 1, 5) / 10
    padded = F.pad(features.T[:, None], (2, 2), mode="replicate")
    return F.conv1d(padded, kernel)[:, 0].T


def _padded(
    utterances: Sequence[Spoken],
    alphabet: Sequence[str],
    bands: int,
    hop_ms: int,
    deltas: bool,
) -> Utterances:
    number = {phone: i for i, phone in enumerate(alphabet)}
    frames, phones, starts = [], [], []
    for one in utterances:
        audio = torch.from_numpy(one.audio).float() / 2**15
        frames.append(log_mel(audio, one.rate, bands=bands, hop_ms=hop_ms, deltas=deltas))
        phones.append(torch.tensor([number[phone] for phone in one.phones]))
        starts.append(torch.tensor(one.starts) * 1000 / hop_ms)
        repeats = int((phones[-1][1:] == phones[-1][:-1]).sum())
        if len(phones[-1]) + repeats > len(frames[-1]):
            raise ValueError(
                f"hop_ms = {hop_ms} leaves {len(frames[-1])} frames for {len(phones[-1])} phones"
            )
    pad = lambda pieces: torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)  # noqa: E731
    lengths, counts = (torch.tensor([len(x) for x in xs]) for xs in (frames, phones))
    return Utterances(pad(frames), lengths, pad(phones), counts, pad(starts))


Splits = dict[str, list[Spoken]]  # train, valid, test


def _sizes(utterances: int) -> dict[str, int]:
    return {
        "train": utterances,
        "valid": math.ceil(utterances / 4),
        "test": math.ceil(utterances / 2),
    }


def _synthesised(utterances: int) -> tuple[Splits, str]:
    uniform = random.Random(0).random  # the one part of `random` that never changes
    sizes, words = _sizes(utterances), WORDS.split()
    pairs = [(first, second) for first in words for second in words]
    if sum(sizes.values()) > len(pairs):
        raise ValueError(f"utterances = {utterances} is more than {len(pairs)} pairs of words give")
    pairs.sort(key=lambda _: uniform())
    requests = [
        (
            " ".join(pair),
            VARIANTS[int(uniform() * len(VARIANTS))],
            200 + int(uniform() * 60),
            30 + int(uniform() * 40),
        )
        for pair in pairs[: sum(sizes.values())]
    ]
    try:
        spoken = iter(synthesise(requests))
    except (ModuleNotFoundError, RuntimeError) as error:
        raise DataUnavailable(f"{error}; or choose the corpus fixture") from None
    splits = {split: list(itertools.islice(spoken, size)) for split, size in sizes.items()}
    return splits, "synthetic speech, made here with eSpeak NG (GPL-3), voice en-us"


def _fixture(utterances: int) -> tuple[Splits, str]:
    rate, phones, generator = 8000, "aeioumnslr", torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    formants = torch.tensor([300.0, 900.0, 2200.0]) * (0.6 + draw(len(phones), 3))

    def utterance() -> Spoken:
        spoken = torch.randint(len(phones), (3 + int(4 * draw(1)),), generator=generator).tolist()
        pieces, starts, at = [], [], 0.0
        for phone in spoken:
            starts.append(at)
            time = torch.arange(int(rate * (0.06 + 0.06 * float(draw(1))))) / rate
            tones = torch.sin(
                2 * math.pi * formants[phone] * time[:, None] * (0.95 + 0.1 * draw(1))
            )
            pieces.append(tones.mean(1) * torch.sin(math.pi * time / time[-1]).clamp(min=0.2))
            at += len(time) / rate
        audio = torch.cat(pieces)
        audio = (2**14 * (audio + 0.1 * (draw(len(audio)) - 0.5))).to(torch.int16)
        return Spoken(audio.numpy(), rate, tuple(phones[i] for i in spoken), tuple(starts))

    splits = {split: [utterance() for _ in range(n)] for split, n in _sizes(utterances).items()}
    return splits, "no speech: tones of three formants a phone, generated by cliplab"
