"""An executed notebook cut to what a page can show: no output is too long, no figure is halved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.lab.batch.lastline import to_see

MOST_TEXT = 100_000  # characters that a page shows of a cell's outputs
MOST_TEXTS = 400_000  # and of all of them
MOST_WHOLE = 8_000_000  # characters of figures, tables and the like, which cannot be cut
EACH = 300  # what an output adds to a page, beside its text
CUT = "text/plain"  # what else there is of an output is shown whole or not at all


def fit(notebook: Mapping[str, Any], path: Path) -> None:
    """Join the pieces of streams and cut outputs, in place; notes say where the rest is."""
    texts, whole = MOST_TEXTS, MOST_WHOLE
    for cell in notebook["cells"]:
        if outputs := cell.get("outputs"):
            room = _Room(min(MOST_TEXT, texts), whole, path)
            cell["outputs"] = room.fit(_joined(outputs))
            texts -= min(MOST_TEXT, texts) - room.text
            whole = room.whole


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Consecutive pieces of one stream as one; of a line that is overwritten, its last state."""
    pieces: list[tuple[dict[str, Any], list[str]]] = []
    for output in outputs:
        stream = output.get("name") if output.get("output_type") == "stream" else None
        if stream and pieces and pieces[-1][0].get("name") == stream:
            pieces[-1][1].append(output["text"])
        else:
            pieces.append((output, [output["text"]] if stream else []))
    return [
        output | {"text": to_see("".join(texts)).replace("\r", "")} if texts else output
        for output, texts in pieces
    ]


class _Room:
    """What is left of a cell's share of the page."""

    def __init__(self, text: int, whole: int, path: Path) -> None:
        self.text, self.whole, self._path = text, whole, path

    def fit(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As many of the outputs as there is room for."""
        fitting = []
        for i, output in enumerate(outputs):
            if self.text < EACH:
                fitting.append(_said(self._note(f"{len(outputs) - i:,} more outputs")))
                break
            self.text -= EACH
            fitting += self._fitted(output)
        return fitting

    def _fitted(self, output: dict[str, Any]) -> list[dict[str, Any]]:
        """An output cut to size, and a note in place of what was left out of it."""
        if output.get("output_type") == "stream":
            return [output | {"text": self._cut(output["text"])}]
        if "traceback" in output:
            return [output | {"traceback": self._cut("\n".join(output["traceback"])).split("\n")}]
        data = output.get("data", {})
        kept = {kind: content for kind, content in data.items() if self._has_room(kind, content)}
        if isinstance(kept.get(CUT), str):
            kept[CUT] = self._cut(kept[CUT])
        left_out = ", ".join(f"{kind} of {len(data[kind]):,}" for kind in data if kind not in kept)
        notes = [_said(self._note(f"{left_out} characters"))] if left_out else []
        return [output | {"data": kept}, *notes]

    def _has_room(self, kind: str, content: Any) -> bool:
        if not isinstance(content, str) or kind == CUT:
            return True
        fits = len(content) <= self.whole
        self.whole -= len(content) if fits else 0
        return fits

    def _cut(self, text: str) -> str:
        room, self.text = self.text, max(0, self.text - len(text))
        if len(text) <= room:
            return text
        return f"{text[:room]}\n{self._note(f'{len(text) - room:,} more characters')}\n"

    def _note(self, what: str) -> str:
        return f"[… {what} in {self._path}]"


def _said(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": f"{text}\n"}
