"""What a run will ask beside its looks, as a range: from the number of images alone, then from the descriptions.

In: numbers. Out: (low, high) calls for one interest. Promise: pure. Nothing is cut back to make a forecast come true.
"""

from __future__ import annotations

import math

from manylens.method.naming import CLUSTERS_PER_CALL
from manylens.method.vocabulary import BATCH
from manylens.records import Effort

_TRIAL = (12, 48)
"""Calls of the trial, at least and at most."""

_PER_IMAGE: dict[Effort, tuple[float, float]] = {
    "low": (0.02, 0.6),
    "normal": (0.03, 0.9),
    "high": (0.05, 1.2),
    "max": (0.3, 1.6),
}
_PER_UNIT: dict[Effort, tuple[float, float]] = {
    "low": (0.2, 1.2),
    "normal": (0.3, 1.6),
    "high": (0.5, 2.2),
    "max": (1.0, 4.0),
}
_PER_MEMBER: dict[Effort, tuple[float, float]] = {
    "low": (0.0, 0.2),
    "normal": (0.02, 0.3),
    "high": (0.04, 0.5),
    "max": (0.2, 1.1),
}
"""Choices an image before anything is known; then a unit, and an image of those that share one (docs/simulation.md)."""


def calls_before_looks(images: int, effort: Effort, writes: bool) -> tuple[int, int]:
    """From the number of images alone: a model that speaks in kinds takes the least, one that writes prose the most."""
    if images < 2:
        return 0, 0
    low, high = _PER_IMAGE[effort]
    texts = (2, 4 + math.ceil(images / BATCH)) if writes else (0, 0)
    return min(_TRIAL[0], images) + round(low * images) + texts[0], _TRIAL[1] + round(high * images) + texts[1]


def calls_after_looks(
    images: int, descriptions: int, units: int, effort: Effort, writes: bool, writings: int = 0
) -> tuple[int, int]:
    """Once the descriptions are in. units: what the walks gathered; writings: texts that were asked for already."""
    if units < 2:
        return writings, writings + 1
    per_unit, per_member = _PER_UNIT[effort], _PER_MEMBER[effort]
    naming = (1, 2 + math.ceil(min(units, descriptions) / CLUSTERS_PER_CALL)) if writes else (0, 0)
    rest = max(0, images - units)
    low, high = (_TRIAL[k] + per_unit[k] * units + per_member[k] * rest + naming[k] + writings for k in (0, 1))
    return round(low), round(high)
