"""Small networks: what they compute, and that many train as one."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from cliplab.lab.models.small import SmallLSTM, SmallMLP, SmallTransformer

IDS = torch.randint(9, (2, 6), generator=torch.Generator().manual_seed(0))
TEXT = {
    "LSTM": lambda seed: SmallLSTM(9, 8, seed=seed),
    "transformer": lambda seed: SmallTransformer(
        9, 8, layers=2, window=6, normalised=True, seed=seed
    ),
    "without norms": lambda seed: SmallTransformer(
        9, 8, layers=2, window=6, normalised=False, seed=seed
    ),
}


def test_the_lstm_is_torchs():
    own = SmallLSTM(9, 8, seed=1)
    theirs = nn.LSTM(8, 8, batch_first=True)
    i, f, o, g = torch.arange(32).chunk(4)
    gates = torch.cat([i, f, g, o])  # torch's order
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(own.w_in.T[gates])
        theirs.weight_hh_l0.copy_(own.w_rec.T[gates])
        theirs.bias_ih_l0.zero_()
        theirs.bias_hh_l0.zero_()
    expected = theirs(own.embed[IDS])[0] @ own.w_out + own.bias_out
    torch.testing.assert_close(own(IDS), expected)


@pytest.mark.parametrize("name", TEXT)
def test_nothing_is_read_from_the_future(name):
    model, changed = TEXT[name](1), IDS.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 9
    assert model(IDS).shape == (2, 6, 9)
    torch.testing.assert_close(model(changed)[:, :4], model(IDS)[:, :4])
    assert not torch.equal(model(changed)[:, 4], model(IDS)[:, 4])


@pytest.mark.parametrize("name", [*TEXT, "MLP"])
def test_many_train_as_one_and_a_seed_fixes_the_start(name):
    build = TEXT.get(name, lambda seed: SmallMLP(5, 8, 3, hidden=2, seed=seed))
    x = IDS if name in TEXT else torch.randn(4, 5)
    models = [build(1), build(2), build(1)]
    weights, _ = stack_module_state(models)
    run = torch.vmap(lambda own: functional_call(models[0], own, (x,)))
    outputs = run(weights)
    torch.testing.assert_close(outputs, torch.stack([model(x) for model in models]))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])
