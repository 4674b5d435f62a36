"""Loss by learning rate, and the rate that is suggested."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from cnn_lightning.figures.style import BLUE, GREY, VERMILION, new_figure


def draw_range_test(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    title: str,
    *,
    suggestion: int | None,
) -> Figure:
    """Draw losses and their smoothed curve against the learning rate, on a logarithmic axis.

    What lies far above the smoothed curve, or above twice its start, is cut off.

    Args:
        rates: Learning rates, above 0.
        losses: Of each rate, finite.
        smoothed: Of each rate.
        title: Stands above all.
        suggestion: Place of the suggested rate, which is marked.

    Returns:
        A figure of 100 dots per inch.
    """
    figure = new_figure(800, 450)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    axes = figure.subplots()
    axes.plot(
        rates, losses, ".", color=GREY, markersize=4, alpha=0.5, label="loss of a step's batch"
    )
    axes.plot(rates, smoothed, color=BLUE, linewidth=2, label="median of the steps around")
    if suggestion is not None:
        rate, loss = rates[suggestion], smoothed[suggestion]
        axes.axvline(rate, color=VERMILION, linestyle="--", linewidth=1)
        axes.plot(
            [rate], [loss], "o", color=VERMILION, markersize=9, label=f"suggested: {rate:.2g}"
        )
    axes.set_xscale("log")
    bottom, top = min(losses), min(2 * smoothed[0], max(smoothed))
    axes.set_ylim(bottom - 0.1 * (top - bottom), top + 0.3 * (top - bottom))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
