"""The wheel's own copy of the notebooks; an editable install has those of the checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    """Puts notebooks, registrations and their published rows where the lab looks for them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds a wheel."""
        if version != "editable":
            build_data["force_include"]["notebooks"] = "cliplab/collection"
            for path in Path(self.root, "records").glob("*.registration.json"):
                rows = path.with_name(path.name.replace(".registration.json", ".csv"))
                for file in filter(Path.exists, (path, rows)):
                    build_data["force_include"][str(file)] = f"cliplab/collection/{file.name}"
