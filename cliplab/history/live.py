"""A figure of the running training, redrawn in the notebook."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from types import TracebackType

from cliplab.checks import check_positive
from cliplab.history.ring import Ring


class Live:
    """A figure that follows a history; ``close()`` it, or use it as a context manager."""

    def __init__(self, history: Ring, every: float) -> None:
        self._every = check_positive("every", every, zero=True)
        self._history, self._next = history, 0.0
        self._show = _find_display()
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
            self._history.follower = None
            warnings.warn(f"watch() stopped: {error!r}", stacklevel=2)
        now = time.monotonic()
        self._next = now + max(self._every, 9 * (now - begun))

    def close(self) -> None:
        """Draw a last time and stop."""
        if self.is_open:
            self._next = 0.0
            self.update()
            self._history.follower = None

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        from cliplab import plots

        if self._show is None or not len(self._history):
            return
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


def _find_display() -> Callable[[bytes], object] | None:
    """Return what shows a PNG in this notebook, always in the same place; None without one."""
    try:
        from IPython import get_ipython
        from IPython.display import HTML, Image, display
    except ImportError:
        return None
    if not hasattr(get_ipython(), "kernel"):
        return None
    from cliplab import plots  # noqa: F401  (says now, not in the training loop, what is missing)

    handle = display(HTML(""), display_id=True)
    return lambda png: handle.update(Image(data=png))
