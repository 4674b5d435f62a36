"""Tensors in, matplotlib figures out; nothing here touches pyplot or the screen."""

from cnn_lightning.figures.convolution import draw_operation
from cnn_lightning.figures.learnt_kernel import draw_learning
from cnn_lightning.figures.operation_example import OperationExample
from cnn_lightning.figures.predictions import draw_predictions
from cnn_lightning.figures.saving import to_array, to_png

__all__ = [
    "OperationExample",
    "draw_learning",
    "draw_operation",
    "draw_predictions",
    "to_array",
    "to_png",
]
