"""Tiny Shakespeare, the text of char-rnn's and nanoGPT's character models; for `full` presets."""

from __future__ import annotations

from cliplab.lab.data.corpora import CharCorpus, alphabet_of, encode
from cliplab.lab.data.public import PublicFile, download

TINY_SHAKESPEARE = PublicFile(
    name="tinyshakespeare.txt",
    url=(
        "https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"
    ),
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    size=1_115_394,
    licence="public domain (the text); MIT (the repository)",
)


def shakespeare_corpus() -> CharCorpus:
    """40,000 lines of Shakespeare as character ids: 65 symbols, 1,115,394 characters.

    The first nine tenths train, as in nanoGPT; of its validation part, the last tenth, the first
    half validates and the second tests, so that a choice and its score never share a text.

    Raises `DataUnavailable` where the file can be neither found nor fetched.
    """
    text = download(TINY_SHAKESPEARE).read_text(encoding="utf-8")
    first, second = (int(len(text) * share) for share in (0.9, 0.95))
    parts = {"train": text[:first], "valid": text[first:second], "test": text[second:]}
    alphabet = alphabet_of(parts["train"], text, 96)
    ids = {split: encode(part, alphabet) for split, part in parts.items()}
    notice = f"Shakespeare's plays, from {TINY_SHAKESPEARE.url}"
    return CharCorpus("shakespeare", **ids, alphabet=alphabet, notice=notice)
