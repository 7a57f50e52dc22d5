"""Published methods by name: each a one-line composition of scope and policy.

What stands still, or follows weights and learning rate: standing. What follows the past: adaptive.
On the optimizer's update: updates.

May use: checks, parts, thresholds, history, clipper.
Makes numbers: yes.
"""

from cliplab.methods.method import Method
from cliplab.methods.naming import create, list_methods

__all__ = ["Method", "create", "list_methods"]
