"""Clipping without state: torch's and TensorFlow's functions, AGC, Graves' hook.

May use: checks, norms, parts, thresholds.
Makes numbers: yes.
"""

from cliplab.functional.activations import clip_activation_grad_
from cliplab.functional.agc import adaptive_clip_
from cliplab.functional.tensorflow_forms import clip_by_global_norm_, clip_by_norm_, clip_by_value_
from cliplab.functional.torch_forms import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)

__all__ = [
    "adaptive_clip_",
    "clip_activation_grad_",
    "clip_by_global_norm_",
    "clip_by_norm_",
    "clip_by_value_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
]
