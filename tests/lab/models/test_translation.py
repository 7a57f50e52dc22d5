import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.models.text import Attention, Block
from cliplab.lab.models.translation import PAD, LSTMTranslator, Memory, TransformerTranslator

SOURCES, TARGETS, WIDTH = 11, 9, 12
Translator = LSTMTranslator | TransformerTranslator


def lstm(seed: int = 1) -> LSTMTranslator:
    return LSTMTranslator(SOURCES, TARGETS, WIDTH, seed=seed)


def transformer(layers: int = 2, seed: int = 1, dropout: float = 0.0) -> TransformerTranslator:
    options = {"layers": layers, "heads": 4, "dropout": dropout, "seed": seed}
    return TransformerTranslator(SOURCES, TARGETS, WIDTH, **options)  # type: ignore[arg-type]


def shaken(model: Translator) -> Translator:
    """With larger weights and biases: at the start an LSTM hardly sees what it reads."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.4)
    return model.eval()


both = pytest.mark.parametrize("build", [lstm, transformer])


def ids(*shape: int, vocab: int, seed: int = 0) -> Tensor:
    return torch.randint(1, vocab, shape, generator=torch.Generator().manual_seed(seed))


@both
def test_shapes_and_teacher_forcing_is_encoding_then_decoding(build: type) -> None:
    model = build()
    source, target = ids(4, 6, vocab=SOURCES), ids(4, 5, vocab=TARGETS)
    logits = model(source, target)
    assert logits.shape == (4, 5, TARGETS)
    memory = model.encode(source)
    assert memory.states.shape == (4, 6, WIDTH)
    assert memory.real.all()
    assert memory.mask.shape == (4, 1, 1, 6)
    torch.testing.assert_close(model.decode(target, memory), logits)


@both
def test_padding_of_the_source_changes_nothing(build: type) -> None:
    model = shaken(build())
    source, target = ids(3, 6, vocab=SOURCES), ids(3, 5, vocab=TARGETS)
    for row, length in enumerate((6, 4, 1)):
        source[row, length:] = PAD
    logits = model(source, target)
    wider = F.pad(source, (0, 3))
    torch.testing.assert_close(model(wider, target), logits)
    for row, length in enumerate((6, 4, 1)):
        alone = model(source[row : row + 1, :length], target[row : row + 1])
        torch.testing.assert_close(alone[0], logits[row], atol=1e-5, rtol=1e-5)


@both
def test_a_symbol_sees_all_of_the_source_and_only_the_targets_past(build: type) -> None:
    model = shaken(build())
    source, target = ids(1, 6, vocab=SOURCES), ids(1, 7, vocab=TARGETS)
    logits = model(source, target)[0]
    for at in range(7):
        changed = target.clone()
        changed[0, at] = changed[0, at] % (TARGETS - 1) + 1
        moved = (model(source, changed)[0] - logits).abs().amax(1)
        assert moved[:at].max() < 1e-6 if at else True
        assert (moved[at:] > 1e-5).all()
    for at in range(6):
        changed = source.clone()
        changed[0, at] = changed[0, at] % (SOURCES - 1) + 1
        assert ((model(changed, target)[0] - logits).abs().amax(1) > 1e-6).all()
    assert not torch.allclose(model(source.flip(1), target)[0], logits, atol=1e-4)  # order matters


@both
def test_gradients_reach_every_parameter_and_padding_gets_none(build: type) -> None:
    model = shaken(build())
    source, target = ids(8, 6, vocab=SOURCES), ids(8, 5, vocab=TARGETS)
    source[:, -1] = PAD
    model(source, target).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        if not name.endswith("key.bias"):  # a softmax does not see what is added to all its scores
            assert p.grad.abs().max() > 1e-5, name
    assert model.source.weight.grad[PAD].abs().max() < 1e-6


@both
def test_the_seed_decides_the_weights_and_leaves_torchs_generator_alone(build: type) -> None:
    first, again, other = (list(build(seed=s).parameters()) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("width", [25, 100])
def test_the_lstm_starts_as_sutskevers_and_keeps_his_gain(width: int) -> None:
    model, bound = LSTMTranslator(40, 40, width, seed=0), 0.08 * math.sqrt(1000 / width)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert (p == 0).all(), name
        else:
            assert 0.99 * bound < p.detach().abs().max() <= bound, name
            assert float(p.detach().mean()) == pytest.approx(0.0, abs=0.06 * bound), name


def test_the_lstm_is_its_formula() -> None:
    """With torch's own cell: its gates are in another order."""
    model = shaken(lstm())
    assert isinstance(model, LSTMTranslator)
    source, target = torch.tensor([[3, 7, 2, PAD]]), torch.tensor([[1, 5, 4]])

    def cell(layer: nn.Module) -> nn.LSTMCell:
        peer, order = nn.LSTMCell(WIDTH, WIDTH), [0, 1, 3, 2]  # input, forget, new, output
        ours = layer.enter.weight, layer.recur.weight, layer.enter.bias, 0 * layer.enter.bias
        with torch.no_grad():
            for p, own in zip(peer.parameters(), ours, strict=True):
                p.copy_(torch.cat([own.chunk(4)[i] for i in order]))
        return peer

    read, speak = cell(model.encoder), cell(model.decoder)
    h, c, memory = torch.zeros(WIDTH), torch.zeros(WIDTH), []
    for symbol in (3, 7, 2):
        h, c = read(model.source.weight[symbol], (h, c))
        memory.append(h)
    states = torch.stack(memory)
    h, c = model.bridge(h).tanh().chunk(2)
    for t, symbol in enumerate((1, 5, 4)):
        h, c = speak(model.target.weight[symbol], (h, c))
        attention = (states @ (model.score.weight @ h)).softmax(0)
        mixed = torch.cat((attention @ states, h))
        expected = model.readout(model.combine(mixed).tanh())
        torch.testing.assert_close(model(source, target)[0, t], expected, atol=1e-5, rtol=1e-5)


def copy_attention(peer: nn.MultiheadAttention, ours: Attention) -> None:
    projections = ours.query, ours.key, ours.value
    peer.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
    peer.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    peer.out_proj.load_state_dict(ours.out.state_dict())


def copy_block(peer: nn.Module, ours: Block) -> None:
    copy_attention(peer.self_attn, ours.attend)  # type: ignore[arg-type]
    norms = [ours.attend_norm, ours.mlp_norm]
    if hasattr(peer, "multihead_attn"):
        copy_attention(peer.multihead_attn, ours.cross)  # type: ignore[arg-type]
        norms.insert(1, ours.cross_norm)
    for i, norm in enumerate(norms, 1):
        getattr(peer, f"norm{i}").load_state_dict(norm.state_dict())
    for i, own in enumerate((ours.mlp[0], ours.mlp[2]), 1):
        getattr(peer, f"linear{i}").load_state_dict(own.state_dict())


def waves(length: int) -> Tensor:
    """Vaswani 2017, section 3.5, entry by entry."""
    table = torch.zeros(length, WIDTH)
    for position in range(length):
        for i in range(WIDTH // 2):
            angle = position / 10_000 ** (2 * i / WIDTH)
            table[position, 2 * i], table[position, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


def test_the_transformer_is_torchs_own() -> None:
    model = shaken(transformer())
    assert isinstance(model, TransformerTranslator)
    peer = nn.Transformer(
        WIDTH, 4, 2, 2, dim_feedforward=4 * WIDTH, dropout=0.0, batch_first=True
    ).eval()
    peer.encoder.norm = peer.decoder.norm = None  # the paper's layers end in a norm already
    with torch.no_grad():
        for ours, theirs in zip(model.encoder, peer.encoder.layers, strict=True):
            copy_block(theirs, ours)  # type: ignore[arg-type]
        for ours, theirs in zip(model.decoder, peer.decoder.layers, strict=True):
            copy_block(theirs, ours)  # type: ignore[arg-type]
    source, target = ids(3, 6, vocab=SOURCES), ids(3, 5, vocab=TARGETS)
    source[1, 3:] = PAD
    hidden = source == PAD
    scale = math.sqrt(WIDTH)
    expected = peer(
        model.source.weight[source] * scale + waves(6),
        model.target.weight[target] * scale + waves(5),
        tgt_mask=torch.ones(5, 5).triu(1).bool(),
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
        tgt_is_causal=True,
    )
    found = model(source, target)
    torch.testing.assert_close(found, expected @ model.target.weight.T, atol=1e-4, rtol=1e-4)


def test_the_transformer_starts_as_its_docstring_says() -> None:
    model = TransformerTranslator(400, 300, 32, layers=1, heads=4, seed=0)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert (p == float("norm" in name and "weight" in name)).all(), name
        elif name.startswith(("source", "target")):
            assert float(p.detach().std()) == pytest.approx(32**-0.5, rel=0.05), name
        else:
            bound = math.sqrt(6 / sum(p.shape))
            assert 0.9 * bound < p.abs().max() <= bound, name


def test_dropout_acts_in_training_only() -> None:
    model = transformer(dropout=0.5)
    source, target = ids(2, 6, vocab=SOURCES), ids(2, 5, vocab=TARGETS)
    torch.manual_seed(0)
    assert not torch.equal(model(source, target), model(source, target))
    model.eval()
    assert torch.equal(model(source, target), model(source, target))


def test_an_odd_width_of_heads_is_refused() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of heads, got 12 and 5"):
        TransformerTranslator(5, 5, 12, layers=1, heads=5, seed=0)


@pytest.mark.parametrize("build", [lstm, transformer])
def test_a_small_model_learns_to_reverse(build: type) -> None:
    """The whole of it: reading, attending, speaking in another order."""
    model, generator = build(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        source = torch.randint(3, 8, (32, 4), generator=generator)
        target = torch.cat((torch.ones(32, 1, dtype=torch.long), source.flip(1)), 1)
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3  # chance is ln 5


def test_a_memory_is_a_tuple_of_tensors_by_sentence() -> None:
    memory = Memory(torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    assert [len(part) for part in memory] == [2, 2]
