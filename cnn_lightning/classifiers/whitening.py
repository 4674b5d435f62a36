"""First layers that are set by the training images, before the first step."""

import torch

from cnn_lightning.classifiers.interfaces import ImageData
from cnn_lightning.networks import Network
from cnn_lightning.networks.layers import PatchWhitening

# 3.2 of Jordan 2024 (arXiv:2404.00498)
_NUM_IMAGES = 5000


def fit_whitening(network: Network, data: ImageData) -> None:
    """Set the whitening layers of a network, unless their weights came from elsewhere.

    Args:
        network: Any; one without such layers is left as it is.
        data: Whose training images are looked at, 5,000 at most, evenly spread.
    """
    layers = [one for one in network.modules() if isinstance(one, PatchWhitening)]
    unset = [layer for layer in layers if not layer.is_fitted]
    if unset:
        indices = data.stage_indices("train")
        # evenly: files of a folder come class by class
        places = torch.linspace(0, len(indices) - 1, min(_NUM_IMAGES, len(indices)))
        images = data.prepare(data.load("train")[0][indices[places.round().long()]])
        for layer in unset:
            layer.fit_to(images)
