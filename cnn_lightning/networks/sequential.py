"""A network given as a plain `nn.Sequential`, cut into backbone and head."""

from torch import nn

from cnn_lightning.errors import UserError
from cnn_lightning.networks.base import Network
from cnn_lightning.networks.layers import use_no_inplace


class SequentialNetwork(Network):
    """A sequence of layers whose last one with weights is the head, with all that follows it.

    Takes images of any size that the layers take; activations are made not in place.

    Args:
        layers: Images N×C×H×W to logits N×K.

    Raises:
        UserError: There are not two layers with weights, or the last layer is a softmax.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
        >>> network = SequentialNetwork(layers)
        >>> len(network.backbone), network.head
        (3, Linear(in_features=4, out_features=2, bias=True))
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        if len(layers) and isinstance(layers[-1], nn.Softmax | nn.Softmax2d):
            raise UserError(
                "the network ends with a softmax",
                "leave it out: a network gives logits, and the loss takes their softmax",
            )
        weighty = [place for place, layer in enumerate(layers) if _has_weights(layer)]
        if len(weighty) < 2:
            raise UserError(
                f"a network of {len(weighty)} layers with weights cannot be cut into backbone and "
                "head",
                "give nn.Sequential at least two of them, or subclass Network",
            )
        self.backbone, head = layers[: weighty[-1]], layers[weighty[-1] :]
        self.head = head[0] if len(head) == 1 else head
        last = [p for p in self.head.parameters() if p.ndim > 1]
        self.num_features = int(last[0].shape[1])
        use_no_inplace(self)


def as_network(module: nn.Module) -> Network:
    """A module with a backbone and a head.

    Args:
        module: A `Network`, or a `nn.Sequential` for `SequentialNetwork`.

    Raises:
        UserError: It is neither, or cannot be cut.
    """
    if isinstance(module, Network):
        return module
    if isinstance(module, nn.Sequential):
        return SequentialNetwork(module)
    raise UserError(
        f"{type(module).__name__} does not say which part of it is the head",
        "give nn.Sequential(backbone, head), or subclass cnn_lightning.networks.Network",
    )


def _has_weights(layer: nn.Module) -> bool:
    """Whether it has matrices; batch norm has vectors alone."""
    return any(parameter.ndim > 1 for parameter in layer.parameters())
