"""What the notebooks share; needs ``cliplab[lab]``."""

from cliplab.lab.claims.rule import judge
from cliplab.lab.contrasts import contrasts
from cliplab.lab.notebook.parameters import check_parameters
from cliplab.lab.runs.tidy import record
from cliplab.lab.training.ensemble import Ensemble

__all__ = ["Ensemble", "check_parameters", "contrasts", "judge", "record"]
