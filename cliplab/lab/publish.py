"""``python -m cliplab.lab.publish``: see :mod:`cliplab.lab.report.publish`."""

from pathlib import Path

from cliplab.lab.report.publish import regenerate

if __name__ == "__main__":
    for changed in regenerate(Path.cwd()):
        print(changed)
