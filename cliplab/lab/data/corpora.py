"""Texts for character-level language models, and random windows of them."""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cliplab.lab.data.choose import choose
from cliplab.lab.data.fetch import DataSet, fetch

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

WIKIPEDIA = DataSet(
    name="wikipedia",
    package="exllamav2",
    version="0.3.2",
    member="exllamav2/conversion/standard_cal_data/wiki.utf8",
    sha256="d53fe0aeadf3355eb5d32b48bf8691575244c31caccae88ed46be8e1b40209c7",
    size=1_519_385,
    licence="CC BY-SA (the text); MIT (the package)",
    notice=(
        "2,349 articles of the English Wikipedia, by its contributors, under CC BY-SA; "
        "the file names each article's title and URL."
    ),
)
PENN_TREEBANK = DataSet(
    name="penn",
    package="treebank",
    version="0.0.0",
    member="treebank/__init__.py",
    sha256="e0c3a6cf27974ead9c1842998785678e26d98bf93a9c0babf27b41bc423573e4",
    size=1_992_263,
    licence="not free: Linguistic Data Consortium (LDC99T42); the package states none",
    notice=(
        "The Penn Treebank text (Mikolov's preprocessing) is the property of the Linguistic Data "
        "Consortium and its sources; whether you may use it depends on your LDC licence."
    ),
)


@dataclass(frozen=True, eq=False)
class CharCorpus:
    """A text as character ids: `train`, `valid`, `test` are [N] int64; id i is `alphabet[i]`."""

    name: str
    train: Tensor
    valid: Tensor
    test: Tensor
    alphabet: str
    notice: str

    @property
    def vocab(self) -> int:
        """The number of symbols; a chance predictor scores ln(vocab) nats a character."""
        return len(self.alphabet)

    def decode(self, ids: Tensor) -> str:
        """The text of ids [N]."""
        return "".join(self.alphabet[i] for i in ids.tolist())


def char_corpus(name: str = "wikipedia", *, vocab_size: int = 96) -> CharCorpus:
    """A text with its splits as character ids: `wikipedia`, `penn` (opt-in) or `fixture`.

    * `wikipedia`: of every 20 articles 18 train, one validates, one tests (90/5/5).
    * `penn`: the literature's splits (5,017k/393k/442k characters, 50 symbols), lines stripped of
      the blanks around them; prints the notice that the data are LDC's.
    * `fixture`: about 100 kB made here by a small grammar (number agreement across nested phrases,
      skewed word frequencies); needs no network. For smoke tests, not for claims.

    Alphabet: all characters of the training text where they are at most `vocab_size` and no other
    split has more; else the `vocab_size - 1` most frequent of the training text (ties: lower code
    point first), and last the symbol U+FFFD, which stands for all others.

    Raises `ValueError` for an unknown name, `DataUnavailable` where the text cannot be fetched.
    """
    read = choose({"wikipedia": _wikipedia, "penn": _penn, "fixture": _fixture}, name, "corpus")
    if vocab_size < 2:
        raise ValueError(
            f"vocab_size must be at least 2, a character and the unknown: {vocab_size}"
        )
    texts, notice = read()
    alphabet = alphabet_of(texts["train"], "".join(texts.values()), vocab_size)
    ids = {split: encode(text, alphabet) for split, text in texts.items()}
    return CharCorpus(name, **ids, alphabet=alphabet, notice=notice)


def windows(ids: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Pieces of the text `ids` [N] from `starts` [...] on, and the characters to predict.

    Returns: inputs [..., length] and targets [..., length], which are one character further on.
    Any leading shape will do: `starts` [seeds, B] serves all members of an ensemble that share a
    seed with one copy of the data.

    >>> windows(torch.arange(10), torch.tensor([0, 6]), 3)
    (tensor([[0, 1, 2], [6, 7, 8]]), tensor([[1, 2, 3], [7, 8, 9]]))
    """
    last = _last_start(ids, length)
    if starts.numel() and not 0 <= int(starts.min()) <= int(starts.max()) <= last:
        raise ValueError(
            f"starts must be in 0..{last}: {int(starts.min())}..{int(starts.max())}, "
            f"for windows of {length} in {ids.numel()} characters"
        )
    offsets = torch.arange(length + 1, device=ids.device)
    spans = ids[starts.to(ids.device).unsqueeze(-1) + offsets]
    return spans[..., :-1], spans[..., 1:]


def batches(
    ids: Tensor,
    *,
    length: int,
    batch: int,
    steps: int,
    generator: torch.Generator | Sequence[torch.Generator],
) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` batches of uniformly random windows of the text `ids` [N].

    Yields: inputs and targets, [B, length]; for a list of generators, one a seed,
    [seeds, B, length], where each seed sees what it would see alone.
    """
    count = _last_start(ids, length) + 1

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randint(count, (batch,), generator=generator, device=generator.device)

    for _ in range(steps):
        if isinstance(generator, torch.Generator):
            starts = draw(generator)
        else:
            starts = torch.stack([draw(one) for one in generator])
        yield windows(ids, starts, length)


def _last_start(ids: Tensor, length: int) -> int:
    if not 0 < length < ids.numel():
        raise ValueError(f"length must be in 1..{ids.numel() - 1}, below the text's: {length}")
    return ids.numel() - length - 1


def alphabet_of(train: str, everything: str, vocab_size: int) -> str:
    """The symbols of a text whose training part is ``train``; see :func:`char_corpus`."""
    counts = Counter(train)
    del counts[UNKNOWN]
    if len(counts) <= vocab_size and counts.keys() >= set(everything):
        return "".join(sorted(counts))
    ranked = sorted(counts, key=lambda c: (-counts[c], c))
    return "".join(sorted(ranked[: vocab_size - 1])) + UNKNOWN


def encode(text: str, alphabet: str) -> Tensor:
    """Ids of the characters, [N]; of those not in the alphabet, that of its last symbol."""
    table = torch.full((sys.maxunicode + 1,), len(alphabet) - 1)  # others: the last, the unknown
    table[_code_points(alphabet)] = torch.arange(len(alphabet))
    return table[_code_points(text)]


def _code_points(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32).long()


Splits = dict[str, str]  # train, valid, test


def _ninety_five_five(parts: Sequence[str], joint: str) -> Splits:
    """Of every 20 parts the 19th validates and the 20th tests: all splits cover the whole text."""
    train = [part for i, part in enumerate(parts) if i % 20 < 18]
    splits = {"train": train, "valid": parts[18::20], "test": parts[19::20]}
    return {split: joint.join(chosen) for split, chosen in splits.items()}


def _wikipedia() -> tuple[Splits, str]:
    text = fetch(WIKIPEDIA).read_text(encoding="utf-8")
    articles = re.findall(r"<doc [^\n]*>\n(.*?)</doc>", text, flags=re.DOTALL)
    return _ninety_five_five([article.strip() for article in articles], "\n\n"), WIKIPEDIA.notice


def _penn() -> tuple[Splits, str]:
    print(PENN_TREEBANK.notice)
    # The module says penn['train'] = """…"""; read as text, never executed. Its backslashes ("\\/")
    # are escapes that Python does not know, so each stands for itself.
    source = fetch(PENN_TREEBANK).read_text(encoding="utf-8")
    found = re.findall(r"penn\['(\w+)'\] = \"{3}(.*?)\"{3}", source, flags=re.DOTALL)
    texts = {
        split: "".join(f"{line.strip()}\n" for line in text.strip().split("\n"))
        for split, text in found
    }
    return texts, PENN_TREEBANK.notice


def _fixture() -> tuple[Splits, str]:
    uniform = random.Random(0).random  # the one part of `random` that never changes

    def pick(words: str) -> str:
        choices, u = words.split(), uniform()
        return choices[int(len(choices) * u * u)]  # the first words are frequent, the last rare

    def phrase(plural: bool) -> str:
        noun = pick("river clock garden window teacher engine letter mountain pilot violin")
        return f"the {pick('old small red quiet bright wooden heavy')} {noun}{'s' * plural}"

    def sentence() -> str:
        plural = uniform() < 0.5
        text = phrase(plural)
        while uniform() < 0.3:  # the verb agrees with a noun that gets further and further away
            text += f" {pick('near behind above without')} {phrase(uniform() < 0.5)}"
        verb = pick("sleep sing wait turn appear vanish") + "s" * (not plural)
        return f"{text} {verb} {pick('slowly again tonight forever')}.".capitalize()

    return _ninety_five_five([sentence() for _ in range(2_500)], "\n"), "generated by cliplab"
