"""What is measured over a whole split, summed over batches and processes."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from cnn_lightning.classifiers.calibration import CalibrationError


class EvaluationMetrics(nn.Module):
    """Loss and accuracy of a split; in detail also top 3, calibration, accuracy of each class.

    Args:
        num_classes: K.
        detailed: Whether to measure all of it.
    """

    def __init__(self, num_classes: int, *, detailed: bool = False) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")  # which would leave a bad batch out
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.detailed = detailed
        if detailed:
            self.top3 = MulticlassAccuracy(num_classes, average="micro", top_k=min(3, num_classes))
            self.calibration_error = CalibrationError()
            self.per_class = _ClassAccuracy(num_classes, average=None)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count in a batch: logits N×K and labels N int64."""
        # a value for each image: without its check for NaN the metric counts every value as one
        self.loss.update(F.cross_entropy(logits.float(), labels, reduction="none"))
        self.accuracy.update(logits, labels)
        if self.detailed:
            self.top3.update(logits, labels)
            self.calibration_error.update(logits.float().softmax(1), labels)
            self.per_class.update(logits, labels)

    def take(self, class_names: Sequence[str]) -> dict[str, Tensor]:
        """The numbers of the split by name, and begin anew.

        A class without images has no accuracy, and is left out.
        """
        numbers: dict[str, Tensor] = {}
        for name, metric in self.named_children():
            assert isinstance(metric, Metric)  # noqa: S101  # it holds nothing else
            value = metric.compute()
            if name == "per_class":
                named = zip(class_names, value, strict=True)
                numbers |= {f"accuracy/{c}": v for c, v in named if not v.isnan()}
            else:
                numbers[name] = value
            metric.reset()
        return numbers


class _ClassAccuracy(MulticlassAccuracy):
    """The accuracy of each class, K; nan for a class without images, which torchmetrics calls 0."""

    @override
    def compute(self) -> Tensor:
        right, _, _, missed = self._final_state()
        return right / (right + missed)
