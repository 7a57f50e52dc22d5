"""Logs of TensorBoard: event files, read by tensorboard itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliplab.diagnosis.logs.columns import Columns
from cliplab.extras import require

MARK = "tfevents"  # in the name of every event file
NAMED = 4  # runs that a refusal names


def event_files(path: Path) -> list[Path]:
    """The event files of a run: the path, or what lies in this folder, or in one below it.

    ``ValueError`` for a folder with none, or with several runs.
    """
    if not path.is_dir():
        return [path]
    if found := sorted(path.glob(f"*{MARK}*")):
        return found
    below = sorted(path.rglob(f"*{MARK}*"))
    runs = sorted({file.parent for file in below})
    if not runs:
        raise ValueError("a folder without trainer_state.json or event files of TensorBoard")
    if len(runs) > 1:
        names = ", ".join(map(str, runs[:NAMED])) + (", …" if runs[NAMED:] else "")
        raise ValueError(f"a folder of {len(runs)} runs, name one: {names}")
    return below


def read_events(files: list[Path]) -> Columns:
    """Read the scalars of a run's event files.

    What a restarted run has taken back (``purge_step`` of a ``SummaryWriter``) is gone.
    ``ModuleNotFoundError`` without tensorboard.
    """
    require("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    where = files[0] if len(files) == 1 else files[0].parent
    events: Any = EventAccumulator(str(where), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    columns = Columns()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            columns.add({tag: event.value, "step": event.step})
    for tag in events.Tags()["tensors"]:  # so does TensorFlow write scalars
        described = events.summary_metadata.get(tag)
        if described is not None and described.plugin_data.plugin_name == "scalars":
            for event in events.Tensors(tag):
                columns.add({tag: float(make_ndarray(event.tensor_proto)), "step": event.step})
    return columns
