"""What should be changed?

May use: extras, checks, norms, thresholds, history, plots.
Makes numbers: yes.
"""

from cliplab.diagnosis.advice import diagnose
from cliplab.diagnosis.criteria.series import MIN_STEPS
from cliplab.diagnosis.findings import Finding, Findings
from cliplab.diagnosis.logs import Log, Naming, Unfinished, read_log
from cliplab.diagnosis.probe import Probe, find_threshold

__all__ = [
    "MIN_STEPS",
    "Finding",
    "Findings",
    "Log",
    "Naming",
    "Probe",
    "Unfinished",
    "diagnose",
    "find_threshold",
    "read_log",
]
