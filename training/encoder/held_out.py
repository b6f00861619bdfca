"""Which pictures may not be trained on: those that look like one the project is scored on.

In: a picture, and the file of difference hashes, one hexadecimal number of 64 bits a line. Out: whether to leave it out.
Promise: every picture that comes from outside the labelled zips passes through `HeldOut.holds` before it is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR_BITS = 3
FEWEST_BITS, MOST_BITS = 8, 56  # outside of these a picture is blank, and its hash says nothing


def difference_hash(picture: Image.Image) -> int:
    """64 bits, row by row: 1 where a pixel of the grey picture of 9 x 8 is brighter than its left neighbour."""
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


class HeldOut:
    """The hashes of the pictures the project is scored on; (n,) uint64, blank ones left out."""

    def __init__(self, hashes: list[int], near_bits: int = NEAR_BITS) -> None:
        self._near_bits = near_bits
        told = [value for value in hashes if FEWEST_BITS <= value.bit_count() <= MOST_BITS]
        self._hashes: NDArray[np.uint64] = np.asarray(sorted(set(told)), np.uint64)

    @classmethod
    def read(cls, file: Path) -> HeldOut:
        return cls([int(line, 16) for line in file.read_text("ascii").split()])

    def __len__(self) -> int:
        return len(self._hashes)

    def holds(self, picture: Image.Image) -> bool:
        """Whether the picture's hash is within `near_bits` of a held-out one."""
        return self.holds_hash(difference_hash(picture))

    def holds_hash(self, value: int) -> bool:
        if not FEWEST_BITS <= value.bit_count() <= MOST_BITS or not len(self._hashes):
            return False
        distance = np.bitwise_count(self._hashes ^ np.uint64(value))
        return bool((distance <= self._near_bits).any())
