"""Understand, train and trust convolutional networks with PyTorch Lightning."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see of the names that are loaded on first use
    from cnn_lightning.callbacks import ActivationStatistics as ActivationStatistics
    from cnn_lightning.callbacks import FeatureMaps as FeatureMaps
    from cnn_lightning.callbacks import Kernels as Kernels
    from cnn_lightning.classifiers import VGG16 as VGG16
    from cnn_lightning.classifiers import Airbench as Airbench
    from cnn_lightning.classifiers import ImageClassifier as ImageClassifier
    from cnn_lightning.classifiers import Inception as Inception
    from cnn_lightning.classifiers import LeNet as LeNet
    from cnn_lightning.classifiers import ResNet as ResNet
    from cnn_lightning.classifiers import TorchvisionClassifier as TorchvisionClassifier
    from cnn_lightning.convolution import AveragePooling as AveragePooling
    from cnn_lightning.convolution import KnownConvolution as KnownConvolution
    from cnn_lightning.convolution import LearntConvolution as LearntConvolution
    from cnn_lightning.convolution import MaxPooling as MaxPooling
    from cnn_lightning.convolution import TransposedConvolution as TransposedConvolution
    from cnn_lightning.data import CIFAR10DataModule as CIFAR10DataModule
    from cnn_lightning.data import ImageCSVDataModule as ImageCSVDataModule
    from cnn_lightning.data import ImageDataModule as ImageDataModule
    from cnn_lightning.data import ImageFolderDataModule as ImageFolderDataModule
    from cnn_lightning.data import MNISTDataModule as MNISTDataModule
    from cnn_lightning.data import ShapesDataModule as ShapesDataModule
    from cnn_lightning.data import UnlabelledDataModule as UnlabelledDataModule
    from cnn_lightning.errors import UserError as UserError
    from cnn_lightning.networks import Network as Network

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
    "Network": "networks",
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
