"""A matplotlib figure that a notebook shows without pyplot."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["NotebookFigure"]


class NotebookFigure(Figure):
    """A figure that pyplot does not manage: it needs no display, and nothing keeps it alive."""

    def png(self) -> bytes:
        """Return the figure as a PNG image."""
        image = io.BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()
