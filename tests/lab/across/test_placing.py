"""Where the collection's own questions stand: none without a model and an optimizer."""

from pathlib import Path

import pytest

from cliplab.lab.across.placing import OTHER, model_of, optimizer_of
from cliplab.lab.claims.ledger import load_ledger

ROOT = Path(__file__).parents[3]
ASKED = [c for c in load_ledger(ROOT).claims.values() if c.kind == "comparison"]


@pytest.mark.parametrize("claim", ASKED, ids=lambda claim: claim.id)
def test_every_comparison_says_what_is_trained_and_with_what(claim):
    assert model_of(claim.question) != OTHER
    assert optimizer_of(claim.question) != OTHER


@pytest.mark.parametrize(
    ("text", "model", "optimizer"),
    [
        ("a pre-LN transformer under AdamW (beta2 0.99)", "transformer", "AdamW"),
        ("A2C under Adam on raw rewards (CartPole, a small MLP)", "agent", "Adam"),
        ("an agent of 5x5 Go (actor-critic, small residual net, SGD with momentum)", "agent",
         "SGD with momentum"),
        ("an LSTM translator with attention (SGD, rate halved)", "LSTM", "SGD"),
        ("a ResNet without normalisation (Nesterov's momentum)", "ResNet", "SGD with momentum"),
        ("tanh RNN on Bach chorales", "plain RNN", OTHER),
        ("a deep autoencoder of curves under RMSprop", "MLP", "RMSprop"),
    ],
)  # fmt: skip
def test_words(text, model, optimizer):
    assert (model_of(text), optimizer_of(text)) == (model, optimizer)
