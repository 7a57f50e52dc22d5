"""Optimizers of other libraries that ask for more than an attached clipper; the rest: the table."""

import pytest
import torch
from needs import need
from optimizing import FOREIGN, NEED_MORE
from torch import Tensor, nn

from cliplab import Clipper

peers = need("pytorch_optimizer", "parity")


def test_no_optimizer_is_left_out_unsaid():
    assert set(NEED_MORE) <= set(peers.get_supported_optimizers())
    assert len(FOREIGN) > 110


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_the_second_of_two_passes_is_clipped(base):
    """Sharpness-aware minimisation: the clipper belongs to the optimizer inside, which steps."""

    def train(attached: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = peers.SAM(model.parameters(), base, rho=0.05, lr=0.1)
        clipper = Clipper(model.parameters(), 0.1)
        if attached:
            clipper.attach(optimizer.base_optimizer)
        for _ in range(5):
            x = torch.randn(16, 5)
            for step in (optimizer.first_step, optimizer.second_step):
                optimizer.zero_grad()
                (model(x) - x[:, :3] ** 2).square().mean().backward()
                if step == optimizer.second_step and not attached:
                    clipper.clip()
                step()
        assert clipper.history.clip_fraction == 1.0
        return [p.detach() for p in model.parameters()]

    for a, b in zip(train(True), train(False), strict=True):
        assert torch.equal(a, b)
