"""Near-identical images: found by a perceptual hash, confirmed by their colors, so that one look can serve them all.

In: small pictures. Out: for each image the one that stands for it. Promise: pure and deterministic; an image stands
only for images within the given distance of itself, never for a chain of them (frames of a turning thing would all be
one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.Image import Image as Picture

_BITS, _BANDS = 64, 4
_DISTANCE = _BANDS - 1
"""Hashes that differ in at most this many bits agree in at least one of four bands of 16 bits: so they are found."""

_SIDE = 16
_COLOR_DIFFERENCE = 3.0
"""Mean absolute difference of two pictures' 16 x 16 cells, of 255, up to which they count as one. The hash alone takes
a red and a green apple in one pose for the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """hash: dHash, 64 bits. cells: (16, 16, 3) uint8, the picture shrunk to cells."""

    hash: int
    cells: NDArray[np.uint8]


def fingerprint(picture: Picture) -> Fingerprint:
    """dHash says whether each of 8 x 8 grey cells is darker than its right neighbour."""
    small = picture.convert("L").resize((9, 8), PIL.Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    bits = np.packbits((grey[:, 1:] > grey[:, :-1]).ravel())
    cells = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX), dtype=np.uint8)
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), cells)


def near_identical(one: Fingerprint, other: Fingerprint) -> bool:
    """At most 3 of 64 bits of the hash differ, and the colors by at most 3 of 255."""
    if (one.hash ^ other.hash).bit_count() > _DISTANCE:
        return False
    difference = np.abs(one.cells.astype(np.int16) - other.cells.astype(np.int16))
    return float(difference.mean()) <= _COLOR_DIFFERENCE


def stand_ins(prints: Mapping[str, Fingerprint]) -> dict[str, str]:
    """Image id -> the id that stands for it: the first (by id) near-identical one that stands for itself, or itself."""
    width = _BITS // _BANDS
    bands: dict[tuple[int, int], list[str]] = {}
    found: dict[str, str] = {}
    for image_id in sorted(prints):
        own = prints[image_id]
        keys = [(band, own.hash >> (band * width) & ((1 << width) - 1)) for band in range(_BANDS)]
        candidates = {other for key in keys for other in bands.get(key, ())}
        near = [other for other in candidates if near_identical(own, prints[other])]
        found[image_id] = min(near, default=image_id)
        if not near:
            for key in keys:
                bands.setdefault(key, []).append(image_id)
    return found
