"""A few files of a folder that stand for all of them.

In: their paths in order. Out: some of these. Promise: pure; the same paths and seed give the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def spread(paths: Sequence[str], most: int, seed: int = 0) -> list[str]:
    """At most so many of the paths, in their order: one drawn from each of `most` equal stretches, so that every folder
    and every day of a camera has its part, and nothing that repeats every tenth file is all that is seen."""
    if len(paths) <= most:
        return list(paths)
    edges = [len(paths) * k // most for k in range(most + 1)]
    random = np.random.default_rng([seed, len(paths), most])
    return [paths[int(random.integers(low, high))] for low, high in pairwise(edges)]
