"""The project's own files: versions in step, notebooks clean, nothing too large."""

import contextlib
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import nbformat
import pytest
import yaml
from checkouts import committed
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cliplab
from cliplab.lab.notebook.parameters import read_parameters
from cliplab.lab.notebook.presets import preset_params, read_presets

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EFFORT = {"budget", "extensions", "iterations", "looks", "match_plies", "n_finalists"}
EFFORT |= {"noise_batches", "pairs", "refinements", "rounds", "scored", "tail"}
CONDA = {"torch": "pytorch", "arch": "arch-py", "gymnasium[box2d]": "gymnasium"}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKED = dict(
    line.split("==")
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if not line.startswith("#")
)


def test_environment_yml_is_in_step_with_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(item["pip"] for item in listed if isinstance(item, dict))
    flat = [item for item in [*listed, *pip] if isinstance(item, str)]
    found = {name: least for name, _, least in (item.partition(">=") for item in flat)}
    peers = ("parity", "integrations", "docs", "browser")  # no part of it
    ours = [extra for name, extra in EXTRAS.items() if name not in peers]
    for requirement in (item for group in [PROJECT["dependencies"], *ours] for item in group):
        name, _, least = requirement.partition(">=")
        name = CONDA.get(name, name.lower())
        assert name in found, f"{name} is missing from environment.yml"
        assert found[name] == least, name


def test_package_citation_and_changelog_agree_on_the_release():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cliplab.__version__ == PROJECT["version"]
    assert cited["version"] == cited["preferred-citation"]["version"] == PROJECT["version"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == f"{PROJECT['version']} - {cited['date-released']}"


def test_every_requirement_and_what_it_brings_is_locked():
    """Followed as far as what is installed here is what the lock says."""
    assert LOCKED["torch"] == "2.13.0"
    assert not any("+" in version for version in LOCKED.values())
    locked = {canonicalize_name(name): version for name, version in LOCKED.items()}
    groups = [PROJECT["dependencies"], *EXTRAS.values()]
    todo = {(item, "") for group in groups for item in group}
    done = {(name, "") for name in ("pip", "setuptools")}
    while todo:
        item, extra = todo.pop()
        requirement = Requirement(item)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        wanted = {(name, extra) for extra in requirement.extras or {""}} - done
        done |= wanted
        assert not wanted or name in locked, requirement
        with contextlib.suppress(PackageNotFoundError):
            if wanted and name != "torch" and version(name) == locked[name]:
                brought = requires(name) or []
                todo |= {(item, extra) for item in brought for _, extra in wanted}


def test_ci_requires_every_extra_that_a_test_needs():
    script = (ROOT / ".ci" / "run").read_text()
    required = set(
        re.search(r"^CLIPLAB_REQUIRE=(\S+) make test$", script, re.MULTILINE)[1].split(",")
    )
    call = re.compile(r"\bneed\([^)]*?\"(\w+)\"\)")
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    named = {extra for text in texts for extra in call.findall(text)}
    assert {"lab", "parity"} <= named
    assert required == named <= set(EXTRAS)
    assert script.index("make peers") < script.index("CLIPLAB_REQUIRE")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_the_contract(path):
    notebook = nbformat.reads(committed(path), as_version=4)
    assert re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem)
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} · ")
    assert "Expected time" in notebook.cells[0].source
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert sum("record(" in cell.source for cell in code) == 1
    parameters = read_parameters(path)
    assert {"first_seed", "n_seeds"} <= set(parameters)
    assert {"smoke", "verdict", "fingerprint", "full"} <= set(read_presets(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_fingerprint_is_the_verdict_in_less_time_and_of_the_same_shape(path):
    verdict, fingerprint = (preset_params(path, name) for name in ("verdict", "fingerprint"))
    changed = {name for name, value in fingerprint.items() if value != verdict[name]}
    assert fingerprint["n_seeds"] == 2
    assert fingerprint.get("n_tuning_seeds", 1) == 1
    # Which seeds have something rare early; a loss that few updates can reach.
    for name in changed - {"first_seed", "few_target"}:
        if name.endswith("lost"):
            continue
        if name in ("size", "side_size"):
            assert fingerprint[name] == "tiny"
            continue
        assert name.endswith(("updates", "seeds", "steps")) or name in EFFORT, name
        assert fingerprint[name] < verdict[name], name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_reads_the_same_parameters(path):
    from papermill import inspect_notebook

    assert set(inspect_notebook(str(path))) == set(read_parameters(path))


def test_no_file_is_large():
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "-l", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for line in listed.stdout.splitlines():
        about, name = line.split("\t")
        most = 1_500_000 if name.startswith("records/") else 500_000  # all rows of all studies
        assert int(about.split()[-1]) < most, name


@pytest.mark.parametrize("name", cliplab.__all__)
def test_every_public_name_says_what_it_is(name):
    thing = getattr(cliplab, name)
    assert thing.__doc__
    assert len(thing.__doc__.splitlines()[0]) <= 100
    if isinstance(thing, type):
        methods = [m for k, m in vars(thing).items() if callable(m) and not k.startswith("_")]
        assert all(m.__doc__ for m in methods)
