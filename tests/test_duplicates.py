import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.collection.near_duplicates import Fingerprint, fingerprint, near_identical, stand_ins


def picture(seed: int) -> PIL.Image.Image:
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(cells).resize((120, 120), PIL.Image.Resampling.BICUBIC)


def saved_again(image: PIL.Image.Image, quality: int) -> PIL.Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return PIL.Image.open(file)


@pytest.mark.parametrize("seed", range(8))
def test_a_picture_saved_again_or_resized_is_near_identical(seed: int) -> None:
    own = fingerprint(picture(seed))
    assert near_identical(own, fingerprint(saved_again(picture(seed), 80)))
    assert near_identical(own, fingerprint(picture(seed).resize((90, 90), PIL.Image.Resampling.LANCZOS)))


def test_other_pictures_and_other_colors_are_not() -> None:
    prints = [fingerprint(picture(seed)) for seed in range(20)]
    assert not any(near_identical(prints[k], prints[j]) for k in range(20) for j in range(k))
    red = PIL.Image.merge("RGB", [picture(0).convert("L"), *[PIL.Image.new("L", (120, 120))] * 2])
    green = PIL.Image.merge("RGB", [red.getchannel(1), red.getchannel(0), red.getchannel(2)])
    assert not near_identical(fingerprint(red), fingerprint(green))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 63), max_size=4)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_stand_ins_are_the_first_near_identical_that_stand_for_themselves(drawn: list[tuple[int, list[int]]]) -> None:
    """Against the definition, without bands."""
    grey = np.zeros((16, 16, 3), np.uint8)
    hashes: list[int] = []
    for value, flips in drawn:
        base = hashes[-1] if hashes and value % 2 else value
        for bit in flips:
            base ^= 1 << bit
        hashes.append(base)
    prints = {f"{number:02d}": Fingerprint(value, grey) for number, value in enumerate(hashes)}
    expected: dict[str, str] = {}
    for image_id in sorted(prints):
        heads = [other for other, head in expected.items() if other == head]
        near = [other for other in heads if (prints[other].hash ^ prints[image_id].hash).bit_count() <= 3]
        expected[image_id] = min(near, default=image_id)
    assert stand_ins(prints) == expected
