"""Classifiers: LightningModules, each around one network."""

from cnn_lightning.classifiers.airbench import Airbench
from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.classifiers.inception import Inception
from cnn_lightning.classifiers.interfaces import Predictions
from cnn_lightning.classifiers.lenet import LeNet
from cnn_lightning.classifiers.resnet import ResNet
from cnn_lightning.classifiers.torchvision import TorchvisionClassifier
from cnn_lightning.classifiers.vgg import VGG16

__all__ = [
    "VGG16",
    "Airbench",
    "ImageClassifier",
    "Inception",
    "LeNet",
    "Predictions",
    "ResNet",
    "TorchvisionClassifier",
]
