"""Every public name says what its parameters are; the pages of the API hold all of them."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliplab.integrations import making

API = Path(__file__).parents[2] / "docs" / "api"
PAGES = {path.stem: path.read_text("utf-8") for path in API.glob("*.md")}
MODULES = ("cliplab", "cliplab.functional", "cliplab.thresholds", "cliplab.plots", "cliplab.lab")
# By name: their modules import the frameworks, so the files are read instead.
INTEGRATIONS = Path(making.__file__).parent
TRAINERS = {
    "accelerate": "attach",
    "ignite": "attach",
    "keras": "Clip",
    "lightning": "Clip",
    "skorch": "Clip",
    "stable_baselines3": "Clip",
    "transformers": "ClippingTrainer",
}
SHOWN = re.compile(r"^\.\. auto(?:class|function|exception):: ([\w.]+)\n(   :members:)?", re.M)
ARGUMENTS = re.compile(r"^Args:\n((?:(?: +.*)?\n)*)", re.MULTILINE)


def public() -> Iterator[tuple[str, str, Any]]:
    """Module, name and thing, each thing once."""
    seen: set[int] = set()
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            thing = getattr(module, name)
            if id(thing) not in seen:
                seen.add(id(thing))
                yield module.__name__, name, thing


def documented(thing: Any) -> set[str]:
    """The parameters that a docstring lists."""
    found = ARGUMENTS.search((inspect.getdoc(thing) or "") + "\n")
    lines = re.findall(r"^    (\w[\w, ]*):", found[1], re.MULTILINE) if found else []
    return {name for line in lines for name in line.split(", ")}


def parameters(thing: Any) -> set[str]:
    """The parameters of a function, or of what makes an object of a class."""
    return {name for name in inspect.signature(thing).parameters if name != "self"}


def is_described(thing: Any) -> bool:
    """Whether it is ours and has a signature: no type, constant, module or error."""
    ours = getattr(thing, "__module__", "").startswith("cliplab.")
    plain = inspect.isfunction(thing) or inspect.isclass(thing)
    of_no_use = inspect.isclass(thing) and (
        issubclass(thing, Exception) or getattr(thing, "_is_protocol", False)
    )
    return ours and plain and not of_no_use


DESCRIBED = [(f"{m}.{name}", thing) for m, name, thing in public() if is_described(thing)]


def test_there_is_something_to_describe():
    assert len(DESCRIBED) > 60


@pytest.mark.parametrize("thing", [pytest.param(t, id=name) for name, t in DESCRIBED])
def test_a_public_name_lists_its_parameters(thing):
    assert documented(thing) == parameters(thing)


def shown() -> dict[str, bool]:
    """Names of the pages, with their modules, and whether their members are shown."""
    found = {}
    for text in PAGES.values():
        module = re.search(r"currentmodule:: (\S+)", text)
        for name, members in SHOWN.findall(text):
            whole = name if name.startswith("cliplab.") else f"{module[1]}.{name}"
            found[whole] = bool(members)
    return found


def test_every_public_name_stands_on_a_page():
    pages, words = shown(), " ".join(PAGES.values())
    missing = [
        f"{module}.{name}"
        for module, name, thing in public()
        if f"{module}.{name}" not in pages and (is_described(thing) or f"`{name}`" not in words)
    ]
    assert not missing
    assert {f"cliplab.integrations.{m}.{name}" for m, name in TRAINERS.items()} <= set(pages)


@pytest.mark.parametrize("name", [name for name, members in shown().items() if members])
def test_the_members_that_a_page_shows_name_their_parameters(name):
    module, _, attribute = name.rpartition(".")
    for key, member in vars(getattr(importlib.import_module(module), attribute)).items():
        function = getattr(member, "__func__", member)
        if not key.startswith("_") and inspect.isfunction(function):
            said = (inspect.getdoc(function) or "") + "\n"
            unsaid = {
                parameter
                for parameter in parameters(function) - documented(function)
                if not re.search(rf"``{parameter}\b|\b{parameter}\b[^`]*``", said)
            }
            assert not unsaid, f"{name}.{key}"


@pytest.mark.parametrize("module", TRAINERS)
def test_a_trainers_module_lists_its_parameters(module):
    import ast

    tree = ast.parse((INTEGRATIONS / f"{module}.py").read_text("utf-8"))
    (thing,) = [n for n in tree.body if getattr(n, "name", "") == TRAINERS[module]]
    made = thing
    if isinstance(thing, ast.ClassDef):
        (made,) = [n for n in thing.body if getattr(n, "name", "") == "__init__"]
    given = made.args
    names = {a.arg for a in (*given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a}
    text = ARGUMENTS.search(inspect.cleandoc(ast.get_docstring(thing)) + "\n")[1]
    listed = re.findall(r"^    (\w[\w, ]*):", text, re.MULTILINE)
    assert {n for line in listed for n in line.split(", ")} == names - {"self"}
