"""What the command line imports: torch takes longer than all that these commands do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "pandas", "scipy", "matplotlib", "papermill", "nbformat", "jinja2", "IPython"]


COMMANDS = ["--help", "run --help", "list", "list --json", "diff records records"]
COMMANDS += ["inspect notebooks/01_exploding_gradients.ipynb"]


@pytest.mark.parametrize("words", [command.split() for command in COMMANDS], ids=COMMANDS)
def test_a_command_that_only_tells_imports_nothing_heavy(words):
    code = (
        "import sys\nfrom cliplab.cli.main import main\n"
        "from cliplab.lab.runs import device\n"
        "device._accelerator_possible = lambda: False\n"  # else torch is asked, as it must be
        f"try:\n    status = main({words})\nexcept SystemExit as end:\n    status = end.code\n"
        f"print(status, sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
