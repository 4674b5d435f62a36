"""Any other classification network of torchvision, its head replaced."""

from typing import Any

from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.classifiers.transfer import size_of_weights
from cnn_lightning.networks import TorchvisionNetwork


class TorchvisionClassifier(ImageClassifier):
    """A torchvision network by name: `alexnet`, `squeezenet1_1`, `densenet121`, ….

    Args:
        num_classes: Classes to tell apart, at least 2.
        in_channels: Colour channels of an image.
        name: As `torchvision.models.list_models()` gives it. A vision transformer (`vit_…`) is
            built for images of `image_size`, or of the size of its weights.
        **kwargs: As for `ImageClassifier`.

    Example:
        >>> import torch
        >>> classifier = TorchvisionClassifier(num_classes=5, name="squeezenet1_1")
        >>> classifier.eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 5])
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, name: str, **kwargs: Any) -> None:
        self.torchvision_name = name
        size = kwargs.get("image_size") or size_of_weights(name, kwargs.get("weights"))
        network = TorchvisionNetwork(name, num_classes, in_channels, image_size=size)
        super().__init__(network, **kwargs)
        if network.max_size is not None and size is not None:
            # a checkpoint does not tell where its weights came from when it is loaded
            self.hparams["image_size"] = self.image_size = size
