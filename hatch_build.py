"""The wheel's own copy of the notebooks; an editable install has those of the checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    """Puts notebooks and what is registered of them where ``cliplab notebooks`` looks for them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds a wheel."""
        if version != "editable":
            build_data["force_include"]["notebooks"] = "cliplab/collection"
            for path in Path(self.root, "records").glob("*.registration.json"):
                build_data["force_include"][str(path)] = f"cliplab/collection/{path.name}"
