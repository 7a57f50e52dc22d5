"""By this path notebooks import from :mod:`cliplab.lab.notebook.cells`."""

from cliplab.lab.notebook.cells import title_and_question

__all__ = ["title_and_question"]
