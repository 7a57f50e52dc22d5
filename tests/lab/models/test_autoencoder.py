import pytest
import torch
from torch import nn
from torch.func import functional_call

from cliplab.lab.models.autoencoder import Autoencoder

SIZES = [30, 20, 16, 4]


def test_shapes_and_depth() -> None:
    model = Autoencoder(SIZES, seed=0)
    widths = [(layer.in_features, layer.out_features) for layer in model.layers]
    assert widths == [(30, 20), (20, 16), (16, 4), (4, 16), (16, 20), (20, 30)]
    assert model(torch.rand(7, 30)).shape == (7, 30)


def test_the_same_function_as_torchs_modules() -> None:
    model = Autoencoder(SIZES, seed=1)
    stack = nn.Sequential(
        model.layers[0],
        nn.Sigmoid(),
        model.layers[1],
        nn.Sigmoid(),
        model.layers[2],  # the code is linear
        model.layers[3],
        nn.Sigmoid(),
        model.layers[4],
        nn.Sigmoid(),
        model.layers[5],
    )
    x = torch.rand(5, 30)
    torch.testing.assert_close(model(x), stack(x), atol=0, rtol=0)


@pytest.mark.parametrize("incoming", [1, 15, 100])
def test_every_unit_has_its_number_of_incoming_weights(incoming: int) -> None:
    model = Autoencoder([300, 200, 6], seed=2, incoming=incoming)
    for layer in model.layers:
        assert ((layer.weight != 0).sum(1) == min(incoming, layer.in_features)).all()
        assert (layer.bias == 0).all()
    drawn = model.layers[0].weight[model.layers[0].weight != 0]
    if len(drawn) > 1000:
        torch.testing.assert_close(drawn.std(), torch.tensor(1.0), atol=0.05, rtol=0)


def test_scale_is_that_of_the_weights() -> None:
    one, half = (Autoencoder(SIZES, seed=3, scale=scale) for scale in (1.0, 0.5))
    for a, b in zip(one.layers, half.layers, strict=True):
        assert torch.equal(a.weight, 2 * b.weight)


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (Autoencoder(SIZES, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.layers[0].weight, same.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_vmap_gives_every_member_its_own_output() -> None:
    models = [Autoencoder(SIZES, seed=seed) for seed in (6, 7)]
    names = [name for name, _ in models[0].named_parameters()]
    stacked = {name: torch.stack([m.get_parameter(name) for m in models]) for name in names}
    x = torch.rand(2, 5, 30)
    outputs = torch.vmap(lambda weights, one: functional_call(models[0], weights, (one,)))(
        stacked, x
    )
    for model, one, output in zip(models, x, outputs, strict=True):
        torch.testing.assert_close(model(one), output)


def test_it_learns() -> None:
    images = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).repeat(1, 8)
    model = Autoencoder([16, 8, 2], seed=8)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    error = lambda: (torch.sigmoid(model(images)) - images).square().sum(1).mean()  # noqa: E731
    first = error().item()
    for _ in range(150):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < first / 4


def test_bad_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"sizes must be at least two numbers >= 1, got \[8\]"):
        Autoencoder([8], seed=0)
    with pytest.raises(ValueError, match=r"got \[8, 0\]"):
        Autoencoder([8, 0], seed=0)
    with pytest.raises(ValueError, match="incoming must be at least 1, got 0"):
        Autoencoder([8, 2], seed=0, incoming=0)
