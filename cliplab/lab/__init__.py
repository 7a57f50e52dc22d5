"""What the notebooks share; needs ``cliplab[lab]``."""

from cliplab.lab.claims.rule import judge
from cliplab.lab.contrasts import contrasts
from cliplab.lab.ensemble import Ensemble
from cliplab.lab.notebook.parameters import check_parameters
from cliplab.lab.runs.record import record

__all__ = ["Ensemble", "check_parameters", "contrasts", "judge", "record"]
