"""No picture that the project is scored on may be trained on: the filter of `training/encoder/held_out.py`."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "encoder"))
from held_out import HeldOut, difference_hash


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Smooth noise, as a photograph is at nine pixels a row."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def test_a_scored_picture_is_left_out_in_another_size_and_format_too(tmp_path: Path) -> None:
    scored = [picture(seed) for seed in range(20)]
    file = tmp_path / "hashes.txt"
    file.write_text("".join(f"{difference_hash(one):016x}\n" for one in scored))
    held_out = HeldOut.read(file)
    assert len(held_out) == 20
    for one in scored:
        assert held_out.holds(one)
        one.resize((320, 240), Image.Resampling.BICUBIC).save(tmp_path / "again.jpg", quality=80)
        with Image.open(tmp_path / "again.jpg") as again:
            assert held_out.holds(again)
    assert not any(held_out.holds(picture(seed)) for seed in range(100, 160))


@pytest.mark.parametrize(("bits", "held"), [(0, True), (3, True), (4, False)])
def test_three_bits_are_near(bits: int, held: bool) -> None:
    value = 0x0F0F0F0F0F0F0F0F
    assert HeldOut([value]).holds_hash(value ^ ((1 << bits) - 1)) is held


def test_blank_pictures_say_nothing() -> None:
    held_out = HeldOut([0, 1, 2**64 - 1])
    assert len(held_out) == 0
    assert not held_out.holds(Image.new("RGB", (64, 64), "white"))
