"""What training minimises."""

from torch import Tensor

from cnn_lightning.classifiers.class_weights import weighted_cross_entropy
from cnn_lightning.errors import UserError


def training_loss(
    logits: Tensor,
    auxiliary: list[Tensor],
    targets: Tensor,
    *,
    auxiliary_weight: float = 0.0,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy, with smoothed labels if so wished, auxiliary heads included.

    Label smoothing (Szegedy et al. 2016, arXiv:1512.00567, 7) takes e from what a label says and
    spreads it evenly over the K classes: q'(k) = (1 - e) q(k) + e / K.

    Args:
        logits: N×K.
        auxiliary: Logits N×K of each auxiliary head.
        targets: N int64, or N×K float whose rows sum to 1: the loss is then that of each class,
            weighed by its share.
        auxiliary_weight: Share of each auxiliary head's loss.
        label_smoothing: e, 0..1.
        class_weights: How much an image of each class counts, K; `None` counts all alike.
    """
    own, *others = (
        weighted_cross_entropy(one, targets, class_weights, label_smoothing=label_smoothing)
        for one in (logits, *auxiliary)
    )
    return own + auxiliary_weight * sum(others) if others else own


def check_smoothing(label_smoothing: float) -> None:
    """Refuse shares of a label that cannot be meant.

    Raises:
        UserError: `label_smoothing` is not in 0..1, or 1, which leaves nothing to learn.
    """
    if not 0 <= label_smoothing < 1:
        raise UserError(
            f"label_smoothing is {label_smoothing}", "give a share from 0 to below 1, such as 0.1"
        )
