"""A figure of the running training, redrawn in the notebook."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from types import TracebackType

from cliplab.checks import check_positive
from cliplab.history.ring import Ring

Show = Callable[[bytes], object]  # of a PNG


class Live:
    """A figure that follows a history; ``close()`` it, or use it as a context manager."""

    def __init__(self, history: Ring, every: float) -> None:
        self._every = check_positive("every", every, zero=True)
        self._history = history
        self._next = self._cost = 0.0  # when to draw again, what the last drawing took (seconds)
        self._drawn = 0  # number of steps there had been
        self._show, self._forget = _find_notebook(self._draw_the_rest)
        if history.follower is not None:
            history.follower.close()
        if self._show is not None:
            history.follower = self

    @property
    def is_open(self) -> bool:
        """Whether new steps are still drawn."""
        return self._history.follower is self

    def update(self) -> None:
        """Draw again if it is time; a figure that fails is closed and never ends a training."""
        begun = time.monotonic()
        if begun < self._next:
            return
        try:
            self._draw()
        except Exception as error:
            self._stop()
            warnings.warn(f"watch() stopped: {error!r}", stacklevel=2)
        self._drawn = self._steps()
        before, self._cost = self._cost, time.monotonic() - begun
        # A slow drawing among fast ones, as the first one is, is no reason to wait.
        self._next = begun + max(self._every, 10 * min(before, self._cost))

    def close(self) -> None:
        """Draw what is not drawn yet, and stop."""
        self._draw_the_rest()
        if self.is_open:
            self._stop()

    def _draw_the_rest(self, *_: object) -> None:
        if self.is_open and self._drawn < self._steps():
            self._next = 0.0
            self.update()

    def _steps(self) -> int:
        return self._history.first_step + len(self._history)

    def _stop(self) -> None:
        self._history.follower = None
        self._forget()

    def _draw(self) -> None:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        from cliplab import plots

        if self._show is None or not len(self._history):
            return
        with mpl.rc_context():
            plots.theme()
            figure = Figure(figsize=plots.WIDE, layout="constrained")
            plots.overview(self._history, figure=figure)
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=80)
        self._show(image.getvalue())

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ipython_display_(self) -> None:
        """Show nothing: the figure stands where ``watch()`` was called."""

    def __repr__(self) -> str:
        state = "open until close()" if self.is_open else "closed"
        return f"Live({self._drawn} steps drawn, {state})"


def _find_notebook(at_cell_end: Callable[..., None]) -> tuple[Show | None, Callable[[], None]]:
    """What shows a PNG in this notebook, always in the same place, and what ends it.

    ``at_cell_end`` is called until then. Outside of a notebook nothing is shown: None.
    """
    try:
        from IPython import get_ipython
        from IPython.display import HTML, Image, display
    except ImportError:
        return None, lambda: None
    shell = get_ipython()
    if not hasattr(shell, "kernel"):
        return None, lambda: None
    from cliplab import plots  # noqa: F401  (says now, not in the training loop, what is missing)

    handle = display(HTML(""), display_id=True)
    shell.events.register("post_run_cell", at_cell_end)

    def forget() -> None:
        shell.events.unregister("post_run_cell", at_cell_end)

    return lambda png: handle.update(Image(data=png)), forget
