"""How large is it?

May use: checks.
Makes numbers: yes.
"""

from cliplab.norms.device import wide_norm, wide_total_norm
from cliplab.norms.entries import DOUBLE, HALF, clamp_, dense, scale_
from cliplab.norms.host import LARGE, combine, direct_norms, local_norms, safe
from cliplab.norms.rows import direct_row_norms, member_norms, row_norms
from cliplab.norms.shards import add_shards, is_partial, is_sharded, local, reduced, shard_offset
from cliplab.norms.totals import plain_norm, tensor_norms, total_norm, total_norm_1

__all__ = [
    "DOUBLE",
    "HALF",
    "LARGE",
    "add_shards",
    "clamp_",
    "combine",
    "dense",
    "direct_norms",
    "direct_row_norms",
    "is_partial",
    "is_sharded",
    "local",
    "local_norms",
    "member_norms",
    "plain_norm",
    "reduced",
    "row_norms",
    "safe",
    "scale_",
    "shard_offset",
    "tensor_norms",
    "total_norm",
    "total_norm_1",
    "wide_norm",
    "wide_total_norm",
]
