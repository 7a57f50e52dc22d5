"""Tables that are looked up: methods by name, data sets, and how the published rows were made."""

from __future__ import annotations

from cliplab import list_methods
from cliplab.lab.attest import carried
from cliplab.lab.data.catalogue import list_data
from cliplab.lab.report.markdown import link, markdown
from cliplab.lab.report.published import Published

__all__ = ["data_table", "methods_table", "records_table"]


def methods_table() -> str:
    """Every published method that has a name."""
    return markdown(
        {
            "Name": f"`{method.name}`",
            "What it does": method.summary,
            "Parameters": ", ".join(f"{k}={v!r}" for k, v in method.parameters.items()),
            "Source": method.source,
        }
        for method in list_methods()
    )


def data_table() -> str:
    """Where each data set comes from, and what its licence asks."""
    return markdown(
        {
            "Data set": entry["name"],
            "Package": f"{entry['package']} {entry['version']}",
            "Licence": entry["licence"],
            "Know before use": entry["notice"],
        }
        for entry in list_data()
    )


def records_table(published: Published) -> str:
    """The commit of each record, and what of the code has changed since."""
    again = {f"{name}, replication": about for name, about in published.about_again.items()}
    abouts = {**published.about, **again}
    accepted = carried.accepted(abouts)
    rows = markdown(
        {
            "Notebook": link(*name.split(", "), root="../"),
            "Rows": carried.sentence(about),
            "Definitions changed since": carried.changes(about) or "none",
        }
        for name, about in abouts.items()
    )
    return f"{rows}\n\n## Accepted without a run\n\n{markdown(accepted)}" if accepted else rows
