"""The rooms of the package: what each may import, and what its header says of it."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room imports from earlier lines only. `cliplab` and `lab` are the faces of the whole and the
# lab, and the files in `lab` by whose names notebooks import.
ORDER = """
extras
checks plots
norms
parts thresholds
history
clipper functional
methods diagnosis
cliplab
integrations
lab.data
lab.training
lab.models lab.games
lab.notebook
lab.runs
lab.stats
lab.study
lab.claims
lab.across
lab.kernels
lab.batch
lab.attest
lab.executors
lab.report
lab.race
lab.session
lab
cli
"""
FLOOR = {room: i for i, line in enumerate(ORDER.split("\n")) for room in line.split()}
CORE = {room for room in FLOOR if FLOOR[room] < FLOOR["cliplab"]}
ROOMS = [room for room in FLOOR if room not in ("cliplab", "lab")]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): ast.parse(path.read_text()) for path in ROOT.glob("cliplab/**/*.py")}


def room_of(module: str) -> str:
    first, *more = module.split(".")[1:] or ["cliplab"]
    inner = f"lab.{more[0]}" if more else ""
    return inner if first == "lab" and inner in FLOOR else first


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Module and name (or "") of all that is imported of the package, wherever it stands."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in MODULES:
                    yield whole, ""
                elif node.module in MODULES:
                    yield node.module, alias.name


def modules_of(room: str) -> list[str]:
    return [module for module in MODULES if room_of(module) == room]


def test_every_module_stands_in_a_room_and_no_room_is_empty():
    assert {room_of(module) for module in MODULES} == set(FLOOR)


def test_imports_point_down():
    found = {
        f"{module} imports {target}"
        for module in MODULES
        for target, _ in imports(module)
        if room_of(target) != room_of(module) and FLOOR[room_of(target)] >= FLOOR[room_of(module)]
    }
    assert not found, "\n".join(sorted(found))


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: {target for target, _ in imports(module)} - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def private(name: str) -> bool:
    of_a_tuple = name in ("_replace", "_asdict", "_fields")  # a NamedTuple's public methods
    return name.startswith("_") and not name.startswith("__") and not of_a_tuple


def private_names(room: str) -> tuple[set[str], set[str]]:
    """The private names that a room defines, and those that it reads as attributes or imports."""
    defined, read = set(), set()
    for module in modules_of(room):
        read |= {name for target, name in imports(module) if room_of(target) != room}
        for node in ast.walk(MODULES[module]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.Attribute):
                (read if isinstance(node.ctx, ast.Load) else defined).add(node.attr)
    return set(filter(private, defined)), set(filter(private, read))


def test_no_room_reads_the_private_names_of_another():
    names = {room: private_names(room) for room in FLOOR}
    found = {
        f"{room} reads {name}, which is private to {other}"
        for room, (own, read) in names.items()
        for other, (theirs, _) in names.items()
        for name in (read - own) & theirs
    }
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize("room", ROOMS)
def test_the_header_of_a_room_is_true(room):
    text = ast.get_docstring(MODULES[f"cliplab.{room}"]) or ""
    assert text.split("\n")[0], "what is the room's question?"
    assert re.search(r"^Makes numbers: (yes|no)\.$", text, re.MULTILINE)
    stated = re.search(r"^May use: (.+?)\.$", text, re.MULTILINE | re.DOTALL)
    assert stated, "what may it use?"
    allowed = rooms_named(stated[1])
    assert {other for other in allowed if FLOOR[other] >= FLOOR[room]} - {room} == set()
    used = {room_of(target) for module in modules_of(room) for target, _ in imports(module)}
    assert used - allowed - {room} == set()


def rooms_named(text: str) -> set[str]:
    """The rooms of a list: names, and words for many of them."""
    groups = {"every room": set(FLOOR) - {"cli"}, "the core": CORE | {"cliplab"}}
    groups["every room of the lab"] = {r for r in FLOOR if r.startswith("lab.")} - {"lab.session"}
    groups |= {words: set() for words in ("nothing of the lab", "torch alone", "nothing")}
    allowed: set[str] = set()
    for name in re.split(r",\s+", text):
        room = f"lab.{name}" if f"lab.{name}" in FLOOR else name
        assert name in groups or room in FLOOR, f"no room {name!r}"
        allowed |= groups.get(name, {room})
    return allowed


def test_there_is_one_way_to_skip_for_want_of_a_package():
    """``tests/needs.py``: what skips in another way would skip unseen where all is installed."""
    other = re.compile(
        r"importorskip|skipif\([^)]*find_spec|except (ImportError|ModuleNotFoundError)"
    )
    for path in (ROOT / "tests").rglob("*.py"):
        assert path.name in ("needs.py", "test_house.py") or not other.search(path.read_text()), (
            path
        )


def test_no_file_is_over_300_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in ROOT.glob("cliplab/**/*.py")}
    assert {name_of(path): n for path, n in lengths.items() if n > 300} == {}
