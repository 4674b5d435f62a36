"""The layers of the network, as training starts."""

import warnings

import lightning as L
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary.model_summary import summarize
from typing_extensions import override

from cnn_lightning.console import say

_NETWORK = "network."
_MOST_ROWS = 50
_Row = tuple[str, str, str, str]


class NetworkSummary(ModelSummary):
    """Says which layers the network has, with the shape of what each gives for one image.

    Layers have the names by which `--feature_maps.layers` and `inspect --layers` know them. Blocks
    are opened as long as the table has at most 50 rows.
    """

    def __init__(self) -> None:
        super().__init__(max_depth=-1)

    @override
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with warnings.catch_warnings():
            # of a size in MB, which is not shown
            warnings.filterwarnings("ignore", message="Precision .* is not supported by the model")
            found = summarize(pl_module, max_depth=self._max_depth)
        columns = (found.layer_names, found.layer_types, found.out_sizes, found.param_nums)
        rows = [
            (name.removeprefix(_NETWORK), kind, _shape(size), f"{count:,}" if count else "")
            for name, kind, size, count in zip(*columns, strict=True)
            if name.startswith(_NETWORK)  # the others are metrics
        ]
        rows = [("layer", "type", "output", "parameters"), *_shallow(rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, kind, shape, count in rows:
            say(
                f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:>{widths[2]}}  "
                f"{count:>{widths[3]}}"
            )
        total, trained = found.total_parameters, found.trainable_parameters
        share = "" if trained == total else f", {trained:,} of them trained"
        say(f"{total:,} parameters{share}")


def _shallow(rows: list[_Row]) -> list[_Row]:
    """The rows down to the depth of which a table still holds all."""
    depths = [name.count(".") for name, *_ in rows]
    kept = max(
        (depth for depth in set(depths) if sum(one <= depth for one in depths) <= _MOST_ROWS),
        default=0,
    )
    return [row for row, depth in zip(rows, depths, strict=True) if depth <= kept]


def _shape(size: str | list[int] | list[list[int]]) -> str:
    """The shape for one image of a batch, such as 6×28×28; nothing where it is not one tensor."""
    return "×".join(str(side) for side in size[1:] if isinstance(side, int)) if size else ""
