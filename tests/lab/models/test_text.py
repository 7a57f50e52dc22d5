import itertools
import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab import Ensemble
from cliplab.lab.models.text import Attention, Block, TransformerLM

WIDTH, HEADS = 12, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(build: type[nn.Module], *args: object, seed: int = 0, **how: object) -> nn.Module:
    """A module whose parameters, biases and norms included, are random."""
    module = build(*args, **how).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(0.0, 0.5, generator=generator)
    return module


def language_model(**how: object) -> TransformerLM:
    settings = {"layers": 2, "heads": HEADS, "window": 9, "seed": 1} | how
    return TransformerLM(11, WIDTH, **settings).eval()  # type: ignore[arg-type]


def copy_attention(peer: nn.MultiheadAttention, ours: Attention) -> None:
    projections = ours.query, ours.key, ours.value
    peer.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
    peer.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    copy(peer.out_proj, ours.out)


def copy(peer: nn.Module, ours: nn.Module) -> None:
    peer.load_state_dict(ours.state_dict())


def peer_of(block: Block, *, cross: bool) -> nn.Module:
    """torch's own layer with the weights of ours."""
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    peer = kind(
        WIDTH,
        HEADS,
        4 * WIDTH,
        dropout=0.0,
        activation=F.gelu if block.pre_norm else F.relu,
        norm_first=block.pre_norm,
        batch_first=True,
    ).eval()
    with torch.no_grad():
        copy_attention(peer.self_attn, block.attend)
        if cross:
            copy_attention(peer.multihead_attn, block.cross)
        names = ("attend_norm", "cross_norm", "mlp_norm") if cross else ("attend_norm", "mlp_norm")
        for number, name in enumerate(names, 1):
            copy(getattr(peer, f"norm{number}"), getattr(block, name))
        copy(peer.linear1, block.mlp[0])
        copy(peer.linear2, block.mlp[2])
    return peer


@pytest.mark.parametrize(
    ("pre_norm", "cross", "causal"), list(itertools.product((True, False), repeat=3))
)
def test_a_block_is_torchs_in_outputs_and_gradients(
    pre_norm: bool, cross: bool, causal: bool
) -> None:
    block = made(Block, WIDTH, HEADS, pre_norm=pre_norm, cross=cross)
    peer = peer_of(block, cross=cross)  # type: ignore[arg-type]
    x, twin = draw(2, 5, WIDTH).requires_grad_(), draw(2, 5, WIDTH).requires_grad_()
    memory = draw(2, 7, WIDTH, seed=1)
    hidden = torch.ones(5, 5).triu(1).bool() if causal else None
    if cross:
        ours = block(x, memory, causal=causal)
        theirs = peer(twin, memory, tgt_mask=hidden)
    else:
        ours = block(x, causal=causal)
        theirs = peer(twin, src_mask=hidden)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    target = draw(2, 5, WIDTH, seed=2)
    (ours * target).sum().backward()
    (theirs * target).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, atol=1e-4, rtol=1e-4)


def test_masked_positions_of_self_and_memory_are_not_seen() -> None:
    block = made(Block, WIDTH, HEADS, cross=True)
    x, memory = draw(2, 5, WIDTH), draw(2, 7, WIDTH, seed=1)
    lengths = torch.tensor([4, 2])
    seen = (torch.arange(7) < lengths[:, None])[:, None, None]  # [B, 1, 1, S]
    expected = block(x, memory, memory_mask=seen)
    spoiled = memory.clone()
    spoiled[0, 4:], spoiled[1, 2:] = 99.0, -99.0
    torch.testing.assert_close(block(x, spoiled, memory_mask=seen), expected)
    assert not torch.allclose(block(x, spoiled), block(x, memory))
    alone = block(x[1:], memory[1:, :2])
    torch.testing.assert_close(expected[1:], alone, atol=1e-5, rtol=1e-5)

    own = torch.tensor([[True, True, True, False, False]])
    moved = x.clone()
    moved[:, 3:] += 5.0
    kept = [block(one, memory, mask=own)[:, :3] for one in (x, moved)]
    torch.testing.assert_close(*kept)


def test_attention_over_one_position_is_its_value() -> None:
    attention = made(Attention, WIDTH, HEADS)
    memory = draw(2, 1, WIDTH, seed=1)
    expected = attention.out(attention.value(memory)).expand(2, 5, WIDTH)  # type: ignore[operator]
    torch.testing.assert_close(attention(draw(2, 5, WIDTH), memory), expected)


def test_attention_does_not_care_for_the_order_of_the_memory() -> None:
    attention, x, memory = made(Attention, WIDTH, HEADS), draw(2, 5, WIDTH), draw(2, 7, WIDTH)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    found = attention(x, memory[:, order])
    torch.testing.assert_close(found, attention(x, memory), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("build", [Attention, Block])
def test_width_must_be_a_multiple_of_heads(build: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="width must be a multiple of heads, got 12 and 5"):
        build(12, 5)


@given(place=st.integers(0, 8), symbol=st.integers(0, 10), seed=st.integers(0, 5))
def test_a_later_symbol_changes_no_earlier_prediction(place: int, symbol: int, seed: int) -> None:
    model = language_model(seed=seed)
    ids = torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(seed))
    changed = ids.clone()
    changed[:, place] = symbol
    before, after = model(ids), model(changed)
    assert before.shape == (2, 9, 11)
    torch.testing.assert_close(before[:, :place], after[:, :place])
    if bool((changed != ids).any()):
        assert not torch.equal(before[:, place:], after[:, place:])


def test_a_shorter_text_has_the_predictions_of_its_beginning() -> None:
    model = language_model()
    ids = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids[:, :4]), model(ids)[:, :4])


def test_the_same_symbol_is_predicted_otherwise_at_another_place() -> None:
    logits = language_model()(torch.zeros(1, 9, dtype=torch.long))
    assert not torch.allclose(logits[:, 0], logits[:, 1])


def test_a_text_longer_than_the_window_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size"):
        language_model()(torch.zeros(1, 10, dtype=torch.long))


def test_weights_start_as_in_nanogpt() -> None:
    layers = 3
    model = TransformerLM(90, 120, layers=layers, heads=4, window=64, seed=0)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            expected = float(name.endswith("norm.weight"))
            assert bool((p == expected).all()), name
            continue
        ends = name.endswith(("attend.out.weight", "mlp.2.weight"))
        std = 0.02 / math.sqrt(2 * layers) if ends else 0.02
        assert float(p.detach().std()) == pytest.approx(std, rel=0.05), name
        assert abs(float(p.detach().mean())) < 5 * std / math.sqrt(p.numel()), name
    assert sum(name.endswith(("out.weight", "mlp.2.weight")) for name in names(model)) == 6
    assert not list(model.buffers())


def names(model: nn.Module) -> Mapping[str, Tensor]:
    return dict(model.named_parameters())


def test_the_readout_is_the_embedding_and_gets_gradients_from_both() -> None:
    model = language_model()
    assert "readout.weight" not in names(model)
    ids = torch.tensor([[1, 2, 3]])
    model(ids).sum().backward()
    assert model.embed.weight.grad is not None
    untouched = model.embed.weight.grad[5]  # no input, but an output
    assert float(untouched.norm()) > 0


def test_a_model_starts_near_chance_and_its_seed_alone_decides_its_weights() -> None:
    model, twin, other = (language_model(seed=seed) for seed in (4, 4, 5))
    torch.manual_seed(99)
    assert all(torch.equal(p, names(twin)[name]) for name, p in names(model).items())
    assert not torch.equal(model.embed.weight, other.embed.weight)
    ids = torch.randint(11, (4, 10), generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(math.log(11), rel=0.05)


def test_dropout_is_at_work_in_training_only() -> None:
    model = language_model(dropout=0.5)
    ids = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(ids), language_model()(ids))
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(ids), model(ids))


def test_an_ensemble_gives_what_its_models_give_alone() -> None:
    seeds = [3, 4]
    ensemble = Ensemble(
        lambda seed: language_model(seed=seed), {"a": 1.0, "b": None}, seeds, vectorize=False
    )
    ids = torch.randint(11, (2, 5, 9), generator=torch.Generator().manual_seed(0))
    logits = ensemble(ids)
    assert logits.shape == (4, 5, 9, 11)
    for m, (_, s) in enumerate(itertools.product("ab", range(2))):
        torch.testing.assert_close(logits[m], language_model(seed=seeds[s])(ids[s]))


def test_it_learns_to_repeat_a_pattern() -> None:
    torch.manual_seed(0)
    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    pattern = torch.arange(11).repeat(3)
    for _ in range(60):
        starts = torch.randint(20, (8,))
        spans = pattern[starts[:, None] + torch.arange(10)]
        loss = F.cross_entropy(model(spans[:, :-1]).flatten(0, 1), spans[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * math.log(11)
