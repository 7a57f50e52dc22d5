"""The history of a clipper: what happened at every step, and what can be made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cliplab.history import files
from cliplab.history.live import Live
from cliplab.history.replay import replay
from cliplab.history.ring import Ring
from cliplab.history.summary import summarise

if TYPE_CHECKING:
    import pandas

    from cliplab.thresholds import Threshold


class History(Ring):
    """The reports of the last steps, oldest first; properties are ``[steps]`` or
    ``[steps, n_parts]``.

    A ring on the device of the gradients: it holds at most ``max_bytes`` and then forgets the
    oldest steps (``first_step`` says which are gone). ``labels`` name the parts.

    >>> history = History()
    >>> history.norm_before.shape
    torch.Size([0])
    """

    def summary(self) -> dict[str, Any]:
        """Return what happened in a few plain numbers; NaN where nothing is known.

        ``norm_*`` are of the finite norms of the whole gradient; ``clip_fraction`` and
        ``factor_mean`` are means over steps and parts; a skipped step counts as factor 0;
        ``clip_fraction_by_part`` is there when the history has parts.

        >>> import torch
        >>> history = History(scalar=True)
        >>> history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None], 0.5)
        >>> history.summary()["effective_lr_mean"]
        0.125
        """
        return summarise(self)

    def replay(self, policy: float | Threshold) -> History:
        """Return the history that ``policy`` would have made of the recorded raw norms.

        Open loop: with other limits the weights, and so all later norms, would have been others;
        read it for the first steps, or where clipping is rare. ``factor = min(1, limit / size)``;
        steps with a non-finite size are not learnt and count as skipped; the recorded learning
        rates are kept. A policy that needs the weights or the loss cannot be replayed:
        ``ValueError``. The result is on the CPU.
        """
        return replay(self, policy)

    def watch(self, every: float = 1.0) -> Live:
        """Draw the history in a notebook, again at most every ``every`` seconds while it grows.

        Drawing waits for the device and takes at most a tenth of the time. ``close()`` the
        result, or use it as a context manager; then nothing is drawn any more. Outside of a
        notebook nothing is drawn at all. Needs ``cliplab[lab]``.
        """
        return Live(self, every)

    def to_frame(self) -> pandas.DataFrame:
        """Return one tidy row per step (and part) as a pandas data frame."""
        import pandas

        columns = files.tidy(self)
        return pandas.DataFrame(
            {k: c.numpy() if isinstance(c, Tensor) else c for k, c in columns.items()}
        )

    def to_csv(self, path: str | Path) -> None:
        """Write one tidy row per step (and part); ``History.load`` reads it back."""
        files.write_csv(self, path)

    def to_tensorboard(self, writer: files.Writer, tag: str = "clip") -> None:
        """Hand all recorded steps to a ``SummaryWriter`` (or what has its ``add_scalar``)."""
        files.write_scalars(self, writer, tag)

    def save(self, path: str | Path) -> None:
        """Write everything to a file that ``torch.load(weights_only=True)`` reads."""
        files.save(self, path)

    @staticmethod
    def load(path: str | Path) -> History:
        """Read a file of ``save``, or a ``.csv`` with at least a column ``norm_before``.

        In a ``.csv`` other columns are those of ``to_frame``; what is missing was not clipped.
        ``OSError`` if there is no such file, ``ValueError`` if it holds something else.
        """
        return files.load(path, History)
