import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab import Ensemble
from cliplab.lab.models.text import CharCNN


def small(seed: int = 0, **settings: float) -> CharCNN:
    return CharCNN(5, 3, length=130, features=6, hidden=8, std=0.3, seed=seed, **settings)


def texts(count: int = 4, length: int = 130) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 6, (count, length), generator=generator, dtype=torch.uint8)


def looked_up_logits(net: CharCNN, ids: Tensor) -> Tensor:
    """Without one-hot columns: every character adds the weights that its id names."""
    table = F.pad(net.read.weight.permute(2, 1, 0), (0, 0, 1, 0))  # [7, 1 + characters, features]
    windows = ids.long().unfold(1, 7, 1)  # [B, T - 6, 7]
    mapped = sum(table[k][windows[..., k]] for k in range(7)) + net.read.bias
    return net.classifier(net.features(mapped.transpose(1, 2)).flatten(1))


def test_convolving_one_hot_columns_is_looking_weights_up() -> None:
    net = small().eval()
    ours = torch.autograd.grad(net(texts()).square().sum(), list(net.parameters()))
    theirs = torch.autograd.grad(
        looked_up_logits(net, texts()).square().sum(), list(net.parameters())
    )
    torch.testing.assert_close(net(texts()), looked_up_logits(net, texts()))
    torch.testing.assert_close(ours, theirs)


def test_a_character_outside_the_alphabet_adds_nothing() -> None:
    net = small().eval()
    with torch.no_grad():
        net.read.weight.zero_()
    nothing = torch.zeros(1, 130, dtype=torch.uint8)
    torch.testing.assert_close(net(texts(1)), net(nothing))


def test_a_character_beyond_the_alphabet_is_none() -> None:
    net = small().eval()
    beyond = texts().clone()
    beyond[texts() == 0] = 6
    assert (beyond == 6).any()
    torch.testing.assert_close(net(beyond), net(texts()))


def test_members_that_are_trained_as_one_program_classify_as_they_do_alone() -> None:
    nets = [small(s, dropout=0.0) for s in (0, 1)]
    together = Ensemble(lambda s: nets[s], {"none": None}, [0, 1])
    both = torch.stack([texts(), texts()])
    torch.testing.assert_close(together(both), torch.stack([net(texts()) for net in nets]))


def test_the_papers_network_has_its_layers_and_sizes() -> None:
    net = CharCNN(70, 4, seed=0)
    layers = [net.read, *net.features]
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv1d)]
    assert [c.kernel_size[0] for c in convolutions] == [7, 7, 3, 3, 3, 3]
    assert [c.out_channels for c in convolutions] == [256] * 6
    pooled = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool1d)]
    assert [sum(isinstance(x, nn.Conv1d) for x in layers[:i]) for i in pooled] == [1, 2, 6]
    sizes = [layer.weight.shape for layer in net.classifier if isinstance(layer, nn.Linear)]
    assert sizes == [(1024, 8704), (1024, 1024), (4, 1024)]
    for p in net.parameters():  # biases too: Crepe draws the flat vector of all parameters
        if p.numel() > 1024:
            assert float(p.detach().std()) == pytest.approx(0.05, rel=0.1)
        assert float(p.detach().abs().max()) > 0


@pytest.mark.parametrize("features", [32, 128])
def test_the_scaled_init_keeps_the_size_of_signals_at_any_width(features: int) -> None:
    def size(width: int) -> float:
        std = 0.05 * math.sqrt(256 / width)
        nets = [
            CharCNN(5, 3, length=130, features=width, hidden=4 * width, std=std, seed=s).eval()
            for s in range(8)
        ]
        with torch.no_grad():
            logits = torch.cat([net(texts()) for net in nets])
        return float(logits.square().mean().sqrt())

    assert size(features) == pytest.approx(size(256), rel=0.5)


def test_a_seed_gives_the_same_network_and_another_one_another() -> None:
    first, again, other = (
        torch.cat([p.flatten() for p in small(s).parameters()]) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dropout_is_drawn_anew_in_training_and_off_otherwise() -> None:
    net = small(dropout=0.5)
    assert not torch.equal(net(texts()), net(texts()))
    net.eval()
    assert torch.equal(net(texts()), net(texts()))


def test_a_text_is_classified_alone_or_in_a_batch_or_in_an_ensemble() -> None:
    nets = [small(s).eval() for s in (0, 1)]
    together = Ensemble(lambda s: nets[s], {"none": None}, [0, 1], vectorize=False)
    together._template[0].eval()
    torch.testing.assert_close(nets[0](texts()[:1]), nets[0](texts())[:1])
    torch.testing.assert_close(
        together(torch.stack([texts(), texts()])), torch.stack([net(texts()) for net in nets])
    )


def test_a_length_that_six_convolutions_use_up_is_refused() -> None:
    assert CharCNN(5, 3, length=123, features=2, hidden=2, seed=0)(texts(2, 123)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"at least 123.*122"):
        CharCNN(5, 3, length=122, features=2, hidden=2, seed=0)


def test_the_papers_texts_leave_34_places_to_the_first_hidden_layer() -> None:
    first = CharCNN(70, 4, features=2, hidden=3, seed=0).classifier[0]
    assert isinstance(first, nn.Linear)
    assert first.in_features == 34 * 2  # notebook 09 scales its gain by this
