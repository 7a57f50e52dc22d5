"""What is asked or claimed, and what do the rows say about it?

May use: stats, study, notebook, runs.
Makes numbers: no.
"""

from cliplab.lab.claims.judge import judge, judge_all
from cliplab.lab.claims.ledger import Claim, Ledger, load_ledger
from cliplab.lab.claims.verdict import Outcome, Verdict

__all__ = ["Claim", "Ledger", "Outcome", "Verdict", "judge", "judge_all", "load_ledger"]
