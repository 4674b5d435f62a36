"""The Inception family as classifiers."""

from typing import Any, Literal

from cnn_lightning.choices import check_choice
from cnn_lightning.classifiers.base import ImageClassifier
from cnn_lightning.errors import UserError
from cnn_lightning.networks import GoogLeNet, InceptionV3, Network

Version = Literal["googlenet", "v3"]
Stem = Literal["small", "imagenet"]


class Inception(ImageClassifier):
    """GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842) or Inception v3 (2016, arXiv:1512.00567).

    Auxiliary heads are trained with the papers' weights, 0.3 and 0.4, and are out of the way in
    evaluation and where the backbone is frozen.

    Args:
        num_classes: Classes to tell apart, at least 2.
        in_channels: Colour channels of an image.
        version: `googlenet` or `v3`.
        stem: `small` for images of about 32 pixels (GoogLeNet alone), `imagenet` for larger ones
            and pretrained weights.
        **kwargs: As for `ImageClassifier`.

    Example:
        >>> import torch
        >>> classifier = Inception(num_classes=10, version="googlenet", stem="small")
        >>> classifier.eval()(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        *,
        version: Version = "v3",
        stem: Stem = "imagenet",
        **kwargs: Any,
    ) -> None:
        check_choice("version", version, Version)
        check_choice("stem", stem, Stem)
        network: Network
        if version == "googlenet":
            network = GoogLeNet(num_classes, in_channels, stem=stem)
        elif stem == "small":
            raise UserError("Inception v3 has no stem for small images", "use `version: googlenet`")
        else:
            network = InceptionV3(num_classes, in_channels)
        self.torchvision_name = "googlenet" if version == "googlenet" else "inception_v3"
        super().__init__(network, **kwargs)
