"""The history of a clipper: what happened at every step, and what can be made of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from cliplab.checks import check_choice, check_count
from cliplab.extras import require
from cliplab.history import files, logs, show, tables
from cliplab.history.live import Live
from cliplab.history.replay import Clips, replay
from cliplab.history.ring import Ring
from cliplab.history.spikes import as_series, spike_score
from cliplab.history.summary import summarise

if TYPE_CHECKING:
    import pandas

    from cliplab.thresholds import Threshold


class History(Ring):
    """The reports of the last steps, oldest first; properties are ``[steps]`` or
    ``[steps, n_parts]``.

    A ring on the device of the gradients: it holds at most ``max_bytes`` and then forgets the
    oldest steps (``first_step`` says which are gone). ``labels`` name the parts.

    Args:
        labels: names of the parts.
        scalar: whether there is one part: properties are ``[steps]``.
        max_bytes: of memory that the steps may take (bytes).

    >>> history = History()
    >>> history.norm_before.shape
    torch.Size([0])
    """

    def __init__(
        self,
        labels: Sequence[str] = (),
        *,
        scalar: bool = False,
        max_bytes: int = 1 << 28,
    ) -> None:
        super().__init__(labels, scalar=scalar, max_bytes=max_bytes)
        self._logs: list[logs.Log] = []

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_logs": []}  # a copy is logged nowhere

    def __repr__(self) -> str:
        return show.history_line(self)

    def _repr_html_(self) -> str:
        return show.history_table(self)

    def summary(self) -> dict[str, Any]:
        """Return what happened in a few plain numbers; NaN where nothing is known.

        ``norm_*`` are of the finite norms of the whole gradient; ``clip_fraction`` and
        ``factor_mean`` are means over steps and parts; a skipped step counts as factor 0;
        ``clip_fraction_by_part`` is there when the history has parts, ``update_norm_*`` when
        updates were measured.

        >>> import torch
        >>> history = History(scalar=True)
        >>> history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None], 0.5)
        >>> history.summary()["effective_lr_mean"]
        0.125
        """
        return summarise(self)

    def latest(self, tag: str = "") -> dict[str, float]:
        """Return the last step as plain numbers, for a log; nothing before the first step.

        ``norm_before`` and ``norm_after`` of the whole gradient, ``threshold`` where all parts have
        the same, ``factor`` (of the parts as one vector; 0 at a skipped step), ``clipped`` (the
        share of the parts that were), ``skipped``, and where they are known ``lr``,
        ``effective_lr`` and ``update_norm``. With a ``tag``, the names are ``tag/norm_before`` and
        so on. Reading it waits for the device.

        >>> import torch
        >>> history = History(scalar=True)
        >>> history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None], None)
        >>> history.latest("clip")["clip/factor"]
        0.25
        """
        return logs.latest(self, tag)

    def log_to(self, fn: logs.Target, tag: str = "clip", *, parts: bool = False) -> logs.Log:
        """Return what hands each step to ``fn(numbers, step=step)``, once: ``log = log_to(fn)``.

        Every ``log()`` hands over the steps that were recorded since the last, oldest first, and
        returns how many: the numbers of ``latest(tag)`` and the step's number, which goes on after
        a resume. Call it as often as steps are to appear; it waits for the device. ``fn`` is what a
        tracker logs with (``run.log`` of W&B, ``mlflow.log_metrics``, ``run.track`` of Aim,
        ``trackio.log``, ``log_metrics`` of a Lightning logger), or a ``SummaryWriter``. If it
        raises, its step is handed over again. Steps that the ring forgot before are left out, with
        a ``UserWarning`` the first time. The same ``fn`` and ``tag`` again are the same log.

        ``parts`` also hands over ``norm_before/label``, and so on, of each part.

        ``ValueError`` for what is neither a function nor a ``SummaryWriter``.

        >>> import torch
        >>> history = History(scalar=True)
        >>> log = history.log_to(lambda numbers, step: print(step, numbers["clip/factor"]))
        >>> history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None], None)
        >>> log(), log()
        0 0.25
        (1, 0)
        """
        for log in self._logs:
            if log.goes(fn, tag):
                return log.with_parts(parts)
        log = logs.Log(self, fn, tag).with_parts(parts)
        self._logs.append(log)
        return log

    def rewind(self, step: int) -> None:
        """Go back to before the step of number ``step``, as after loading an earlier state.

        What was recorded from there on is dropped; all is, where neither a recorded step nor the
        next one has the number. ``counts`` stay, and logs go on with what is recorded next.
        """
        super().rewind(check_count("step", step, zero=True))
        for log in self._logs:
            log.rewind()

    def spike_score(
        self,
        window: int = 1000,
        sigmas: float = 7.0,
        *,
        of: Literal["gradient", "update"] = "gradient",
        values: Sequence[float] | Tensor | None = None,
    ) -> float:
        """Return the percentage of steps with a spike; NaN where there is no step.

        A spike is a value at least ``sigmas`` standard deviations (of a population) from the mean
        of the last ``window`` finite values before it, itself left out, on either side. The values
        are the ``total`` norms, ``of="update"`` those of the updates that were measured, or
        ``values`` of your own ``[n]``, as losses. A value that is NaN or inf is a spike, too, and
        enters no window. Before ``window`` values there is no spike, and none where they are all
        alike; those steps count as steps. Forgotten steps do not.

        ``ValueError`` for a bad argument, and if no update was measured. Source: OLMo 2 (Walsh
        et al. 2025, arXiv 2501.00656); what is left out of a window, its deviation and what a share
        is of, as in OLMo-core's ``StabilityMonitorCallback``, which looks above the mean only.

        >>> import torch
        >>> history = History(scalar=True)
        >>> history.spike_score(3, values=[1.0, 2.0, 3.0, 2.0, 90.0])
        20.0
        """
        check_choice("of", of, Literal["gradient", "update"])
        if values is not None:
            return spike_score(as_series(values), window, sigmas)
        if of == "gradient":
            return spike_score(self.total.cpu(), window, sigmas)
        if not self.measures_updates:
            raise ValueError('of="update" needs norms of updates: none was measured')
        norms = self.update_norm
        return spike_score(norms[~norms.isnan()], window, sigmas)

    def replay(self, policy: float | Threshold | Clips) -> History:
        """Return the history that ``policy`` would have made of the recorded raw norms.

        Open loop: with other limits the weights, and so all later norms, would have been others;
        read it for the first steps, or where clipping is rare. ``factor = min(1, limit / size)``,
        or what the mode of a clipper says; ``SpikeSkip`` skips the steps above its limit; steps
        with a non-finite size are not learnt and count as skipped; the recorded learning rates are
        kept. A clipper stands for its policy, from the start, and its mode: so a method is replayed
        by name, ``history.replay(cliplab.create("autoclip", model))``.

        ``ValueError`` for what is no policy, and for one that needs the weights: they are not
        recorded, as losses are not (``SpikeSkip`` then goes by the sizes). The result is on the
        CPU.
        """
        return replay(self, policy)

    def watch(self, every: float = 1.0) -> Live:
        """Draw the history in a notebook, again every ``every`` seconds while it grows.

        The last steps are drawn when the cell ends that took them. Drawing waits for the device;
        where it would take more than a tenth of the time it is done less often (one slow drawing
        alone does not count, as the first is). ``close()`` the result, or use it as a context
        manager; then nothing is drawn any more. Outside of a notebook nothing is drawn at all: a
        ``UserWarning`` says so. Needs ``cliplab[lab]``.
        """
        live = Live(self, every)
        if not live.is_open:
            warnings.warn(
                "watch() draws in a notebook only: here nothing is drawn. print(history) or "
                "plots.overview(history) show what was recorded",
                stacklevel=2,
            )
        return live

    def to_frame(self) -> pandas.DataFrame:
        """Return one tidy row per step (and part), a pandas data frame; needs ``cliplab[lab]``."""
        require("pandas")
        import pandas

        columns = tables.tidy(self)
        return pandas.DataFrame(
            {k: c.numpy() if isinstance(c, Tensor) else c for k, c in columns.items()}
        )

    def to_csv(self, path: str | Path) -> None:
        """Write a tidy row per step (and part) to ``path``; ``History.load`` reads them back."""
        tables.write_csv(self, path)

    def to_tensorboard(self, writer: logs.Writer, tag: str = "clip") -> None:
        """Hand ``writer``, a ``SummaryWriter``, what it has not had, parts too, under ``tag``."""
        self.log_to(writer, tag, parts=True)()

    def save(self, path: str | Path) -> None:
        """Write everything to a file ``path`` that ``torch.load(weights_only=True)`` reads."""
        files.save(self, path)

    @staticmethod
    def load(path: str | Path) -> History:
        """Read ``path``: a file of ``save``, or a ``.csv`` with at least a column ``norm_before``.

        In a ``.csv`` other columns are those of ``to_frame``; what is missing was not clipped, and
        steps follow one another. Nothing in a file is ever run. ``OSError`` if it cannot be read,
        ``ValueError`` if it is damaged, contradicts itself, or holds something else.
        """
        return files.load(path, History)
