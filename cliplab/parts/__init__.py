"""What is clipped together?

May use: checks, norms.
Makes numbers: yes.
"""

from cliplab.parts.mistakes import (
    Hand,
    first_gradient,
    mark,
    version,
    warn_if_clipped,
    warn_of_no_gradient,
    watched,
)
from cliplab.parts.names import listed, plain_names
from cliplab.parts.partition import Gradients, Partition, gradients
from cliplab.parts.row_parts import RowParts
from cliplab.parts.scopes import Scope, divide
from cliplab.parts.selection import Group, Parameters, Selection, select_parameters
from cliplab.parts.tensor_parts import TensorParts
from cliplab.parts.units import member_views, scale_units_, unit_norms, unit_views

__all__ = [
    "Gradients",
    "Group",
    "Hand",
    "Parameters",
    "Partition",
    "RowParts",
    "Scope",
    "Selection",
    "TensorParts",
    "divide",
    "first_gradient",
    "gradients",
    "listed",
    "mark",
    "member_views",
    "plain_names",
    "scale_units_",
    "select_parameters",
    "unit_norms",
    "unit_views",
    "version",
    "warn_if_clipped",
    "warn_of_no_gradient",
    "watched",
]
