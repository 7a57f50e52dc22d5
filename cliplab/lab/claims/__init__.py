"""What is claimed, and what do the rows say about it?

May use: stats, runs.
Makes numbers: no.
"""

from cliplab.lab.claims.ledger import Claim, load_ledger
from cliplab.lab.claims.rule import judge, judge_all
from cliplab.lab.claims.verdict import Outcome, Verdict

__all__ = ["Claim", "Outcome", "Verdict", "judge", "judge_all", "load_ledger"]
