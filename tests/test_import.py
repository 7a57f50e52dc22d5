import subprocess
import sys


def test_importing_cliplab_needs_torch_alone():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import cliplab\n"
        "heavy = {'pandas', 'scipy', 'seaborn', 'matplotlib', 'papermill', 'cliplab.lab'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
