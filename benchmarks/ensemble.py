"""How an ensemble should run: vmap against one after the other, torch's LSTM against one by hand.

Arms are interleaved; the ratios of median times are printed. `python benchmarks/ensemble.py`
"""

import statistics
import time

import torch
from torch import nn

from cliplab.lab.models.rnn import CharLSTM, TanhRNN
from cliplab.lab.training.ensemble import Ensemble


class HandLSTM(CharLSTM):
    """The same language model with its recurrence written out, so that vmap can batch it."""

    def __init__(self, vocab: int, width: int, *, seed: int) -> None:
        super().__init__(vocab, width, seed=seed)
        layer, self.lstm = self.lstm, nn.Identity()
        self.w_in = nn.Parameter(layer.weight_ih_l0.detach().T.contiguous())
        self.w_rec = nn.Parameter(layer.weight_hh_l0.detach().T.contiguous())
        self.bias = nn.Parameter((layer.bias_ih_l0 + layer.bias_hh_l0).detach())

    def forward(self, ids):
        driven = (self.embed(ids) @ self.w_in + self.bias).unbind(1)
        hidden = cell = torch.zeros_like(driven[0][:, : len(self.w_rec)])
        outputs = []
        for x in driven:
            i, f, g, o = torch.addmm(x, hidden, self.w_rec).chunk(4, dim=-1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return self.readout(torch.stack(outputs, dim=1))


def seconds(ensemble, x):
    started = time.perf_counter()
    ensemble(x).flatten(1).square().mean(1).sum().backward()
    return time.perf_counter() - started


def compare(name, arms, x, repeats=15):
    """Print the median time of every arm over that of the first."""
    times = {label: [] for label in arms}
    for _ in range(repeats):
        for label, ensemble in arms.items():
            times[label].append(seconds(ensemble, x))
    medians = {label: statistics.median(values) for label, values in times.items()}
    first = next(iter(medians.values()))
    ratios = ", ".join(f"{label} {median / first:.2f}" for label, median in medians.items())
    print(f"{name}: {ratios}  (first arm {first * 1e3:.1f} ms)")


def main():
    torch.set_num_threads(1)
    arms, seeds = {"none": None, "norm 1": 1.0}, range(8)

    def tanh(vectorize):
        build = lambda seed: TanhRNN(6, 50, 4, init="tanh", seed=seed)  # noqa: E731
        return Ensemble(build, arms, seeds, vectorize=vectorize)

    sequences = torch.randn(8, 20, 20, 6)
    compare("16 tanh RNNs", {"vmap": tanh(True), "one by one": tanh(False)}, sequences)
    ids = torch.randint(96, (8, 16, 48))
    torchs = Ensemble(lambda seed: CharLSTM(96, 96, seed=seed), arms, seeds, vectorize=False)
    hand = Ensemble(lambda seed: HandLSTM(96, 96, seed=seed), arms, seeds)
    compare("16 LSTMs", {"nn.LSTM one by one": torchs, "by hand, vmap": hand}, ids)


if __name__ == "__main__":
    main()
