"""What a person should look at first: the images about which an answer is expected to put most right.

In: of each image how likely it is misplaced, its description and its cluster. Out: images in that order, no two of one
description and cluster before every such group had its turn. Promise: pure.

Images of one description that were placed with it are doubtful together: what all of them share is the doubt about
their unit, so one answer speaks for the unit, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.method.doubt import NONE, Spoken
from manylens.method.likelihood import FloatArray


@dataclass(frozen=True, slots=True)
class Doubtful:
    """image: index. doubt: the probability that it is misplaced. gain: images that one answer is expected to put right.
    alike: images of its description in its cluster."""

    image: int
    doubt: float
    gain: float
    alike: int


def queue(
    share: FloatArray,
    cluster: NDArray[np.int64],
    words: Sequence[str],
    by_description: NDArray[np.bool_],
    spoken: Spoken,
    decided: NDArray[np.int64],
    skipped: Sequence[int] = (),
) -> list[Doubtful]:
    """All images about which nobody spoke, the most useful first.

    share: (n,) the probability that each is misplaced. cluster: (n,) where it is shown; decided: (n,) where the model
    had it. by_description: whether it was placed with its unit, not asked itself. skipped: the person does not know.
    """
    done = set(spoken.moved.tolist()) | set(spoken.kept.tolist())
    groups: dict[tuple[str, int], list[int]] = {}
    for image in np.flatnonzero(by_description & (cluster != NONE)).tolist():
        if words[image] and image not in done:
            groups.setdefault((words[image], int(cluster[image])), []).append(image)
    said: dict[tuple[str, int], list[int]] = {}
    for turn, images in enumerate((spoken.kept, spoken.moved)):
        for image in images.tolist():
            said.setdefault((words[image], int(decided[image])), [0, 0])[turn] += 1
    doubt = np.where(cluster == NONE, _unplaced(spoken, decided), share)
    gain = doubt.copy()
    alike = np.ones(len(doubt), dtype=np.int64)
    for key, inside in groups.items():
        images = np.array(inside, dtype=np.int64)
        common = float(doubt[images].min())
        kept, moved = said.get(key, (0, 0))
        now = (common + moved) / (1 + kept + moved)
        doubt[images] = 1 - (1 - doubt[images]) * (1 - now) / max(1 - common, 1e-6)
        doubt[images] = np.clip(doubt[images], 0.0, 1.0)
        alike[images] = len(images)
        gain[images] = doubt[images]
        first = min(inside, key=lambda image: (-doubt[image], image))
        gain[first] += now * (len(images) - 1)
    left_out = done | set(skipped)
    order = sorted((i for i in range(len(doubt)) if i not in left_out), key=lambda i: (-round(float(gain[i]), 6), i))
    return [Doubtful(i, float(doubt[i]), float(gain[i]), int(alike[i])) for i in order]


def _unplaced(spoken: Spoken, decided: NDArray[np.int64]) -> float:
    """How likely an image in no cluster belongs to one: Laplace's rule over those that a person placed or left there.
    Where a few were rightly left out, the others wait behind doubtful images of clusters."""
    placed, left = ((decided[images] == NONE).sum() for images in (spoken.moved, spoken.kept))
    return float((1 + placed) / (2 + placed + left))
