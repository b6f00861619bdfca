"""More colors from real photographs: turn the hue of photos whose main color was written down by a person.

In: the zips and `labels/*_colors.csv` (rows of part `train` only). Out: one npz as `synthesize.py` writes.
A red bus turned by 220 degrees is a blue bus before a strange sky, so the word must be read off the object, not guessed
from its kind or from the background; a black, white or grey object keeps its word at every turn. Brown, beige, gold and
pink have no hue of their own and are only nudged. Four in ten are shrunk to 24-64 px and back: small photos exist.
CIFAR photos whose color nobody wrote down are turned too, without a word.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import is_held_out, read_set
from PIL import Image

HUE_DEG = {"red": 0.0, "orange": 28.0, "yellow": 52.0, "green": 118.0, "blue": 218.0, "purple": 284.0}
TARGETS = ("red", "green", "blue", "purple")  # wide bands of hue; orange and yellow are too narrow to aim at
NEUTRAL = ("black", "white", "grey", "silver", "multicolor")
KEPT_OUT = frozenset({"automobile", "truck"})
"""CIFAR-10's classes whose colors are a held-out test."""


def turn_hue(image: Image.Image, degrees: float, saturation: float) -> Image.Image:
    hsv = np.asarray(image.convert("HSV")).astype(np.int32)
    hsv[..., 0] = (hsv[..., 0] + round(degrees * 256 / 360)) % 256
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    return Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")


def hue_of_object(image: Image.Image, word: str) -> float:
    """Mean hue in degrees of the saturated pixels near the word's hue, the middle of the frame counting most."""
    hsv = np.asarray(image.convert("HSV").resize((64, 64))).astype(np.float64)
    difference = (hsv[..., 0] * 360 / 256 - HUE_DEG[word] + 180) % 360 - 180
    axis = np.exp(-(((np.arange(64) - 31.5) / 20) ** 2))
    weight = hsv[..., 1] * hsv[..., 2] * (np.abs(difference) < 24) * np.outer(axis, axis)
    return HUE_DEG[word] + float((difference * weight).sum() / max(weight.sum(), 1e-9))


def variants(image: Image.Image, word: str, rng: np.random.Generator) -> Iterator[tuple[Image.Image, str]]:
    yield image, word
    if word in HUE_DEG:
        at = hue_of_object(image, word)
        for target in TARGETS:
            yield turn_hue(image, HUE_DEG[target] + rng.uniform(-8, 8) - at, rng.uniform(0.85, 1.2)), target
    elif word in NEUTRAL:
        for _ in range(5):
            yield turn_hue(image, rng.uniform(20, 340), rng.uniform(0.5, 1.4)), word
    else:
        for _ in range(2):
            yield turn_hue(image, rng.uniform(-5, 5), rng.uniform(0.85, 1.15)), word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    contents: list[bytes] = []
    words: list[str] = []
    labels = Path(__file__).with_name("labels")
    for name, (content, row) in (
        (source, item) for source in ("objects1000", "cifar10") for item in read_set(args.data, labels, source)
    ):
        photo = Image.open(io.BytesIO(content)).convert("RGB")
        photo.thumbnail((160, 160))
        if row.get("color_part") == "train":
            turned = variants(photo, row["color"], rng)
        elif name == "cifar10" and "color" not in row and row["class"] not in KEPT_OUT and not is_held_out(name, row):
            turned = iter([(turn_hue(photo, rng.uniform(20, 340), rng.uniform(0.6, 1.3)), "")])
        else:
            continue
        for image, word in turned:
            if rng.random() < 0.4:
                image = image.copy()
                image.thumbnail((int(rng.integers(24, 65)),) * 2)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=88)
            contents.append(buffer.getvalue())
            words.append(word)
    offsets = np.cumsum([0, *map(len, contents)])
    empty = np.array([""] * len(words))
    np.savez(
        args.out,
        data=np.frombuffer(b"".join(contents), np.uint8),
        offsets=offsets,
        color=np.array(words),
        background=empty,
        count=empty,
        position=empty,
    )
    print(f"{len(words)} images, {offsets[-1] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
