"""`torch.compile` for the network inside a classifier."""

import lightning as L
import torch
from torch import nn
from typing_extensions import override

from cnn_lightning.classifiers import ImageClassifier
from cnn_lightning.errors import UserError
from cnn_lightning.networks import Network

# of inductor, as `torch.compile` documents them
_GRAPHS = ("reduce-overhead", "max-autotune")
_MODES = (*_GRAPHS, "max-autotune-no-cudagraphs")


class Compilation(L.Callback):
    """Compiles the network when training begins, in place: names of its weights stay.

    Hooks are heard all the same: what listens to layers runs them uncompiled.

    Args:
        backend: One of `torch.compiler.list_backends(None)`, or a mode of inductor:
            `reduce-overhead` replays a step's kernels as one CUDA graph, `max-autotune` tries more
            kernels too, `max-autotune-no-cudagraphs` does that alone.

    Raises:
        UserError: There is no such backend or mode, or gradients are to be added up over several
            batches on a GPU by one that uses CUDA graphs.
    """

    def __init__(self, backend: str = "inductor") -> None:
        known = [*torch.compiler.list_backends(None), *_MODES]
        if backend not in known:
            raise UserError(
                f"torch cannot compile with {backend!r}", f"use one of {', '.join(known)}"
            )
        self.backend = backend

    def compile(self, network: Network) -> None:
        """Compile a network in place."""
        for part in parts_to_compile(network):
            if self.backend in _MODES:
                part.compile(mode=self.backend)
            else:
                part.compile(backend=self.backend)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        is_on_cuda = trainer.strategy.root_device.type == "cuda"
        if self.backend in _GRAPHS and is_on_cuda and trainer.accumulate_grad_batches > 1:
            # a graph writes its gradients where it wrote the last ones: github.com/pytorch/pytorch
            # issues 96693 and 169545
            raise UserError(
                f"--compile {self.backend} uses CUDA graphs, with which gradients do not add up "
                f"over {trainer.accumulate_grad_batches} batches",
                "use --compile true, or --trainer.accumulate_grad_batches 1",
            )

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # not earlier: the model summary has run by now, with hooks that would be compiled in
        if isinstance(pl_module, ImageClassifier):
            self.compile(pl_module.network)


def parts_to_compile(network: Network) -> list[nn.Module]:
    """The network; where auxiliary heads branch off in training, its blocks one by one as well."""
    if not network.auxiliary_weight:
        return [network]
    blocks = [block for child in network.children() for block in [*child.children()] or [child]]
    return [network, *blocks]
