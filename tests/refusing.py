"""What no trainer takes for a clipping: what is given, its parameters, and what the error says."""

from cliplab import Clipper

BAD_CLIPPING = [
    ("autoclop", {}, "autoclip"),
    ("autoclip", {"percentil": 3}, "percentil"),
    (3, {}, "got 3"),
    (lambda model: model, {}, "must return a Clipper"),
    (lambda model: Clipper(model), {"percentile": 3}, "percentile go"),
]
