"""The operations of a convolutional network on an image, as layers that can be worked out by hand.

What networks call convolution is cross-correlation: the kernel lies on the image as it is written
and is **not** flipped, as the convolution of mathematics would have it. A learnt kernel comes out
flipped instead, so it makes no difference to a network.
"""

from cnn_lightning.convolution.base import Operation, WorkedOut
from cnn_lightning.convolution.kernels import KERNELS, as_kernel
from cnn_lightning.convolution.layers import (
    AveragePooling,
    KnownConvolution,
    LearntConvolution,
    MaxPooling,
    PaddingMode,
)
from cnn_lightning.convolution.learning import learn_kernel
from cnn_lightning.convolution.sizes import convolution_size, pooling_size, transposed_size
from cnn_lightning.convolution.transposed import TransposedConvolution

__all__ = [
    "KERNELS",
    "AveragePooling",
    "KnownConvolution",
    "LearntConvolution",
    "MaxPooling",
    "Operation",
    "PaddingMode",
    "TransposedConvolution",
    "WorkedOut",
    "as_kernel",
    "convolution_size",
    "learn_kernel",
    "pooling_size",
    "transposed_size",
]
