"""The words of the trade, each explained once: every page that explains one draws on this list."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cliplab.lab.report.markdown import markdown

__all__ = ["HOW_SURE", "PARTS", "REASONS", "WORDS", "glossary", "linked", "slug", "terms_cell"]

KINDS = {
    "identity": "true by algebra, and compared bit for bit in every row",
    "demonstration": "an effect at a setting that was chosen to show it: an interval, no verdict",
    "share": "how often something is so among the cases that were counted: an interval, no verdict",
    "estimate": (
        "a comparison measured again at another size of its model: intervals, no verdict, "
        "and no part of Holm's correction"
    ),
    "comparison": (
        "each way at its best against the other at its best; only comparisons get a verdict, "
        "about the way named first"
    ),
    "a/a": "a way against itself: what comes out is noise",
}
OUTCOMES = {
    "helps": (
        "its loss is lower by at least the margin, or it fails less often by at least the failure "
        "margin; the other of the two is not worse; chance is ruled out"
    ),
    "harms": (
        "its loss is higher by at least the margin, or it fails more often by at least the failure "
        "margin; the other of the two is not better; chance is ruled out"
    ),
    "no matter": (
        "both differences are smaller than their margins, and a control shows that a difference "
        "would have been seen"
    ),
    "unclear": "neither helps, harms nor no matter; the reason is given",
    "holds": "an identity that is so in every row",
    "fails": "an identity that is not so in some row",
    "shown": "a demonstration, a share or an estimate that was measured: an interval, no verdict",
    "no verdict": "measured, in a setting that the question does not speak of, or too short for it",
    "not run": "there are no runs that could answer it",
    "withdrawn": "claimed once, and being redone",
    "small": "of a study with few configurations and seeds, as in a quick run: decides nothing",
}
REASONS = {
    "mixed": "loss and failures speak for different ways",
    "loss wide": "the loss may differ by more than the margin, and that is not certain",
    "failures wide": "failures may differ by more than their margin, and that is not certain",
    "control": "the handicapped rival was not told apart as it should have been",
    "edge": "the best configurations lie at an edge of the space",
    "below margin": "a difference was shown, and not that it is as large as the margin",
}
GRADES = {  # surest first
    "replicated": "a registered comparison that was decided and holds on other draws and seeds",
    "decided": "a registered comparison with an answer, which was not repeated yet",
    "not replicated": "decided, and not so on other draws and seeds",
    "undecided": "a comparison whose answer is unclear",
    "description": (
        "at a setting that was chosen, or over cases that were counted: without a verdict"
    ),
    "superseded": "measured with code that was mended since; the run is pending",
    "not measured": "no run of it is published",
}
TERMS = {
    "way": "a way of training: no clipping (none), the norm clipped (norm), another rule",
    "configuration": (
        "one choice of everything that is tuned: a learning rate and, with clipping, a threshold"
    ),
    "draw": (
        "how configurations come about: points spread over the whole space, the same for all ways"
    ),
    "arm": "a label in the record: all runs of one kind",
    "seed": (
        "the number that fixes weights and batches; a run is one configuration at one seed, and "
        "fresh seeds were used for nothing before"
    ),
    "screening": "the first stage of a study: every configuration, few seeds",
    "finalists": (
        "each way's best configurations of the screening, by validation loss; they get fresh seeds"
    ),
    "pick": "one of a way's three best finalists; more fresh seeds count how often it fails",
    "failures": (
        "runs that diverged, are no better than chance, or lost: beyond a line set in advance; "
        "none is dropped"
    ),
    "loss given success": "mean test loss of the runs that did not fail; failures count apart",
    "best of k": (
        "what to expect of someone who tries k configurations (a third of all) and keeps the best: "
        "the loss that ways are compared by"
    ),
    "nats": "the unit of a log loss; 0.05 nats lower is 5 % lower perplexity",
    "margin": "the smallest difference that would change what a user does, set in advance",
    "interval": "90 %: the differences that the runs do not rule out",
    "Holm p": (
        "the p value after Holm's correction for many comparisons: each is multiplied, the "
        "smallest by the number of comparisons"
    ),
    "control": (
        "the rival with a handicap that tuning cannot undo, such as less training: a study that "
        "does not see it cannot say no matter"
    ),
    "usable range": "how many powers of ten of learning rates train well",
    "regret": "how much worse a choice was than the best one possible",
    "diverged": "runs whose loss or gradient was no longer finite",
    "median norm": "of the gradient over a run's steps, before clipping",
    "clip fraction": "the share of steps whose gradient was above the threshold",
    "excess": "by how much the norm stood above the threshold, averaged over all steps",
}
PARTS = {
    "Kinds of statement": KINDS,
    "Answers": OUTCOMES,
    "Why an answer is unclear": {f"unclear ({reason})": told for reason, told in REASONS.items()},
    "How sure an answer is": GRADES,
    "Terms": TERMS,
}
WORDS = {word: told for part in PARTS.values() for word, told in part.items()}
_TERMS = "## The terms of the other notebooks"
_RULE = "The rule in steps, with its error rates: [docs/study.md](../docs/study.md)."
HOW_SURE = (
    "How sure: "
    + "; ".join(f"*{word}*, {WORDS[word]}" for word in ("identity", *GRADES))
    + ". Several words count the claims that an answer rests on."
)


def slug(word: str) -> str:
    """The anchor of a word, as forges and the site make it of a heading.

    >>> slug("Holm p"), slug("a/a"), slug("unclear (loss wide)")
    ('holm-p', 'aa', 'unclear-loss-wide')
    """
    return re.sub(r"[^a-z -]", "", word.lower()).replace(" ", "-")


def linked(word: str, root: str = "", text: str = "") -> str:
    """A word in Markdown that leads to the glossary; ``root`` leads there from the page's folder.

    >>> linked("margin", "../")
    '[margin](../docs/glossary.md#margin)'
    """
    return f"[{text or word}]({root}docs/glossary.md#{slug(word)})"


def glossary() -> str:
    """All words with a heading each, which can be linked to."""
    lines: list[str] = []
    for title, part in PARTS.items():
        lines += [f"## {title}", *(f"### {word}\n\n{_sentence(part[word])}" for word in part)]
    return "\n\n".join(lines)


def terms_cell() -> str:
    """The cell of a notebook that explains the words of the others."""
    told = (f"**{title}**\n\n{_table(part.items())}" for title, part in PARTS.items())
    return "\n\n".join([_TERMS, *told, _RULE])


def _table(words: Iterable[tuple[str, str]]) -> str:
    return markdown({"Word": f"**{word}**", "Meaning": told} for word, told in words)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
