"""What was measured again: whole records, and studies on other draws and seeds."""

from __future__ import annotations

from cliplab.lab.report.markdown import link, markdown
from cliplab.lab.report.published import Published, holds

__all__ = ["remeasured"]


def remeasured(published: Published) -> str:
    """Records measured again in full, those that were drawn first; nothing without one."""
    measured = {name: about for name, about in published.about.items() if "remeasured" in about}
    if not measured:
        return ""
    by_draw = sorted(measured.items(), key=lambda item: not item[1]["remeasured"]["drawn_of"])
    return markdown(
        {
            "Notebook": link(name),
            "Chosen": _chosen(about["remeasured"]),
            "By the same parameters and seeds": _rows(about["remeasured"]),
            "On other draws and seeds": _replicated(published, name),
        }
        for name, about in by_draw
    )


def _chosen(found: dict[str, object]) -> str:
    by = f"the commit {str(found['commit'])[:12]}, {found['date']}"
    return f"drawn from {found['drawn_of']} by {by}" if found["drawn_of"] else f"by name, at {by}"


def _rows(found: dict[str, object]) -> str:
    if difference := found["difference"]:
        return f"**not the same**: {difference}"
    return f"all {found['n_rows']} rows the same, to the last bit"


def _replicated(published: Published, name: str) -> str:
    told = [
        f"`{verdict.id}`: {holds(verdict, replication)}"
        for verdict in published.verdicts.get(name, ())
        if (replication := published.again.get(verdict.id))
    ]
    return "; ".join(told) or "–"
