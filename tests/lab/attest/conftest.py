from collections.abc import Callable
from pathlib import Path

import pytest
from attesting import Tiny


@pytest.fixture
def tiny(tmp_path: Path, make_notebook: Callable[..., Path], monkeypatch) -> Tiny:
    monkeypatch.setattr("cliplab.lab.attest.attest.device_type", lambda: "cpu")
    return Tiny(tmp_path / "repo", make_notebook)
