"""Units of layers whose weight is computed from others, and that finding them changes nothing."""

import copy
import warnings

import pytest
import torch
from making import BY_HAND
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear as QuantisedLinear
from torch.nn.utils import parametrizations, parametrize, prune

import cliplab
from cliplab import Clipper
from cliplab.parts import unit_views

# One gradient is looked at by many clippers, one after the other.
pytestmark = pytest.mark.filterwarnings("ignore:the same gradient is clipped twice")


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


class Shifted(nn.Module):
    """A parametrisation with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.shift


LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), "weight", 3),
    "bilinear": (lambda: nn.Bilinear(4, 2, 3), "weight", 3),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), "weight", 6),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2), "weight", 6),
    "conv3d": (lambda: nn.Conv3d(2, 6, 3), "weight", 6),
    "transposed conv1d": (lambda: nn.ConvTranspose1d(4, 6, 3), "weight", 6),
    "transposed conv2d": (lambda: nn.ConvTranspose2d(4, 6, (3, 2)), "weight", 6),
    "transposed conv3d": (lambda: nn.ConvTranspose3d(2, 6, 3), "weight", 6),
    "grouped transposed conv": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), "weight", 6),
    "depthwise transposed conv": (lambda: nn.ConvTranspose2d(4, 4, 3, groups=4), "weight", 4),
    "embedding": (lambda: nn.Embedding(5, 4), "weight", 5),
    "embedding bag": (lambda: nn.EmbeddingBag(5, 4, sparse=True), "weight", 5),
    "lstm": (lambda: nn.LSTM(4, 3), "weight_hh_l0", 12),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight", 12),
    "attention's output": (lambda: nn.MultiheadAttention(4, 2).out_proj, "weight", 4),
}
COMPUTED = {
    "plain": lambda layer, name: layer,
    "spectral norm": parametrizations.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "weight norm of inputs": lambda layer, name: parametrizations.weight_norm(layer, name, dim=1),
    "weight norm of all": lambda layer, name: parametrizations.weight_norm(layer, name, dim=None),
    "orthogonal": parametrizations.orthogonal,
    "a function": lambda layer, name: parametrize.register_parametrization(layer, name, Doubled()),
    "a module": lambda layer, name: parametrize.register_parametrization(layer, name, Shifted()),
    "two of them": lambda layer, name: parametrizations.spectral_norm(
        parametrize.register_parametrization(layer, name, Doubled()), name
    ),
    "old spectral norm": nn.utils.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "old weight norm of inputs": lambda layer, name: nn.utils.weight_norm(layer, name, dim=1),
    "pruned": lambda layer, name: prune.l1_unstructured(layer, name, amount=0.5),
    "pruned rows": lambda layer, name: prune.random_structured(layer, name, amount=0.5, dim=0),
}


def build(layer, how):
    make, name, _ = LAYERS[layer]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old forms are deprecated
        return COMPUTED[how](make(), name)


def everything(model):
    """All tensors that a model holds in any way, with their bits and how often each was written."""
    held = {}
    for path, module in model.named_modules():
        for kind in (module._parameters, module._buffers, vars(module)):
            for name, tensor in kind.items():
                if isinstance(tensor, torch.Tensor):
                    held[path, name] = (id(tensor), tensor._version, tensor.detach().clone())
    return held


def assert_untouched(model, before):
    after = everything(model)
    assert after.keys() == before.keys()
    for key, (same, version, bits) in before.items():
        assert after[key][:2] == (same, version), key
        assert torch.equal(after[key][2], bits), key


@pytest.mark.parametrize("how", COMPUTED)
@pytest.mark.parametrize("layer", LAYERS)
def test_what_a_weight_is_computed_from_has_the_units_of_the_weight(layer, how):
    make, name, units = LAYERS[layer]
    plain = make()
    weight = plain.get_parameter(name)
    expected = unit_views(plain, [weight])[0]
    computed = nn.Sequential(build(layer, how))
    params = [p for n, p in computed.named_parameters() if name in n.split(".") or name in n]
    views = unit_views(computed, params)
    same = [view for p, view in zip(params, views, strict=True) if p.shape == weight.shape]
    assert same == [expected]
    for p, view in zip(params, views, strict=True):
        if p.shape != weight.shape:  # a norm for each unit, or for what is no unit
            norms = torch.linalg.vector_norm(p.reshape(view.shape), dim=view.dims)
            assert norms.numel() in (
                units,
                1,
                *per_group(plain),
            )


def per_group(layer):
    """Of grouped transposed convolutions a norm may be shared by groups, or be one for each."""
    groups = getattr(layer, "groups", 1)
    return (groups, getattr(layer, "out_channels", 1) // groups)


@pytest.mark.filterwarnings("ignore:the same gradient is clipped twice")
@pytest.mark.parametrize("how", COMPUTED)
@pytest.mark.parametrize("layer", LAYERS)
def test_looking_at_a_model_changes_nothing_in_it(layer, how):
    model = nn.Sequential(build(layer, how)).train()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    before, dice = everything(model), torch.get_rng_state()
    for scope in ("global", "tensor", "unit"):
        Clipper(model, 1.0, scope=scope)
        Clipper(model.named_parameters(), 1.0, scope=scope).clip()
    for method in BY_HAND:
        cliplab.create(method, model).clip(loss=1.0)
    cliplab.adaptive_clip_(model)
    assert_untouched(model, before)
    assert torch.equal(torch.get_rng_state(), dice)


@pytest.mark.parametrize("how", ["weight norm of inputs", "old weight norm of inputs", "plain"])
def test_only_the_unit_that_made_an_output_is_clipped(how):
    """Weight norm on the right axis of a transposed convolution: one norm for each output."""
    layer = build("transposed conv2d", how)
    layer(torch.randn(2, 4, 5, 5))[:, 3].square().sum().mul(100).backward()
    clipper = Clipper(layer, 1e-3, scope="unit", exclude="bias")
    report = clipper.clip()
    labels = [clipper.history.labels[i] for i in report.clipped.nonzero().flatten().tolist()]
    assert labels
    assert {label.split("[")[1] for label in labels} == {"3]"}
    for p in layer.parameters():
        if p.ndim > 1:
            assert p.grad[:, 3].norm() == pytest.approx(1e-3, rel=1e-4)
            assert p.grad.norm() == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.filterwarnings("ignore:the same gradient is clipped twice")
@pytest.mark.parametrize("how", ["plain", "spectral norm", "old spectral norm", "weight norm"])
@pytest.mark.parametrize("layer", ["transposed conv2d", "grouped transposed conv"])
def test_a_clipped_run_takes_the_power_iterations_of_the_forward_passes_only(layer, how):
    """A model that is measured without a limit takes the very steps of one that is left alone."""
    alone = build(layer, how)
    looked_at = copy.deepcopy(alone)
    for step in range(3):
        for model in (alone, looked_at):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            if model is looked_at:
                Clipper(model, 1e9, scope="unit").attach(optimizer)
                cliplab.create("agc", model, ratio=1e9).attach(optimizer)
            torch.manual_seed(step)
            model(torch.randn(2, 4, 5, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for name, tensor in alone.state_dict().items():
        assert torch.equal(looked_at.state_dict()[name], tensor), name


def test_containers_of_parameters_and_quantised_layers():
    model = nn.ModuleDict(
        {
            "list": nn.ParameterList([torch.ones(3, 2), torch.ones(2), torch.ones(())]),
            "dict": nn.ParameterDict({"a": torch.ones(2, 4, 2), "b": torch.ones(1, 0)}),
        }
    )
    for p in model.parameters():
        p.grad = 3 * torch.ones_like(p)
    report = cliplab.create("agc", model).clip()
    assert report.norm_before.shape == (3 + 1 + 1 + 2 + 1,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of quantised tensors
        quantised = QuantisedLinear(4, 3)
    with pytest.raises(ValueError, match="no parameters to clip"):
        Clipper(quantised, scope="unit")
    assert len(Clipper([*model.parameters(), nn.Linear(2, 2).weight], scope="unit").params) == 6


@pytest.mark.parametrize("shapes", [[(0, 3)], [(0, 3), (0, 2, 2)]])
@pytest.mark.parametrize(
    "make", [lambda p: Clipper(p, scope="unit"), lambda p: cliplab.create("agc", p)]
)
def test_tensors_without_a_single_unit_are_refused(shapes, make):
    params = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    with pytest.raises(ValueError, match='scope "unit" needs a unit: all parameters are empty'):
        make(params)
    scalar = nn.Parameter(torch.ones(()))
    scalar.grad = torch.tensor(5.0)
    assert make([*params, scalar]).clip().norm_before.tolist() == [5.0]
    cliplab.adaptive_clip_(params)


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (3,), (0, 2), (2, 0), (3, 2), (2, 0, 3), (1, 2, 3)]
)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0])
def test_every_shape_of_a_parameter_has_units_beside_another(shape, value):
    params = [nn.Parameter(torch.full(shape, value)), nn.Parameter(torch.ones(2, 2))]
    for p in params:
        p.grad = torch.full_like(p, 2.0)
    clipper = Clipper(params, 1e-3, scope="unit")
    rows = shape[0] if len(shape) > 1 else 1
    assert clipper.clip().norm_before.shape == (rows + 2,)
    assert len(clipper.history.labels) == rows + 2
