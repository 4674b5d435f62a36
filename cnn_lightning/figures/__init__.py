"""Tensors in, matplotlib figures out; nothing here touches pyplot or the screen."""

from cnn_lightning.figures.comparison import draw_comparison
from cnn_lightning.figures.feature_maps import draw_feature_maps
from cnn_lightning.figures.kernels import draw_kernels
from cnn_lightning.figures.predictions import draw_predictions
from cnn_lightning.figures.saving import to_array, to_png

__all__ = [
    "draw_comparison",
    "draw_feature_maps",
    "draw_kernels",
    "draw_predictions",
    "to_array",
    "to_png",
]
