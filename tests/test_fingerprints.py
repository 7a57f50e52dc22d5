"""The fingerprint preset: the verdict with time shortened, and all that its claims name."""

from pathlib import Path

import pytest

from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.claims.judge import unanswered
from cliplab.lab.claims.ledger import load_ledger
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.notebook.presets import read_presets

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PRINTED = [path for path in PATHS if "fingerprint" in read_presets(path)]

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.parametrize("path", PRINTED, ids=lambda path: path.stem)
def test_the_fingerprint_answers_every_claim(path, tmp_path):
    with LocalExecutor(1) as executor:
        result = run_batch(plan([path], "fingerprint", tmp_path), executor)
    assert result.failures == []
    (record,) = result.records
    studies = record.choices.get("studies", {})
    assert unanswered(record.rows, path.stem, load_ledger(), studies) == []
