"""How large is it?

May use: checks.
Makes numbers: yes.
"""

from cliplab.norms.device import combine, wide_norm
from cliplab.norms.entries import DOUBLE, LARGE, clamp_, dense, in_range, kinds, scale_
from cliplab.norms.rows import all_row_norms, flagged, member_norms, row_norms
from cliplab.norms.shards import (
    add_norms,
    add_shards,
    add_slices,
    check_layout,
    is_partial,
    is_sharded,
    laid_out_as,
    local,
    over_ranks,
    reduced,
    shard_rows,
    whole,
)
from cliplab.norms.totals import tensor_norms, torch_norm, total_norm

__all__ = [
    "DOUBLE",
    "LARGE",
    "add_norms",
    "add_shards",
    "add_slices",
    "all_row_norms",
    "check_layout",
    "clamp_",
    "combine",
    "dense",
    "flagged",
    "in_range",
    "is_partial",
    "is_sharded",
    "kinds",
    "laid_out_as",
    "local",
    "member_norms",
    "over_ranks",
    "reduced",
    "row_norms",
    "scale_",
    "shard_rows",
    "tensor_norms",
    "torch_norm",
    "total_norm",
    "whole",
    "wide_norm",
]
