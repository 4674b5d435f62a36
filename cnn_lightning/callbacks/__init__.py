"""Callbacks: when to look, and where the result goes."""

from cnn_lightning.callbacks.activation_statistics import ActivationStatistics
from cnn_lightning.callbacks.bad_numbers import BadNumbers
from cnn_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from cnn_lightning.callbacks.compilation import Compilation
from cnn_lightning.callbacks.epoch_pictures import EpochPictures
from cnn_lightning.callbacks.evaluation_figures import EvaluationFigures
from cnn_lightning.callbacks.feature_cache import FeatureCache
from cnn_lightning.callbacks.feature_maps import FeatureMaps
from cnn_lightning.callbacks.gradient_norm import GradientNorm
from cnn_lightning.callbacks.kept_memory import KeptMemory
from cnn_lightning.callbacks.kernels import Kernels
from cnn_lightning.callbacks.network_summary import NetworkSummary
from cnn_lightning.callbacks.prediction_files import NUM_RANKED, PredictionFiles
from cnn_lightning.callbacks.prediction_grid import PredictionGrid
from cnn_lightning.callbacks.progress import Bar, EpochLines
from cnn_lightning.callbacks.resumed_config import ResumedConfig
from cnn_lightning.callbacks.same_folder import SameFolder
from cnn_lightning.callbacks.throughput import Throughput
from cnn_lightning.callbacks.weight_average import WeightAverage

__all__ = [
    "NUM_RANKED",
    "ActivationStatistics",
    "BadNumbers",
    "Bar",
    "BestCheckpoint",
    "Compilation",
    "EpochLines",
    "EpochPictures",
    "EvaluationFigures",
    "FeatureCache",
    "FeatureMaps",
    "GradientNorm",
    "KeptMemory",
    "Kernels",
    "LastCheckpoint",
    "NetworkSummary",
    "PredictionFiles",
    "PredictionGrid",
    "ResumedConfig",
    "SameFolder",
    "Throughput",
    "WeightAverage",
]
