"""The fingerprint preset: the verdict with time shortened, and all that its claims name."""

from pathlib import Path

import pytest

from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.claims.fingerprints import missing_arms
from cliplab.lab.claims.ledger import load_ledger
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.notebook.presets import read_presets

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PRINTED = [path for path in PATHS if "fingerprint" in read_presets(path)]

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.parametrize("path", PRINTED, ids=lambda path: path.stem)
def test_every_arm_that_a_claim_names_occurs_in_the_fingerprint(path, tmp_path):
    with LocalExecutor(1) as executor:
        result = run_batch(plan([path], "fingerprint", tmp_path), executor)
    assert result.failures == []
    rows = [row for record in result.records for row in record.rows]
    assert missing_arms(load_ledger(), path.stem, rows) == []
