"""What holds for all tests of the command line."""

import pytest


@pytest.fixture(autouse=True)
def no_hash_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nanny of Dask that was started in this process leaves one, and batches tell of it."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
