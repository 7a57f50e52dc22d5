import sys

import pytest
import torch

from cliplab.lab.runs import device


def asked():
    device.device_type.cache_clear()
    return device.device_type()


@pytest.fixture(autouse=True)
def forget():
    yield
    device.device_type.cache_clear()


def test_torch_is_asked_where_it_is_imported_already(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert asked() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert asked() == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert asked() == "cpu"


def test_a_build_for_cpus_needs_no_torch(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(device, "_accelerator_possible", lambda: False)
    assert asked() == "cpu"
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("build", "platform", "files", "possible"),
    [
        ("2.13.0+cpu", "linux", ["nvidia0"], False),
        ("2.13.0+cpu", "linux", [], False),
        ("2.13.0", "linux", [], False),
        ("2.13.0", "linux", ["null", "tty1"], False),
        ("2.13.0", "linux", ["nvidiactl"], True),
        ("2.13.0+cu128", "linux", ["nvidia0"], True),
        ("2.13.0+cu128", "linux", ["dxg"], True),
        ("2.13.0+rocm7.0", "linux", ["kfd"], True),
        ("2.13.0", "darwin", [], True),
        ("2.13.0", "win32", [], True),
    ],
)
def test_where_an_accelerator_may_be(monkeypatch, tmp_path, build, platform, files, possible):
    monkeypatch.setattr(device, "version", lambda name: build)
    monkeypatch.setattr(device.sys, "platform", platform)
    for name in files:
        (tmp_path / name).touch()
    assert device._accelerator_possible(tmp_path) is possible
