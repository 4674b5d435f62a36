"""Optimizers, learning-rate schedules and parameter groups."""

from cnn_lightning.optim.building import split_weight_decay
from cnn_lightning.optim.muon import orthogonalize
from cnn_lightning.optim.muon_adamw import MuonAdamW
from cnn_lightning.optim.muon_sgd import MuonSGD
from cnn_lightning.optim.schedules import WarmupCosine, WarmupLinear, WarmupSteps

__all__ = [
    "MuonAdamW",
    "MuonSGD",
    "WarmupCosine",
    "WarmupLinear",
    "WarmupSteps",
    "orthogonalize",
    "split_weight_decay",
]
