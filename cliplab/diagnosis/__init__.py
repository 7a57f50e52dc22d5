"""What should be changed?

May use: checks, norms, thresholds, history, plots.
Makes numbers: yes.
"""

from cliplab.diagnosis.advice import diagnose
from cliplab.diagnosis.criteria.series import MIN_STEPS
from cliplab.diagnosis.findings import Finding, Findings
from cliplab.diagnosis.probe import Probe, find_threshold

__all__ = ["MIN_STEPS", "Finding", "Findings", "Probe", "diagnose", "find_threshold"]
