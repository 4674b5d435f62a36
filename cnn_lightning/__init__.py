"""Understand, train and trust convolutional networks with PyTorch Lightning."""

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "ActivationStatistics": "callbacks",
    "Airbench": "classifiers",
    "AveragePooling": "convolution",
    "CIFAR10DataModule": "data",
    "FeatureMaps": "callbacks",
    "ImageCSVDataModule": "data",
    "ImageClassifier": "classifiers",
    "ImageDataModule": "data",
    "ImageFolderDataModule": "data",
    "Inception": "classifiers",
    "Kernels": "callbacks",
    "KnownConvolution": "convolution",
    "LeNet": "classifiers",
    "LearntConvolution": "convolution",
    "MNISTDataModule": "data",
    "MaxPooling": "convolution",
    "ResNet": "classifiers",
    "ShapesDataModule": "data",
    "TorchvisionClassifier": "classifiers",
    "TransposedConvolution": "convolution",
    "UserError": "errors",
    "UnlabelledDataModule": "data",
    "VGG16": "classifiers",
}

__all__ = ["__version__", *_PLACES]  # names, loaded on first use


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `import cnn_lightning` takes no time."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
