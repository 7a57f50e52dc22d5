import importlib.util
import math
import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from needs import need

from cliplab.lab.data import espeak, festvox
from cliplab.lab.data.fetch import DataUnavailable
from cliplab.lab.data.speech import log_mel, mel_filters, speech_corpus

spoken = pytest.mark.usefixtures("_synthesiser")
network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)


@pytest.fixture
def _synthesiser() -> None:
    need("espeakng_loader", "speech")


def test_the_fixture_is_padded_utterances_with_labels_in_order() -> None:
    corpus = speech_corpus("fixture", utterances=20)
    assert [len(split) for split in (corpus.train, corpus.valid, corpus.test)] == [20, 5, 10]
    assert corpus.alphabet[0] == ""
    assert corpus.digest == speech_corpus("fixture", utterances=20).digest
    utterances = corpus.train
    assert utterances.frames.shape == (20, int(utterances.lengths.max()), 26)
    for i in range(20):
        length, count = int(utterances.lengths[i]), int(utterances.counts[i])
        assert not utterances.frames[i, length:].any()
        assert utterances.frames[i, :length].mean(0).abs().max() < 1e-4
        assert (utterances.phones[i, :count] > 0).all()
        assert not utterances.phones[i, count:].any()
        starts = utterances.starts[i, :count]
        assert (starts.diff() > 0).all()
        assert float(starts[-1]) < length


def test_a_batch_has_no_more_padding_than_it_needs() -> None:
    utterances = speech_corpus("fixture", utterances=20).train
    short = utterances.lengths.argsort()[:4].view(2, 2)
    batch = utterances.take(short)
    longest = int(utterances.lengths[short].max())
    assert batch.frames.shape == (2, 2, longest, 26)
    assert longest < utterances.frames.shape[1]
    assert torch.equal(batch.frames[1, 0], utterances.frames[short[1, 0], :longest])
    assert torch.equal(batch.counts, utterances.counts[short])


@pytest.mark.parametrize("settings", [{"utterances": 0}, {"bands": 0}, {"hop_ms": 0}])
def test_settings_that_make_no_sense_are_named(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be at least 1, got 0"):
        speech_corpus("fixture", **settings)


def test_unknown_speech_and_too_few_frames_are_errors() -> None:
    with pytest.raises(ValueError, match="no speech 'timit': choose one of synthesised"):
        speech_corpus("timit")
    with pytest.raises(ValueError, match="hop_ms = 300 leaves"):
        speech_corpus("fixture", utterances=20, hop_ms=300)


def test_a_tone_is_heard_in_its_band_and_hardly_elsewhere() -> None:
    rate, size = 16000, 512
    filters = mel_filters(25, size, rate)
    peaks = filters.argmax(1) * rate / size
    noise = 0.01 * torch.randn(2 * rate, generator=torch.Generator().manual_seed(0))
    for band in (5, 12, 20):
        tone = torch.sin(2 * math.pi * peaks[band] * torch.arange(rate) / rate)
        features = log_mel(noise + torch.cat([torch.zeros(rate), tone]), rate)
        assert features.shape == (101, 26)
        change = features[60:90, :25].mean(0) - features[10:40, :25].mean(0)
        heard = (change > 1).nonzero()[:, 0].tolist()
        assert band in heard
        assert set(heard) <= set(range(band - 3, band + 4))
    inner = filters[:, filters.argmax(1)[0] + 1 : filters.argmax(1)[-1]]
    torch.testing.assert_close(inner.sum(0), torch.ones(inner.shape[1]))  # they share all power


def test_features_do_not_hear_the_volume() -> None:
    audio = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_mel(audio, 8000), log_mel(0.3 * audio, 8000), atol=1e-3, rtol=0)


def test_forty_bands_with_deltas_are_the_123_features_of_graves() -> None:
    audio = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    plain = log_mel(audio, 8000, bands=40)
    features = log_mel(audio, 8000, bands=40, deltas=True)
    assert features.shape == (51, 123)
    torch.testing.assert_close(features[:, :41], plain)
    slope = sum(k * (plain[2 + k : 49 + k] - plain[2 - k : 49 - k]) for k in (1, 2)) / 10
    correlation = torch.corrcoef(torch.stack([slope[:, 7], features[2:49, 41 + 7]]))[0, 1]
    assert correlation > 0.9999


@spoken
def test_synthesised_speech_is_the_same_every_time_and_never_in_two_splits() -> None:
    corpus = speech_corpus(utterances=40)
    assert corpus.digest == speech_corpus(utterances=40).digest
    assert "synthetic" in corpus.notice
    assert {"n", "iː", "aɪ"} <= set(corpus.alphabet)
    assert not any(mark in phone for phone in corpus.alphabet for mark in "ˈˌ")
    assert len(corpus.train) == 40
    assert 25 < corpus.train.lengths.float().mean() < 40


@spoken
def test_the_phones_are_those_spoken_when_they_are_said_to_be() -> None:
    seven, again, low = espeak.synthesise(
        [("seven", "m1", 180, 50), ("seven", "f2", 180, 50), ("seven", "m1", 90, 50)]
    )
    assert seven.phones == again.phones == low.phones == ("s", "ɛ", "v", "ə", "n")
    assert not np.array_equal(seven.audio, again.audio)
    assert len(low.audio) > 1.5 * len(seven.audio)
    assert list(seven.starts) == sorted(seven.starts)

    def crossings(utterance: espeak.Spoken, phone: int) -> float:
        begin, end = (int(utterance.starts[phone + k] * utterance.rate) for k in (0, 1))
        return float((np.diff(np.sign(utterance.audio[begin:end])) != 0).mean())

    assert crossings(seven, 0) > 2 * crossings(seven, 1)  # s hisses, ɛ does not


@spoken
def test_what_cannot_be_spoken_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"eSpeak NG failed: '\.' with voice en-us\+m1"):
        espeak.synthesise([(".", "m1", 180, 50)])


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataUnavailable, match=r"cliplab\[speech\].*or choose the corpus fixture"):
        speech_corpus()


@spoken
def test_other_voice_data_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "VOICE_SHA256", "0" * 64)
    with pytest.raises(
        DataUnavailable, match=r"voice data .* expected 000.*espeakng-loader==0\.2\.4"
    ):
        speech_corpus()


def test_recordings_are_cut_at_pauses() -> None:
    audio = np.arange(100, dtype=np.int16)
    ends = [
        (1.0, "pau"),
        (2.0, "k"),
        (3.0, "a"),
        (4.0, "pau"),
        (5.0, "o"),
        (5.5, "pau"),
        (8.0, "s"),
    ]
    first, *others = festvox.phrases(audio, 10, [*ends, (9.0, "t")])
    assert first.phones == ("k", "a")
    assert first.starts == (0.0, 1.0)
    assert first.audio.tolist() == list(range(10, 30))
    assert [one.phones for one in others] == [("s", "t")]  # a single phone is no phrase


def test_damaged_recordings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    folder = tmp_path / "festvox-ru" / "wav"
    folder.mkdir(parents=True)
    with wave.open(str(folder / "ru_0001.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
    with pytest.raises(DataUnavailable, match="festvox-ru has sha256"):
        speech_corpus("festvox-ru")


def test_without_debians_tools_real_speech_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(DataUnavailable, match="fetched with apt-get, which is not here"):
        speech_corpus("festvox-ru")


@pytest.mark.network
@network
def test_real_speech() -> None:
    corpus = speech_corpus("festvox-ru")
    assert len(corpus.alphabet) == 1 + 50
    count = sum(int(split.counts.sum()) for split in (corpus.train, corpus.valid, corpus.test))
    assert 50_000 < count <= 50_526
