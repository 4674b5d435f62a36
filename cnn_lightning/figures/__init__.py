"""Tensors in, pictures out: matplotlib figures, or sheets of pixels where speed counts.

Nothing here touches pyplot or the screen.
"""

from cnn_lightning.figures.comparison import draw_comparison
from cnn_lightning.figures.confusion import draw_confusion_matrix
from cnn_lightning.figures.convolution import draw_operation
from cnn_lightning.figures.dataset_images import draw_named_images, draw_samples
from cnn_lightning.figures.datasets import draw_channel_statistics, draw_class_balance
from cnn_lightning.figures.evaluation import draw_class_accuracy, draw_reliability
from cnn_lightning.figures.feature_maps import WholeMaps, draw_feature_maps, shrink_maps
from cnn_lightning.figures.kernels import draw_kernels
from cnn_lightning.figures.layer_statistics import draw_layer_statistics
from cnn_lightning.figures.learning_rates import draw_range_test
from cnn_lightning.figures.learnt_kernel import draw_learning
from cnn_lightning.figures.operation_example import OperationExample
from cnn_lightning.figures.overlays import draw_overlays
from cnn_lightning.figures.predictions import draw_predictions
from cnn_lightning.figures.saving import to_array, to_png
from cnn_lightning.figures.sheet import Sheet

__all__ = [
    "OperationExample",
    "Sheet",
    "WholeMaps",
    "draw_channel_statistics",
    "draw_class_accuracy",
    "draw_class_balance",
    "draw_comparison",
    "draw_confusion_matrix",
    "draw_feature_maps",
    "draw_kernels",
    "draw_layer_statistics",
    "draw_learning",
    "draw_named_images",
    "draw_operation",
    "draw_overlays",
    "draw_predictions",
    "draw_range_test",
    "draw_reliability",
    "draw_samples",
    "shrink_maps",
    "to_array",
    "to_png",
]
