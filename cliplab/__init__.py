"""cliplab: the laboratory for gradient clipping."""

from cliplab.attachment import Attachment
from cliplab.clipper import Clipper
from cliplab.functional import clip_grad_norm_, clip_grad_value_
from cliplab.history import ClipReport, History
from cliplab.methods import Method, create, list_methods
from cliplab.nonfinite import NonFiniteGradientError
from cliplab.norms import member_norms, tensor_norms, total_norm
from cliplab.policy import Context, Threshold
from cliplab.thresholds import Decay, Fixed, MovingAverage, Percentile, Switch

__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "ClipReport",
    "Clipper",
    "Context",
    "Decay",
    "Fixed",
    "History",
    "Method",
    "MovingAverage",
    "NonFiniteGradientError",
    "Percentile",
    "Switch",
    "Threshold",
    "clip_grad_norm_",
    "clip_grad_value_",
    "create",
    "list_methods",
    "member_norms",
    "tensor_norms",
    "total_norm",
]
