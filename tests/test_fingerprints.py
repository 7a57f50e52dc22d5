"""The fingerprint preset: the verdict with time shortened, and all that its claims name."""

from pathlib import Path

import pytest

from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
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
    claims = [claim for claim in load_ledger().values() if claim.notebook == path.stem]
    named = {arm for c in claims for weights in (c.contrast, c.control or {}) for arm in weights}
    assert named - {row["arm"] for record in result.records for row in record.rows} == set()
