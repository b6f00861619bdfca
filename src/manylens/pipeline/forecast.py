"""What a run will ask beside its looks, as a range: from the number of images alone, then from the descriptions.

In: numbers. Out: (low, high) calls for one interest. Promise: pure. Nothing is cut back to make a forecast come true.
"""

from __future__ import annotations

import math

from manylens.method.naming import CLUSTERS_PER_CALL
from manylens.method.vocabulary import BATCH
from manylens.settings import Effort

_TRIAL = (0, 72)
"""Calls of the trial: none where all that was described is alike."""

_FEW = 60
"""In a collection of so few images every second one may be a kind of its own, and kinds are compared."""

_PER_IMAGE: dict[Effort, tuple[float, float]] = {
    "low": (0.02, 0.9),
    "normal": (0.03, 1.2),
    "high": (0.05, 1.6),
    "max": (0.2, 2.5),
}
_PER_UNIT: dict[Effort, tuple[float, float]] = {
    "low": (0.0, 1.5),
    "normal": (0.0, 2.0),
    "high": (0.0, 2.6),
    "max": (0.2, 4.0),
}
_PER_MEMBER: dict[Effort, tuple[float, float]] = {
    "low": (0.0, 0.4),
    "normal": (0.02, 0.6),
    "high": (0.04, 0.9),
    "max": (0.2, 1.6),
}
"""Choices an image before anything is known; then a unit, and an image of those that share one
(docs/development/simulation.md)."""


def calls_before_looks(images: int, effort: Effort, writes: bool, asks: bool = True) -> tuple[int, int]:
    """From the number of images alone: a model that calls all of them the same takes the least, one that writes prose
    the most. asks: whether its answers can tell more than its looks do."""
    if not images or not asks:
        return 0, 0
    low, high = _PER_IMAGE[effort]
    texts = (1, 4 + math.ceil(images / BATCH)) if writes and images > 1 else (0, 0)
    most = _TRIAL[1] + high * images + min(images, _FEW)
    return round(low * images) + texts[0], round(most) + texts[1]


def calls_after_looks(
    images: int, descriptions: int, units: int, effort: Effort, writes: bool, writings: int = 0
) -> tuple[int, int]:
    """Once the descriptions are in. units: what the walks gathered; writings: texts that were asked for already."""
    if not units:
        return writings, writings
    per_unit, per_member = _PER_UNIT[effort], _PER_MEMBER[effort]
    naming = (0, 2 + math.ceil(min(units, descriptions) / CLUSTERS_PER_CALL)) if writes else (0, 0)
    rest = max(0, images - units)
    few = (0, min(units, _FEW))
    trial = (0, 0) if units == 1 else _TRIAL
    low, high = (trial[k] + round(per_unit[k] * units + per_member[k] * rest) + few[k] + naming[k] for k in (0, 1))
    return low + writings, high + writings
