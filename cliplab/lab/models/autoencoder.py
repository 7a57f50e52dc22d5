"""Deep autoencoders of sigmoid units. Shapes: B images, D pixels."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cliplab.lab.models.cells import sparse


class Autoencoder(nn.Module):
    """``sizes`` down to the code and up again, sigmoid units, a linear code: ``[B,D] -> [B,D]``.

    Returns the logits of the reconstruction, whose intensities are their sigmoid. Initialised
    sparsely (Martens 2010; Sutskever et al. 2013): every unit has ``incoming`` non-zero weights
    from N(0, scale^2), or as many as there are inputs, and a bias of 0.
    Linear layers and sigmoids only, so that ``torch.vmap`` can train many at once.
    """

    def __init__(
        self, sizes: Sequence[int], *, seed: int, incoming: int = 15, scale: float = 1.0
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes must be at least two numbers >= 1, got {list(sizes)}")
        if incoming < 1:
            raise ValueError(f"incoming must be at least 1, got {incoming}")
        generator = torch.Generator().manual_seed(seed)
        widths = [*sizes, *reversed(sizes[:-1])]
        self.code = len(sizes) - 2  # position of the layer whose outputs are the code
        self.layers = nn.ModuleList()
        for before, after in pairwise(widths):
            layer = nn.utils.skip_init(nn.Linear, before, after)
            layer.weight = nn.Parameter(scale * sparse(after, before, incoming, generator, axis=1))
            layer.bias = nn.Parameter(torch.zeros(after))
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Encode, decode."""
        for position, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if position != self.code:
                x = torch.sigmoid(x)
        return self.layers[-1](x)
