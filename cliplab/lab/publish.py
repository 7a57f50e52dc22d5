"""The published results: tidy rows under ``records/``, and what README and RESULTS.md say of them.

``python -m cliplab.lab.publish`` regenerates both files from ``records/`` alone.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliplab.lab import tables
from cliplab.lab.calibration import calibrate
from cliplab.lab.claims import Claim, Verdict, judge_all, load_ledger
from cliplab.lab.runs import RunRecord, union_rows

Scalar = bool | int | float | str | None
_BEGIN, _END = "<!-- results:begin -->", "<!-- results:end -->"
_NOTE = "generated from `records/` by `python -m cliplab.lab.publish`; do not edit"
_KEPT = ("git_sha", "git_dirty", "versions", "hardware", "threads", "kernel")
_WORDS: dict[str, Scalar] = {"": None, "true": True, "false": False}


def publish(
    records: Sequence[RunRecord], root: Path, ledger: Mapping[str, Claim] | None = None
) -> list[Path]:
    """Write the `verdict` records to ``root/records/`` and regenerate; the files that changed.

    A notebook run in several parts (split seeds) becomes one file. ValueError: nothing of the
    `verdict` preset, or parts of one notebook that froze different choices.
    """
    notebooks: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.preset == "verdict":
            notebooks[record.notebook].append(record)
    if not notebooks:
        presets = sorted({record.preset for record in records})
        raise ValueError(f"presets = {presets}, expected records of the verdict preset to publish")
    wanted = {}
    for name, parts in notebooks.items():
        parts.sort(key=lambda part: part.params.get("first_seed", 0))
        wanted[root / "records" / f"{name}.csv"] = write_rows(union_rows(parts))
        wanted[root / "records" / f"{name}.json"] = _summary(name, parts)
    return _write(wanted) + regenerate(root, ledger)


def regenerate(root: Path, ledger: Mapping[str, Claim] | None = None) -> list[Path]:
    """Bring RESULTS.md and the table in README.md in step with ``records/``; what changed."""
    return _write(_generated(root, ledger))


def stale(root: Path, ledger: Mapping[str, Claim] | None = None) -> list[str]:
    """Names of the generated files that differ from what ``records/`` gives."""
    return [path.name for path, text in _generated(root, ledger).items() if _read(path) != text]


def write_rows(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV in a stable order, every value such that `read_rows` restores it exactly.

    >>> write_rows([{"arm": "clip 1", "seed": 2000, "loss": 0.1, "ok": True}])
    'arm,seed,loss,ok\\nclip 1,2000,0.1,true\\n'
    """
    rows = sorted(rows, key=lambda row: (row["arm"], row["seed"]))
    columns = ["arm", "seed", *sorted({c for row in rows for c in row} - {"arm", "seed"})]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_encode(row.get(column)) for column in columns] for row in rows])
    return text.getvalue()


def read_rows(text: str) -> list[dict[str, Any]]:
    """The rows of `write_rows`; a column that a row did not have is None."""
    header, *lines = csv.reader(text.splitlines(keepends=True))
    return [dict(zip(header, map(_decode, line), strict=True)) for line in lines]


def _encode(value: Any) -> str:
    if isinstance(value, str):  # quoted only where it would read as something else
        plain = value.isprintable() and not value.startswith('"')
        return value if plain and _decode(value) == value else json.dumps(value)
    if not isinstance(value, Scalar):
        raise TypeError(f"{value!r} in a row, expected text, a number, a boolean or None")
    return next((w for w, v in _WORDS.items() if v is value), repr(value))


def _decode(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith('"'):
        return str(json.loads(text))
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def _summary(name: str, parts: list[RunRecord]) -> str:
    """Choices, parameters and provenance of one notebook's runs, as JSON."""
    from cliplab.lab.pages import read_notebook, title_and_question

    first = parts[0]
    if any((part.choices, part.code_key) != (first.choices, first.code_key) for part in parts):
        raise ValueError(f"the runs of {name} differ in code or in frozen choices; run them again")
    title, question = title_and_question(read_notebook(first.directory))
    provenance = [part.provenance for part in parts]
    params = {k: v for k, v in first.params.items() if all(p.params.get(k) == v for p in parts)}
    seeds = {
        "first_seed": first.params.get("first_seed"),
        "n_seeds": sum(part.params.get("n_seeds", 0) for part in parts),
    }
    summary = {
        "title": title,
        "question": question,
        "preset": "verdict",
        "params": params | seeds,
        "choices": first.choices,
        "code_key": first.code_key,
        "provenance": {key: provenance[0].get(key) for key in _KEPT}
        | {"finished": max(str(p.get("finished", "")) for p in provenance)[:10]}
        | {key: round(sum(p.get(key) or 0 for p in provenance), 1) for key in ("wall_s", "cpu_s")},
    }
    return json.dumps(summary, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _generated(root: Path, ledger: Mapping[str, Claim] | None) -> dict[Path, str]:
    ledger = load_ledger() if ledger is None else ledger
    rows, about = {}, {}
    for path in sorted((root / "records").glob("*.csv")):
        rows[path.stem] = read_rows(path.read_text(encoding="utf-8"))
        about[path.stem] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    verdicts = judge_all(rows, "verdict", ledger)
    readme = root / "README.md"
    return {
        root / "RESULTS.md": _results(verdicts, about, ledger),
        readme: _between(readme, _read(readme), _overview(verdicts, about)),
    }


def _results(
    verdicts: Sequence[Verdict], about: dict[str, dict[str, Any]], ledger: Mapping[str, Claim]
) -> str:
    claims = [
        {
            "Claim": v.id,
            "Statement": v.statement,
            "Verdict": v.verdict,
            "Effect [90 % interval]": tables.effect(v),
            "n": tables.number(v.n),
            "Holm p": tables.p_value(v.p_holm),
            "Margin": f"{tables.number(v.margin)} {v.unit or ''}" if v.margin else "–",
            "Literature": ledger[v.id].expected,
            "Counter-evidence": ledger[v.id].counter,
            "Notebook": _link(v.notebook),
            "Note": v.note,
        }
        for v in verdicts
    ]
    runs = [
        {"Notebook": _link(name)} | {k: str(v) for k, v in tables.flat(entry["provenance"]).items()}
        for name, entry in about.items()
    ]
    choices = [
        {"Notebook": _link(name), "Choice": key, "Value": value}
        for name, entry in about.items()
        for key, value in tables.flat(entry["choices"]).items()
    ]
    sections = {
        "Claims": markdown(claims),
        "How far to trust the verdicts": "\n".join(f"* {line}" for line in calibrate().lines()),
        "Choices frozen on the tuning seeds": markdown(choices),
        "Provenance": markdown(runs),
    }
    body = "\n".join(f"## {title}\n{text or 'None yet.'}\n" for title, text in sections.items())
    return f"<!-- {_NOTE} -->\n# Results\n\n{body}"


def _overview(verdicts: Sequence[Verdict], about: dict[str, dict[str, Any]]) -> str:
    return markdown(
        [
            {
                "Notebook": _link(name),
                "Question": entry["question"],
                "Claims": ", ".join(f"{v.id} {v.verdict}" for v in verdicts if v.notebook == name),
            }
            for name, entry in about.items()
        ]
    )


def _link(notebook: str) -> str:
    return f"[{notebook}](notebooks/{notebook}.ipynb)"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Dictionaries as a Markdown table; nothing for no rows.

    >>> print(markdown([{"a": "x | y", "b": 1}]))
    | a | b |
    | --- | --- |
    | x \\| y | 1 |
    """
    if not rows:
        return ""
    columns = dict.fromkeys(column for row in rows for column in row)
    lines = [columns, ["---"] * len(columns), *([row.get(c, "–") for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = " ".join(str(value if value is not None else "").split())
    return text.replace("|", "\\|").replace("<", "&lt;")


def _between(path: Path, text: str | None, table: str) -> str:
    """The README with everything between its markers replaced."""
    if text is None or text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise ValueError(f"{path}: expected one {_BEGIN} and, after it, one {_END}")
    head, rest = text.split(_BEGIN)
    tail = rest[rest.index(_END) :]
    return f"{head}{_BEGIN}\n<!-- {_NOTE} -->\n\n{table or 'No results yet.'}\n\n{tail}"


def _read(path: Path) -> str | None:
    return path.read_bytes().decode() if path.exists() else None  # line ends as they are


def _write(wanted: dict[Path, str]) -> list[Path]:
    changed = [path for path, text in wanted.items() if _read(path) != text]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[path].encode())
    return changed


if __name__ == "__main__":
    for changed in regenerate(Path.cwd()):
        print(changed)
