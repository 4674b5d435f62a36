"""A figure whose parts are placed in pixels, from the upper left corner."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from cnn_lightning.figures.style import new_figure


class Page:
    """An empty figure to be filled by pixel positions.

    Args:
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure: Figure = new_figure(width, height)
        self.figure.set_layout_engine("none")  # everything has its place already

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes that fill this box."""
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def text(self, left: float, top: float, text: str, **kwargs: Any) -> Text:
        """Text whose first line begins here; `kwargs` as for `Figure.text`."""
        kwargs = {"ha": "left", "va": "top", "fontsize": 10, "parse_math": False, **kwargs}
        return self.figure.text(left / self.width, 1 - top / self.height, text, **kwargs)
