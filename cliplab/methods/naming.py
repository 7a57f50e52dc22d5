"""The clipper of a published method, by the method's name."""

from __future__ import annotations

import inspect
from typing import Any

from cliplab.checks import described, near
from cliplab.clipper import Clipper
from cliplab.methods import adaptive, standing, updates
from cliplab.methods.method import Method, Methods
from cliplab.parts import Parameters

METHODS = {
    each.name: each
    for module in (standing, adaptive, updates)
    for each in vars(module).values()
    if isinstance(each, Method)
}
OF_CLIPPER = [  # what every method takes beside its own
    name for name in inspect.signature(Clipper).parameters if name not in ("params", "threshold")
]


def list_methods() -> Methods:
    """Return all named methods, by name, in a list that reads as a table.

    >>> [m.name for m in list_methods()][:3]
    ['adagc', 'adamw_clip', 'adanorm']
    >>> list_methods()[2].parameters
    {'r': 0.95}
    """
    return Methods(sorted(METHODS.values(), key=lambda method: method.name))


def create(name: str, params: Parameters, **parameters: Any) -> Clipper:
    """Make the clipper of a published method by its name.

    Args:
        name: adagc, adamw_clip, adanorm, agc, agc_tensor, aggc, autoclip, block_rms, decay,
            edm_queue, gradient_stabilizer, katago, lamb_trust, loss_ratio, moving_average, none,
            norm, normalise, olmo_ratio, percentile_window, robust, skip_threshold, spike_skip,
            stable_adamw, target_rate, tensor_norm, update_history, update_rms, value,
            warmup_tight or zclip; ``list_methods()`` says what each does, its own parameters and
            their defaults.
        params: what is clipped: a module, tensors, ``(name, tensor)`` pairs, or optimizer-style
            groups, as for ``Clipper``.
        parameters: the method's own, and ``scope``, ``norm_type``, ``mode``, ``nonfinite``,
            ``exclude``, ``target``, ``eps``, ``reduce`` and ``check_ranks`` of ``Clipper``, which
            win over what the method would set:
            ``create("agc", model, scope="tensor", exclude="head.*")``. ``threshold`` is there
            where the method has that parameter, as norm has; the others make their threshold
            themselves.

    What needs more than gradients says so at its first step: katago the learning rate (``attach``),
    loss_ratio the loss (``clip(loss)``, ``observe(loss)``), and ``target="update"`` an attached
    optimizer.

    Raises ``ValueError`` for an unknown name or parameter, and for what does not go together.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> create("autoclip", model, percentile=25).policy
    Percentile(percentile=25.0, window=None)
    >>> clipper = create("spike_skip", model, sigmas=4.0, nonfinite="raise")
    >>> clipper.mode, clipper.nonfinite
    ('skip', 'raise')
    """
    method = _named(name, params)
    own = {key: parameters.pop(key) for key in method.parameters if key in parameters}
    takes = [*method.parameters, *OF_CLIPPER]
    for key in parameters:
        if key == "threshold":
            made_of = f" of {', '.join(method.parameters)}" if method.parameters else ""
            raise ValueError(f"{name} has no parameter 'threshold': it makes its own{made_of}")
        if key not in OF_CLIPPER:
            hint = f"{near(key, takes)}; it takes {', '.join(takes)}"
            raise ValueError(f"{name} has no parameter {key!r}{hint}")
    return Clipper(params, **method.build(**own) | parameters)


def _named(name: Any, params: Parameters) -> Method:
    if not isinstance(name, str):
        swapped = f": create({params!r}, ...)" if isinstance(params, str) else ""
        raise ValueError(f"create takes a method's name first, got {described(name)}{swapped}")
    if name not in METHODS:
        known = sorted(METHODS)
        hint = f"{near(name, known)}; known: {', '.join(known)}"
        raise ValueError(f"unknown method {described(name)}{hint}")
    return METHODS[name]
