import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab import Ensemble
from cliplab.lab.models.vision import ALPHA, RELU_GAIN, BatchNorm, Conv, ResNet, standardised

NORMS = ("none", "batch", "free")


def small(norm: str = "none", seed: int = 0) -> ResNet:
    return ResNet([4, 6], 2, norm=norm, classes=3, seed=seed)


def images(count: int = 6, side: int = 8) -> Tensor:
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))


def torchs_network(net: ResNet) -> nn.Module:
    """The same layers as torch's modules, with shortcuts by an average of one place (option A)."""

    class TorchBlock(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            out, inputs = block.conv1.weight.shape[:2]
            self.branch = nn.Sequential(
                nn.BatchNorm2d(inputs),
                nn.ReLU(),
                nn.Conv2d(inputs, out, 3, block.stride, 1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(),
                nn.Conv2d(out, out, 3, 1, 1, bias=False),
            )
            self.out, self.stride = out, block.stride

        def forward(self, x: Tensor) -> Tensor:
            shortcut = F.avg_pool2d(x, 1, self.stride)
            zeros = shortcut.new_zeros(len(x), self.out - x.shape[1], *shortcut.shape[2:])
            return torch.cat([shortcut, zeros], 1) + self.branch(x)

    first = nn.Conv2d(1, 4, 3, 1, 1, bias=False)
    last = [nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    whole = nn.Sequential(first, *(TorchBlock(block) for block in net.blocks), *last)
    with torch.no_grad():
        for theirs, ours in zip(whole.parameters(), net.parameters(), strict=True):
            theirs.copy_(ours)
    return whole


def test_with_batch_normalisation_it_is_torchs_modules_in_training() -> None:
    net = small("batch")
    theirs = torchs_network(net).train()
    torch.testing.assert_close(net(images()), theirs(images()))
    ours = torch.autograd.grad(net(images()).square().sum(), list(net.parameters()))
    others = torch.autograd.grad(theirs(images()).square().sum(), list(theirs.parameters()))
    torch.testing.assert_close(ours, others, atol=1e-4, rtol=1e-4)


def test_batch_normalisation_makes_channels_standard_over_images_and_places() -> None:
    x = 3 + 2 * torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    y = BatchNorm(4)(x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(1, correction=0), torch.ones(4), atol=1e-4, rtol=0)


def test_standardised_weights_are_the_papers_formula() -> None:
    weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)) + 1
    gain = torch.tensor([1.0, 0.5, 2.0])
    for i, filtered in enumerate(standardised(weight, gain)):
        mean, sd = weight[i].mean(), weight[i].std(correction=0)
        torch.testing.assert_close(filtered, gain[i] * (weight[i] - mean) / (sd * math.sqrt(18)))
        assert float(filtered.detach().norm()) == pytest.approx(float(gain[i]))
    assert standardised(torch.ones(2, 4), torch.ones(2)).tolist() == [[0.0] * 4] * 2


def test_a_standardised_convolution_after_its_relu_keeps_mean_and_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    x = RELU_GAIN * F.relu(torch.randn(64, 32, 12, 12, generator=generator))
    conv = Conv(32, 64, 1, "free")
    with torch.no_grad():
        conv.weight.normal_(0, 0.3, generator=generator)
        y = conv(x)[..., 1:-1, 1:-1]  # padding lowers the variance at the border
    assert float(y.mean()) == pytest.approx(0, abs=0.1)
    assert float(y.var()) == pytest.approx(1, rel=0.15)


def test_a_normaliser_free_block_divides_by_the_spread_that_is_expected_of_its_input() -> None:
    betas = [block.beta for block in ResNet([4, 8], 3, norm="free", seed=0).blocks]
    grown = [1, 1 + ALPHA**2, 1 + 2 * ALPHA**2, 1 + 3 * ALPHA**2]  # one stage, and the next's first
    halved = [1 / 2 + ALPHA**2, 1 / 2 + 2 * ALPHA**2]  # half of its channels began as zeros
    assert betas == pytest.approx([math.sqrt(v) for v in grown[:4] + halved])


@pytest.mark.parametrize("norm", NORMS)
def test_members_that_are_trained_as_one_program_classify_as_they_do_alone(norm: str) -> None:
    nets = [small(norm, s) for s in (0, 1)]
    together = Ensemble(lambda s: nets[s], {"none": None}, [0, 1])
    both = torch.stack([images(), images()])
    torch.testing.assert_close(together(both), torch.stack([net(images()) for net in nets]))


@pytest.mark.parametrize("norm", NORMS)
def test_shapes_hold_for_odd_sides_and_colours_and_no_state_is_kept(norm: str) -> None:
    net = ResNet([2, 3, 4], 1, norm=norm, colours=3, classes=5, seed=0)
    assert net(torch.randn(4, 3, 7, 7)).shape == (4, 5)
    assert list(net.buffers()) == []


def test_the_papers_depths() -> None:
    def layers(blocks: int) -> int:
        net = ResNet(blocks=blocks, colours=3, seed=0)
        return sum(p.ndim > 1 for p in net.parameters())

    assert [layers(n) for n in (1, 3, 9)] == [8, 20, 56]
    with_norm = ResNet(blocks=3, colours=3, norm="batch", seed=0)
    assert sum(p.numel() for p in with_norm.parameters()) == pytest.approx(270_000, rel=0.01)


def test_without_normalisation_every_block_doubles_the_variance_and_free_ones_do_not() -> None:
    def growth(norm: str) -> float:
        sizes = []
        for seed in range(6):
            net = ResNet([32], 4, norm=norm, seed=seed)
            with torch.no_grad():
                x = torch.randn(4, 32, 12, 12, generator=torch.Generator().manual_seed(seed))
                sizes.append(float(net.blocks(x).var() / x.var()))
        return sum(sizes) / len(sizes)

    assert growth("none") == pytest.approx(2**4, rel=0.4)
    assert growth("free") == pytest.approx(1 + 4 * ALPHA**2, rel=0.1)


def test_the_weights_are_hes_and_the_seed_decides() -> None:
    one, same, other = (ResNet([16, 32], 1, seed=seed) for seed in (4, 4, 5))
    last = one.blocks[1].conv2.weight.detach()
    assert float(last.std()) == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.05)
    for name, p in one.named_parameters():
        assert torch.equal(p, same.get_parameter(name))
        assert torch.equal(p, other.get_parameter(name)) == name.endswith("bias")


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none, batch, free.*'layer'"):
        ResNet(norm="layer", seed=0)
    with pytest.raises(ValueError, match="rising channels"):
        ResNet([8, 4], seed=0)
    with pytest.raises(ValueError, match="rising channels"):
        ResNet(blocks=0, seed=0)
