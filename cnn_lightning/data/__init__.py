"""Data modules: files to uint8 tensors to batches."""

from cnn_lightning.data.base import ImageDataModule
from cnn_lightning.data.cifar10 import CIFAR10DataModule
from cnn_lightning.data.folder import ImageFolderDataModule
from cnn_lightning.data.loader import Batch, Features, ImageLoader, Sharding
from cnn_lightning.data.mnist import MNISTDataModule
from cnn_lightning.data.shapes import ShapesDataModule
from cnn_lightning.data.table import ImageCSVDataModule
from cnn_lightning.data.unlabelled import UnlabelledDataModule

__all__ = [
    "Batch",
    "CIFAR10DataModule",
    "Features",
    "ImageCSVDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageLoader",
    "MNISTDataModule",
    "ShapesDataModule",
    "Sharding",
    "UnlabelledDataModule",
]
