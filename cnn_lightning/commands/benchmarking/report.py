"""Figures of a benchmark: medians, ratios, a table to read and values for JSON."""

import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.table import Table

_PACKAGES = ("cnn-lightning", "torch", "torchvision", "lightning", "numpy", "pillow")
_RATIOS = ("ratio", "95 %", "least–greatest")


@dataclass(frozen=True)
class Measurement:
    """One thing measured several times, beside a reference measured by turns with it.

    Args:
        part: `data`, `step`, `busyness`, `layout`, `memory`, `startup` or `features`.
        what: What was measured.
        unit: Of all values; `images/s` and `of the time` are better the more there are of them,
            everything else the less.
        values: One of each repeat.
        reference: What it is compared with; empty if with nothing.
        reference_values: One of each repeat.
    """

    part: str
    what: str
    unit: str
    values: Sequence[float]
    reference: str = ""
    reference_values: Sequence[float] = ()

    @property
    def median(self) -> float:
        """Of the repeats."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """The median of `ratios`, which a drift of the machine does not move.

        The median over the reference's median if the two did not take turns; `None` without a
        reference.
        """
        if not self.reference_values:
            return None
        if self.ratios:
            return statistics.median(self.ratios)
        return self.median / statistics.median(self.reference_values)

    @property
    def ratios(self) -> list[float]:
        """That of each repeat and its neighbour in time; empty if the two did not take turns."""
        if len(self.values) != len(self.reference_values):
            return []
        return [a / b for a, b in zip(self.values, self.reference_values, strict=True)]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the ratio lies with 95 % confidence, whatever the turns' distribution.

        Two of the ratios, counted from either end so that a median lies between them at least so
        often (Conover, Practical Nonparametric Statistics, 3rd ed., 1999, section 3.2); `None` for
        fewer than six.
        """
        ratios, cut, outside = sorted(self.ratios), 0, 0.0
        for count in range(len(ratios) // 2):
            outside += 2 * math.comb(len(ratios), count) / 2 ** len(ratios)
            if outside > 0.05:
                break
            cut = count + 1
        return (ratios[cut - 1], ratios[-cut]) if cut else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        entry: dict[str, Any] = {
            "part": self.part,
            "what": self.what,
            "unit": self.unit,
            "values": list(self.values),
            "median": self.median,
        }
        if self.reference_values:
            entry["reference"] = {
                "what": self.reference,
                "values": list(self.reference_values),
                "median": statistics.median(self.reference_values),
            }
            entry["ratio"] = self.ratio
            entry["interval"] = self.interval
            entry["ratios"] = self.ratios
        return entry


def tabulate(measurements: Sequence[Measurement], title: str) -> Table:
    """A row per measurement: median, reference, ratio, its interval, least and greatest ratio."""
    table = Table(title=title, title_justify="left")
    for name in ("part", "measured", "median", "reference", "median", *_RATIOS):
        is_number = name in ("median", *_RATIOS)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for one in measurements:
        ratio = "" if one.ratio is None else _spell(one.ratio)
        sure = "–".join(map(_spell, one.interval or ()))
        ends = f"{_spell(min(one.ratios))}–{_spell(max(one.ratios))}" if one.ratios else ""
        reference = ""
        if one.reference_values:
            reference = f"{_spell(statistics.median(one.reference_values))} {one.unit}"
        mine = f"{_spell(one.median)} {one.unit}"
        table.add_row(one.part, one.what, mine, one.reference, reference, ratio, sure, ends)
    return table


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on and with."""
    found: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "python": platform.python_version(),
        "versions": {},
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    for name in _PACKAGES:
        try:
            found["versions"][name] = version(name)
        except PackageNotFoundError:  # run from its source, not installed
            found["versions"][name] = None
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as stream:  # noqa: PTH123  # no file of a run
            lines = [line for line in stream if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor()


def _spell(value: float) -> str:
    """Three digits, and all digits of large numbers.

    Example:
        >>> _spell(17234.6), _spell(0.98765), _spell(13.14)
        ('17,235', '0.988', '13.1')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
