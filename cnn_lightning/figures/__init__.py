"""Tensors in, matplotlib figures out; nothing here touches pyplot or the screen."""

from cnn_lightning.figures.confusion import draw_confusion_matrix
from cnn_lightning.figures.evaluation import draw_class_accuracy, draw_reliability
from cnn_lightning.figures.predictions import draw_predictions
from cnn_lightning.figures.saving import to_array, to_png

__all__ = [
    "draw_class_accuracy",
    "draw_confusion_matrix",
    "draw_predictions",
    "draw_reliability",
    "to_array",
    "to_png",
]
