"""Learning-rate schedules and parameter groups."""

from cnn_lightning.optim.building import split_weight_decay
from cnn_lightning.optim.schedules import WarmupCosine, WarmupLinear, WarmupSteps

__all__ = ["WarmupCosine", "WarmupLinear", "WarmupSteps", "split_weight_decay"]
