"""Tensors in, matplotlib figures out; nothing here touches pyplot or the screen."""

from cnn_lightning.figures.comparison import draw_comparison
from cnn_lightning.figures.predictions import draw_predictions
from cnn_lightning.figures.saving import to_array, to_png

__all__ = ["draw_comparison", "draw_predictions", "to_array", "to_png"]
