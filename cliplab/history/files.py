"""What leaves a history and comes back: files."""

from __future__ import annotations

import io
import zipfile
from array import array
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cliplab.history.ring import Ring, SomeRing
from cliplab.history.store import COLUMNS, LAST_STEP
from cliplab.history.tables import Value, read_csv

FORMAT = "cliplab history 1"
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def save(history: Ring, path: str | Path) -> None:
    """Write tensors, numbers and text only, with the checksums that ``load`` looks at."""
    state = {
        "format": FORMAT,
        "labels": history.labels,
        "scalar": history.scalar,
        "first_step": history.first_step,
        "max_bytes": history._max_bytes,
        "rows": history.rows.cpu(),
        "lr": history.lr,
        "counts": history.counts,
    }
    if history.measures_updates:
        state["update_norm"] = history.update_norm
    checked = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        with open(path, "wb") as file:
            torch.save(state, file)
    finally:
        torch.serialization.set_crc32_options(checked)


def load(path: str | Path, kind: type[SomeRing]) -> SomeRing:
    """Read what ``save`` or ``write_csv`` wrote: ``OSError`` if it cannot be read at all."""
    data = Path(path).read_bytes()
    try:
        if Path(path).suffix.lower() == ".csv":
            return read_csv(_decode(data), kind)
        return _read(_unpickle(data), kind)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not a table in UTF-8: {error.reason} at byte {error.start}") from None


def _unpickle(data: bytes) -> Any:
    """The content of a file of ``torch.save``, of which nothing is run."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()  # torch itself does not look
        if damaged is None:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # foreign readers fail in their own ways, and torch's advises to trust it
        pass
    raise ValueError("not a saved history: damaged, or no file of History.save")


def _read(state: Any, kind: type[SomeRing]) -> SomeRing:
    """The history of a state of ``save``, every field of which is what it must be."""
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError("not a saved history: expected a file of History.save")
    field = _Fields(state)
    rows, lrs = field.tensor("rows", 3), field.tensor("lr", 1)
    steps, columns, parts = rows.shape
    field.must("rows", columns == COLUMNS, f"{COLUMNS} columns")
    flags = rows[:, -2:]
    field.must("rows", not bool((rows[:, 0] < 0).any()), "norms >= 0")
    field.must("rows", bool(((flags == 0) | (flags == 1) | flags.isnan()).all()), "flags 0 or 1")
    field.must("lr", len(lrs) == steps, f"{steps} numbers, one for each step")
    updates: array[float] = array("d")
    if "update_norm" in state:
        norms = field.tensor("update_norm", 1)
        fine = len(norms) == steps and not bool((norms < 0).any())
        field.must("update_norm", fine, f"{steps} numbers >= 0, one for each step")
        updates.extend(norms.tolist())
    labels = field.of("labels", list)
    field.must("labels", all(type(label) is str for label in labels), "names")
    field.must("labels", not steps or len(labels) <= parts, f"names of {parts} parts")
    scalar = field.of("scalar", bool)
    field.must("scalar", not scalar or parts == 1, f"False for {parts} parts")
    history = kind(labels, scalar=scalar, max_bytes=field.whole("max_bytes", 1))
    history.first_step = field.whole("first_step", 0)
    history.extend(rows, array("d", lrs.tolist()), updates)
    if "counts" in state:
        try:
            history.count_from(state["counts"])
        except ValueError as error:
            raise ValueError(f"not a saved history: {error}") from None
    return history


class _Fields:
    """The fields of a saved state; ``ValueError`` for one that is not what it must be."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def must(self, name: str, fine: bool, expected: str) -> None:
        """Refuse a field that is not fine."""
        if not fine:
            raise ValueError(f"not a saved history: {name} must be {expected}")

    def of(self, name: str, kind: type[Value]) -> Value:
        """A field of just this type."""
        value = self._state.get(name)
        if type(value) is not kind:
            raise ValueError(f"not a saved history: {name} must be of type {kind.__name__}")
        return value

    def whole(self, name: str, least: int) -> int:
        """A field that is a whole number of at least so much."""
        number = self.of(name, int)
        self.must(name, least <= number <= LAST_STEP, f"a whole number >= {least}")
        return number

    def tensor(self, name: str, axes: int) -> Tensor:
        """A field that is a tensor of plain numbers, all of which the file held."""
        value = self.of(name, Tensor)
        fine = (
            value.layout is torch.strided
            and not value.is_nested
            and value.device.type == "cpu"
            and value.dtype in DTYPES
            and value.ndim == axes
            and value.is_contiguous()
        )
        self.must(name, fine, f"numbers on {axes} axes")
        return value.detach()
