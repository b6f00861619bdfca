"""The clusters an image can go to once the walks are done: how they are stated, how near they are, who refused whom.

In: looks, drafts. Out: `Targets` and `Refusals`, which offers and second looks share. Promise: pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manylens.evidence import Draft, EdgeScale, Looks, Profile, centroid, draw_profile
from manylens.records import Settings

FAR = -3.0
"""The most, in log-odds, that similarity says against an image's belonging to a cluster."""


@dataclass(slots=True)
class Refusals:
    """Who refused whom: image -> keys of the clusters that did, and how many of them did so at an offer.

    trusted: offers accepted unasked; audits: (asked, refused) of those that would have been, round by round.
    """

    keys: dict[int, set[int]] = field(default_factory=dict)
    offers: dict[int, int] = field(default_factory=dict)
    trusted: int = 0
    audits: list[tuple[int, int]] = field(default_factory=list)

    def add(self, image: int, keys: frozenset[int]) -> None:
        self.keys.setdefault(image, set()).update(keys)
        self.offers[image] = self.offers.get(image, 0) + 1


class Targets:
    """The large clusters an image can go to: profiles, and who is nearest to an image."""

    def __init__(self, looks: Looks, drafts: Sequence[Draft], numbers: Sequence[int], settings: Settings) -> None:
        self.looks = looks
        self.numbers = list(numbers)
        self._rows = {number: row for row, number in enumerate(self.numbers)}
        self.profiles: dict[int, Profile] = {
            number: draw_profile(looks, drafts[number].members, settings.exemplars) for number in self.numbers
        }
        self.centroids: NDArray[np.float64] = np.array(
            [centroid(looks, drafts[number].members) for number in self.numbers], dtype=np.float64
        ).reshape(len(self.numbers), looks.embeddings.shape[1])

    def close(self, image: int, number: int, edge: EdgeScale | None) -> float:
        """What similarity says against an image's belonging to a cluster: log-odds in [`FAR`, 0]."""
        if edge is None:
            return 0.0
        row = self.centroids[self._rows[number]]
        return min(max(edge.log_odds(float(row @ self.looks.embeddings[image].astype(np.float64))), FAR), 0.0)

    def nearest(self, image: int) -> list[int]:
        """The clusters nearest to an image: those of its own description first, then by centroid; ties by number."""
        similarity = np.round(self.centroids @ self.looks.embeddings[image].astype(np.float64), 6)
        words = self.looks.words[image]
        order = sorted(
            range(len(self.numbers)),
            key=lambda k: (not words or self.profiles[self.numbers[k]].words != words, -similarity[k], k),
        )
        return [self.numbers[k] for k in order]
