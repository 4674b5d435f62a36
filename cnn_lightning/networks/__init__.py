"""Networks in plain torch, an architecture per file."""

from cnn_lightning.networks.airbench import AirbenchNetwork
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.googlenet import GoogLeNet
from cnn_lightning.networks.inception import InceptionV3
from cnn_lightning.networks.lenet import LeNet5
from cnn_lightning.networks.resnet import ResidualNetwork
from cnn_lightning.networks.sequential import SequentialNetwork
from cnn_lightning.networks.torchvision import TorchvisionNetwork
from cnn_lightning.networks.vgg import VGG

__all__ = [
    "VGG",
    "AirbenchNetwork",
    "GoogLeNet",
    "InceptionV3",
    "LeNet5",
    "Network",
    "ResidualNetwork",
    "SequentialNetwork",
    "TorchvisionNetwork",
]
