"""Synthetic photographs with known answers: the color of one object, how many there are, where it stands.

In:  fashion and fruit photos on white ground (cut out), cifar10, objects1000 and textures photos (backgrounds), each
     set unpacked at DATA/<set>/{images,labels.csv}; a third kind of object (cars, furniture, vases, ...) is drawn.
Out: `Synthesizer.color_image`, `.count_image`, `.position_image`: a 192 x 192 RGB image and a dict of answers, all
     lower case.
The same `rng` state gives the same image. A source named in `exclude` (keys like 'fashion/000123.jpg') is never opened.
The command line writes JPEG bytes and labels to one .npz: `data` (uint8, all files one after the other), `offsets`
(int64, n + 1), and `kind`, `color`, `background`, `count`, `position` (strings, '' where there is no known answer).
"""

from __future__ import annotations

import argparse
import colorsys
import csv
import functools
import io
import multiprocessing
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.floating[Any]]
Answers = dict[str, str]
FRAME = 192  # pixels
HLS = tuple[float, float, float, float, float, float]

# color word -> ranges of (hue in degrees from, to, saturation from, to, value from, to);
# several rows are drawn with equal chance
PALETTE: dict[str, list[HLS]] = {
    "black": [(0, 360, 0, 0.15, 0.05, 0.13), (200, 250, 0, 0.2, 0.05, 0.13)],
    "white": [(0, 360, 0, 0.03, 0.93, 1), (30, 60, 0, 0.06, 0.93, 1)],
    "grey": [(0, 360, 0, 0.05, 0.34, 0.56), (190, 230, 0, 0.09, 0.34, 0.56)],
    "silver": [(0, 360, 0, 0.03, 0.66, 0.76), (190, 230, 0, 0.06, 0.66, 0.76)],
    "red": [(-8, 4, 0.8, 1, 0.66, 0.92)],
    "blue": [(205, 226, 0.65, 0.95, 0.6, 0.95), (198, 220, 0.4, 0.65, 0.72, 0.95), (212, 232, 0.75, 0.95, 0.5, 0.8)],
    "navy blue": [(215, 238, 0.55, 0.9, 0.19, 0.33)],
    "green": [(95, 150, 0.5, 0.95, 0.35, 0.7), (75, 105, 0.55, 0.9, 0.45, 0.8), (130, 160, 0.5, 0.9, 0.25, 0.5)],
    "yellow": [(49, 57, 0.7, 1, 0.9, 1), (50, 57, 0.5, 0.75, 0.93, 1)],
    "orange": [(18, 31, 0.82, 1, 0.9, 1)],
    "brown": [(14, 30, 0.45, 0.75, 0.28, 0.48)],
    "beige": [(30, 43, 0.17, 0.32, 0.78, 0.9)],
    "pink": [(325, 350, 0.28, 0.6, 0.93, 1), (325, 338, 0.5, 0.72, 0.93, 1)],
    "purple": [(264, 292, 0.45, 0.85, 0.38, 0.72), (260, 285, 0.3, 0.5, 0.6, 0.85)],
    "gold": [(39, 47, 0.55, 0.75, 0.68, 0.82)],
    "maroon": [(-18, 2, 0.7, 0.95, 0.28, 0.42)],
}
METALLIC = {"silver", "gold"}
GROUNDS = [c for c in PALETTE if c not in METALLIC]
COUNTS = ("one", "two", "three", "four")
CENTERS = {"left": (0.2, 0.5), "right": (0.8, 0.5), "top": (0.5, 0.2), "bottom": (0.5, 0.8), "center": (0.5, 0.5)}
# Worn clothes show skin and other garments, which must not be dyed too; pairs would make a count wrong.
WHOLE = {
    "casual shoes",
    "sports shoes",
    "formal shoes",
    "watches",
    "handbags",
    "sunglasses",
    "wallets",
    "backpacks",
    "caps",
}
PAIRS = {"flip flops", "heels", "sandals", "belts", "socks", "flats", "ties"}
CLOTHES = {"shirts", "tshirts", "sweaters", "sweatshirts", "tops", "kurtas", "jackets", "shorts", "trousers", "jeans"}


class Cutout(NamedTuple):
    """One object, not yet colored.

    shade: (h, w) in [-1, 1], 0 = the dye itself; alpha: (h, w) in [0, 1]; parts: (h, w, 4) in [0, 1], what is not dyed
    (rgb and its coverage); rgb: the photo's own colors, or None if drawn.
    """

    shade: Floats
    alpha: Floats
    parts: Floats
    rgb: Floats | None


def _blur(a: Floats, radius: float) -> Floats:
    scaled = Image.fromarray((np.clip(a, 0, 1) * 255).astype(np.uint8))
    return np.asarray(scaled.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _resize(a: Floats, size: tuple[int, int]) -> Floats:
    return (
        np.asarray(
            Image.fromarray((np.clip(a, 0, 1) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC),
            np.float32,
        )
        / 255
    )


def _to_image(a: Floats) -> Image.Image:
    return Image.fromarray((np.clip(a, 0, 1) * 255 + 0.5).astype(np.uint8))


def _cropped(shade: Floats, alpha: Floats, parts: Floats, rgb: Floats | None) -> Cutout:
    ys, xs = np.where(alpha > 0.1)
    cut = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    return Cutout(shade[cut], alpha[cut], parts[cut], None if rgb is None else rgb[cut])


def sample_color(word: str, rng: np.random.Generator) -> Floats:
    """An rgb triple in [0, 1] that a person would call `word`."""
    h0, h1, s0, s1, v0, v1 = PALETTE[word][rng.integers(len(PALETTE[word]))]
    return np.array(
        colorsys.hsv_to_rgb(rng.uniform(h0, h1) / 360 % 1, rng.uniform(s0, s1), rng.uniform(v0, v1)), np.float32
    )


def dye(shade: Floats, word: str, rng: np.random.Generator) -> Floats:
    """(h, w, 3): shade below 0 darkens the dye, shade near 1 turns to a white highlight, as on paint and cloth."""
    base, contrast, shine = sample_color(word, rng), rng.uniform(0.3, 0.6), rng.uniform(0, 0.4)
    if word in METALLIC:  # metal is told from grey, beige or brown by its reflections alone
        x = np.linspace(-1, 1, shade.shape[1])[None] + np.linspace(-1, 1, shade.shape[0])[:, None] * rng.uniform(
            -0.5, 0.5
        )
        shade = np.clip(shade * 0.8 + 0.5 * np.sin(x * rng.uniform(3, 7) + rng.uniform(0, 6)).astype(np.float32), -1, 1)
        contrast, shine = rng.uniform(0.5, 0.7), rng.uniform(0.5, 0.85)
    elif word in ("white", "yellow", "orange", "beige", "pink"):  # deep shadow would make them grey, olive or brown
        contrast *= 0.6
    elif word in ("black", "navy blue", "maroon", "brown"):  # a broad highlight would make them grey
        shine *= 0.8
    s = shade[..., None]
    painted = base * (1 + contrast * np.where(s < 0, s, 0.45 * s))
    return painted + (1 - painted) * shine * np.clip(s, 0, 1) ** (2 if word in METALLIC else 4)


MATERIAL = {
    "tyre": (22, 22, 24),
    "lamp": (235, 230, 205),
    "wood": (95, 68, 45),
    "metal": (140, 142, 146),
    "signal": (150, 20, 20),
    "eye": (12, 12, 12),
}
# Silhouettes on a 256 x 256 sheet: "kind fill numbers".
# Kind: box (x0 y0 x1 y1 radius), poly (x y ...), oval (x0 y0 x1 y1).
# Fill: a number is the tone of a dyed part (0 = the dye itself), a word a material that stays undyed.
_WHEELS = "oval tyre 28 136 76 184;oval tyre 178 136 226 184;oval metal 39 147 65 173;oval metal 189 147 215 173"
_LAMPS = "oval lamp 8 116 22 128;box signal 240 116 248 130 2"
_BODY = f"box 0 8 106 248 162 14;box .4 10 107 246 122 6;box -.4 12 148 244 162 4;{_LAMPS}"
DRAWN = {
    "sedan": f"poly .15 58 112 92 80 178 80 224 112;{_BODY};poly glass 74 110 96 87 132 87 132 110;poly glass 138 110 138 87 174 87 206 110;{_WHEELS}",
    "hatchback": f"poly .15 58 112 92 76 214 76 242 112;{_BODY};poly glass 74 110 96 84 140 84 140 110;poly glass 146 110 146 84 206 84 228 110;{_WHEELS}",
    "van": f"poly .15 40 112 66 56 246 56 248 112;{_BODY};poly glass 52 104 70 66 112 66 112 104;box glass 124 68 176 104 3;{_WHEELS}",
    "pickup": f"poly .15 58 112 86 76 142 76 150 112;{_BODY};poly glass 72 110 90 84 136 84 140 110;{_WHEELS}",
    "bus": f"box 0 6 50 250 166 10;box .3 8 52 248 66 6;box glass 14 72 60 108 3;box glass 68 72 120 108 3;box glass 128 72 180 108 3;box glass 188 72 240 108 3;{_WHEELS}",
    "car front": "box tyre 40 168 74 210 8;box tyre 182 168 216 210 8;poly .1 62 62 194 62 228 118 28 118;box 0 22 114 234 188 18;box .35 26 116 230 140 10;"
    "poly glass 72 72 184 72 210 114 46 114;box tyre 88 150 168 172 5;box lamp 32 144 70 162 8;box lamp 186 144 224 162 8",
    "chair": "box wood 66 130 76 244 1;box wood 180 130 190 244 1;box -.12 62 30 194 136 20;box .25 48 134 208 168 12",
    "sofa": "box wood 36 176 46 204 1;box wood 210 176 220 204 1;box -.15 24 70 232 150 22;box .3 40 122 128 160 12;box .3 128 122 216 160 12;"
    "box .05 10 104 48 186 16;box -.2 208 104 246 186 16;box -.3 40 158 216 186 6",
    "lamp": "box wood 124 120 132 236 1;oval wood 90 226 166 246;poly .1 78 20 178 20 222 140 34 140",
    "door": "box 0 60 10 196 246 4;box -.3 76 28 120 120 3;box -.3 136 28 180 120 3;box .2 76 134 120 226 3;box .2 136 134 180 226 3;oval metal 182 128 192 138",
    "crate": "poly -.05 20 76 150 88 150 236 20 216;poly -.55 150 88 244 60 244 196 150 236;poly .5 20 76 64 36 244 60 150 88",
    "ball": "oval 0 16 16 240 240",
    "vase": "poly 0 98 16 158 16 148 60 200 120 190 190 156 240 100 240 66 190 56 120 108 60",
    "bottle": "box 0 84 96 172 244 16;poly 0 112 40 144 40 144 70 172 112 84 112 112 70;box -.4 108 14 148 42 4;box .3 86 140 170 200 1",
    "mug": "box 0 170 90 232 180 40;box 0 50 60 190 220 14;oval -.6 52 50 188 74",
    "bird": "poly 0 150 120 248 96 246 120 170 170;oval 0 60 90 200 190;oval .1 40 56 110 124;poly lamp 44 84 16 96 46 100;oval eye 62 78 72 88;poly -.35 100 130 190 140 150 176;box wood 118 186 124 230 1;box wood 140 186 146 230 1",
    "dog": "box 0 62 96 196 160 30;box 0 66 140 88 230 8;box -.2 96 140 116 226 8;box 0 172 140 194 230 8;box -.2 150 140 168 226 8;oval .1 24 50 92 118;oval -.35 74 48 98 104;oval eye 18 84 36 98;oval eye 44 70 53 79;poly 0 188 104 236 60 242 68 196 130",
    "fish": "oval 0 30 80 200 180;poly -.1 186 130 244 84 236 130 244 176;poly -.2 90 90 130 50 160 92;oval lamp 56 112 76 132;oval eye 62 118 71 127",
    "house": "box 0 40 110 216 230 1;poly -.5 24 114 128 36 232 114;box wood 108 160 148 230 1;box glass 60 136 94 170 1;box glass 162 136 196 170 1",
}
CARS = ["sedan", "hatchback", "van", "pickup", "bus", "car front"]


def draw(name: str, rng: np.random.Generator) -> Cutout:
    """The silhouette `name` with its proportions varied, lit as if its outline were a relief."""
    outline, tone, extra = Image.new("L", (256, 256)), Image.new("L", (256, 256), 128), Image.new("RGBA", (256, 256))
    body, shade, part = ImageDraw.Draw(outline), ImageDraw.Draw(tone), ImageDraw.Draw(extra)
    knots = np.linspace(0, 256, 6)
    across, down = (np.cumsum(np.r_[0, rng.uniform(0.7, 1.3, n)]) for n in (2, 5))
    half = np.interp(np.abs(np.arange(257) - 128), np.linspace(0, 128, 3), across / across[-1] * 128)
    warp_x, warp_y = 128 + np.sign(np.arange(257) - 128) * half, np.interp(np.arange(257), knots, down / down[-1] * 256)
    tint = rng.uniform(0.7, 1.05)
    material = {k: (*(int(c * tint) for c in v), 255) for k, v in MATERIAL.items()}
    material["glass"] = (*(int(v) for v in rng.integers(15, 100) + np.array([0, 5, 12])), 255)
    for step in DRAWN[name].split(";"):
        kind, fill, *numbers = step.split()
        radius = float(numbers.pop()) if kind == "box" else 0
        points = [
            (float(warp_x[int(x)]), float(warp_y[int(y)])) for x, y in zip(numbers[::2], numbers[1::2], strict=True)
        ]
        if fill == "tyre" or (fill == "metal" and kind == "oval"):  # wheels stay round
            (x0, y0), (x1, y1) = points
            middle, reach = ((x0 + x1) / 2, (y0 + y1) / 2), (x1 - x0 + y1 - y0) / 4
            points = (
                [(middle[0] - reach, middle[1] - reach), (middle[0] + reach, middle[1] + reach)]
                if kind == "oval"
                else points
            )
        layers = [(part, material[fill])] if fill in material else [(body, 255), (shade, int(128 + 127 * float(fill)))]
        for pen, color in layers:
            if kind == "poly":
                pen.polygon(points, fill=color)
            elif kind == "oval":
                pen.ellipse((*points[0], *points[1]), fill=color)
            else:
                pen.rounded_rectangle((*points[0], *points[1]), radius, fill=color)
    parts = np.asarray(extra, np.float32) / 255
    soft = np.clip((_blur(np.asarray(outline, np.float32) / 255, 2.5 if name != "crate" else 1) - 0.5) * 3 + 0.5, 0, 1)
    bulge = rng.uniform(24, 36) if name in ("ball", "vase", "bottle", "mug", "fish", "lamp") else rng.uniform(7, 14)
    dy, dx = np.gradient(_blur(soft, bulge))
    angle = rng.uniform(-2.8, -0.4)
    light = (dx * np.cos(angle) + dy * np.sin(angle)) * -1.7 * bulge - np.linspace(-0.25, 0.25, 256)[:, None]
    light = light + (_blur(np.asarray(tone, np.float32) / 255, 1.5) - 0.5) * 2
    return _cropped(np.clip(light, -1, 1).astype(np.float32), np.maximum(soft, parts[..., 3]), parts, None)


class Synthesizer:
    """Makes images on demand; holds only file lists and a small cache, so that one may live in each process."""

    def __init__(self, data_dir: Path, exclude: set[str]) -> None:
        self.data_dir = data_dir

        def rows(name: str) -> list[dict[str, str]]:
            with open(data_dir / name / "labels.csv", newline="", encoding="utf-8") as lines:
                return [r for r in csv.DictReader(lines) if f"{name}/{r['file']}" not in exclude]

        fashion = rows("fashion")
        self.whole = [f"fashion/{r['file']}" for r in fashion if r["type"] in WHOLE]
        self.other = [f"fashion/{r['file']}" for r in fashion if r["type"] in PAIRS]
        self.clothes = [f"fashion/{r['file']}" for r in fashion if r["type"] in CLOTHES]
        self.clothes_keys = set(self.clothes)
        self.fruit = [f"fruit/{r['file']}" for r in rows("fruit")]
        self.grounds = [[f"{n}/{r['file']}" for r in rows(n)] for n in ("cifar10", "objects1000", "textures")]
        self.cut = functools.lru_cache(maxsize=4096)(self._cut)

    def _cut(self, key: str) -> Cutout | None:
        """The object on white ground in photo `key`; None if its mask cannot be trusted or bare skin shows."""
        with Image.open(self.data_dir / key.replace("/", "/images/")) as opened:
            rgb = np.asarray(opened.convert("RGB"), np.float32) / 255
        light = np.pad(rgb.min(2) > 0.945, 1, constant_values=True)  # the added rim lets one flood reach every side
        if light[1:-1, [1, -2]].mean() + light[[1, -2], 1:-1].mean() < (1.8 if key.startswith("fashion") else 1.3):
            return None
        r, g, b = rgb[~light[1:-1, 1:-1]].T
        skin = (r > 0.35) & (r - b > 0.12) & (r - b < 0.5) & (r > g) & (g > b) & (r - g > 0.05)
        if key in self.clothes_keys and skin.mean() > 0.015:
            return None
        sheet = Image.fromarray(light.astype(np.uint8)).copy()  # else it is read-only
        ImageDraw.floodfill(sheet, (0, 0), 2)
        mask = np.asarray(sheet)[1:-1, 1:-1] != 2
        if not 0.08 < mask.mean() < 0.9:
            return None
        if np.median(rgb[mask]) < 0.75:  # the ground also shows through handles and straps
            holes = Image.fromarray((mask & (rgb.min(2) > 0.96)).astype(np.uint8))
            mask = mask & (np.asarray(holes.filter(ImageFilter.MinFilter(5)).filter(ImageFilter.MaxFilter(7))) == 0)
        solid = np.asarray(
            Image.fromarray((mask * 255).astype(np.uint8))
            .filter(ImageFilter.MedianFilter(5))
            .filter(ImageFilter.MinFilter(3))
        )
        grown = np.asarray(Image.fromarray(solid).filter(ImageFilter.MaxFilter(3))) > 0
        if grown.sum() < 0.85 * mask.sum():  # frayed: a white product with a leaking outline
            return None
        alpha = _blur(solid.astype(np.float32) / 255, 0.6)
        value = rgb @ np.array([0.3, 0.59, 0.11], np.float32)
        low, middle, high = np.percentile(value[solid > 0], (5, 50, 95))
        shade = np.clip((value - middle) / max(0.6 * (high - low), 0.14), -1, 1).astype(np.float32)
        parts = np.zeros((*mask.shape, 4), np.float32)
        parts[..., :3] = value[..., None]
        odd = (np.abs(shade) > 0.8) & key.startswith("fashion")  # prints, soles, dials
        parts[..., 3] = _blur((odd if 0.03 < odd[solid > 0].mean() < 0.25 else 0 * odd).astype(np.float32), 0.8)
        return _cropped(shade, alpha, parts, rgb)

    def _object(self, rng: np.random.Generator, single: bool = False) -> Cutout:
        """Any object: 28% drawn (two thirds of them cars), some 17% fruit, the rest products.

        Few clothes: most are worn. `single`: surely one thing.
        """
        if rng.random() < 0.28:
            return draw(str(rng.choice(CARS if rng.random() < 0.5 else list(DRAWN))), rng)
        weights = (0.25, 0.75, 0, 0) if single else (0.22, 0.36, 0.16, 0.26)
        while True:
            pool = (self.fruit, self.whole, self.other, self.clothes)[rng.choice(4, p=weights)]
            found = self.cut(pool[rng.integers(len(pool))])
            if found is not None:
                return found

    def _painted(self, cutout: Cutout, word: str | None, rng: np.random.Generator) -> Image.Image:
        """RGBA, dyed `word` (None: the photo's own colors); undyed parts never pass a third of the object."""
        if word is None and cutout.rgb is not None:
            return _to_image(np.dstack([cutout.rgb, cutout.alpha]))
        shade, (height, width) = cutout.shade, cutout.shade.shape
        if rng.random() < 0.15:  # a woven, grained or printed surface
            pool = self.grounds[2]
            grain = (
                np.asarray(self._open(pool[rng.integers(len(pool))]).convert("L").resize((width, height)), np.float32)
                / 255
            )
            shade = np.clip(shade + (grain - grain.mean()) * rng.uniform(0.2, 0.6), -1, 1)
        rgb = dye(shade, word or str(rng.choice(list(PALETTE))), rng)
        parts = cutout.parts
        if cutout.rgb is not None and rng.random() < 0.5:
            parts = parts * np.array([1, 1, 1, 0], np.float32)
        over = parts[..., 3:]
        rgb = rgb * (1 - over) + parts[..., :3] * over
        if cutout.rgb is not None and rng.random() < 0.35:
            rgb = self._patched(rgb, cutout, rng)
        return _to_image(np.dstack([rgb, cutout.alpha]))

    def _patched(self, rgb: Floats, cutout: Cutout, rng: np.random.Generator) -> Floats:
        """Dark or neutral windows, wheels, bands and soles, at most 30% of the object."""
        height, width = cutout.shade.shape
        layer = Image.new("L", (width, height))
        pen, kind = ImageDraw.Draw(layer), rng.integers(3)
        if kind == 0:
            top = height * (rng.uniform(0.8, 0.92) if rng.random() < 0.6 else rng.uniform(0.1, 0.7))
            pen.rectangle((0, top, width, top + height * rng.uniform(0.08, 0.2)), fill=255)
        for _ in range(rng.integers(1, 4) if kind else 0):
            w, h = width * rng.uniform(0.15, 0.32), height * rng.uniform(0.15, 0.32)
            x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
            (pen.ellipse if kind == 1 else pen.rectangle)((x, y, x + w, y + h), fill=255)
        cover = _blur(np.asarray(layer, np.float32) / 255, 0.8)[..., None]
        if (cover[..., 0] * cutout.alpha).sum() > 0.3 * cutout.alpha.sum():
            return rgb
        tone = sample_color(str(rng.choice(["black", "black", "black", "grey", "white"])), rng)
        return rgb * (1 - cover) + tone * (1 + 0.35 * cutout.shade[..., None]) * cover

    def _open(self, key: str) -> Image.Image:
        with Image.open(self.data_dir / key.replace("/", "/images/")) as opened:
            return opened.convert("RGB")

    def _background(self, rng: np.random.Generator) -> tuple[Floats, str | None]:
        """(192, 192, 3) and, only where the ground is plain, its color word."""
        across = np.linspace(-0.5, 0.5, FRAME, dtype=np.float32)
        draw = rng.random()
        if draw < 0.3:
            word = "white" if rng.random() < 0.2 else str(rng.choice(GROUNDS))
            angle, strength = rng.uniform(0, 6.3), rng.uniform(0, 0.22)
            slope = np.cos(angle) * across[None] + np.sin(angle) * across[:, None]
            return sample_color(word, rng) * (1 + strength * slope[..., None]), word
        if draw < 0.48:  # a wall or sky above a floor or road
            wall, floor = (
                sample_color(str(rng.choice(["grey", "beige", "white", "brown", "black"] * 5 + GROUNDS)), rng)
                for _ in range(2)
            )
            edge = _blur(
                (across[:, None].repeat(FRAME, 1) > rng.uniform(-0.1, 0.3)).astype(np.float32), rng.uniform(0.5, 6)
            )[..., None]
            grain = _resize(rng.random((48, 48)).astype(np.float32), (FRAME, FRAME))[..., None] - 0.5
            scene = wall * (1 - edge) + floor * edge * (1 + 0.3 * grain)
            return scene * (1 - 0.25 * across[:, None, None] * rng.choice([-1, 1])), None
        pool = self.grounds[rng.choice(3, p=(0.35, 0.45, 0.2))]
        image = self._open(pool[rng.integers(len(pool))])
        side = min(image.size) * rng.uniform(0.55, 1)
        x, y = rng.uniform(0, image.width - side), rng.uniform(0, image.height - side)
        image = image.resize((FRAME, FRAME), Image.Resampling.BICUBIC, (x, y, x + side, y + side))
        image = image.filter(ImageFilter.GaussianBlur(float(rng.choice([2.0, 4.0, 7.0]))))
        scene = np.asarray(image, np.float32) / 255
        grey = scene.mean(2, keepdims=True)
        if rng.random() < 0.3:  # tinted, so that the ground's color says nothing of the object's
            tint = sample_color(str(rng.choice(GROUNDS)), rng)
            scene = 0.5 * scene + 0.5 * tint * (0.5 + grey)
        else:
            scene = grey + (scene - grey) * rng.uniform(0.4, 1.8)
        return scene * rng.uniform(0.75, 1.15), None

    def _place(
        self, scene: Floats, thing: Image.Image, side: float, center: tuple[float, float], rng: np.random.Generator
    ) -> Floats:
        """Scaled so that its longer side is `side` pixels, turned, set down with a shadow."""
        stretch = np.exp(rng.uniform(-0.15, 0.15, 2))
        if rng.random() < 0.5:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = side / max(thing.width * stretch[0], thing.height * stretch[1])
        thing = thing.resize(
            (max(8, int(thing.width * stretch[0] * scale)), max(8, int(thing.height * stretch[1] * scale))),
            Image.Resampling.BICUBIC,
        )
        if rng.random() < 0.5:
            rgb = Image.new("RGBA", thing.size)
            rgb.paste(thing)
            thing = rgb.rotate(rng.normal(0, 8), Image.Resampling.BICUBIC, expand=True)
        at = int(center[0] * FRAME - thing.width / 2), int(center[1] * FRAME - thing.height / 2)
        layer = Image.new("RGBA", (FRAME, FRAME))
        layer.paste(thing, at)
        rgba = np.asarray(layer, np.float32) / 255
        alpha = rgba[..., 3:]
        if rng.random() < 0.8:  # contact shadow under it, or its outline cast behind it
            cast = Image.new("L", (FRAME, FRAME))
            if rng.random() < 0.6:
                low, tall = at[1] + thing.height, max(4, 0.06 * thing.height)
                ImageDraw.Draw(cast).ellipse(
                    (at[0] + 0.06 * thing.width, low - 1.6 * tall, at[0] + 0.94 * thing.width, low + 0.8 * tall),
                    fill=255,
                )
            else:
                cast.paste(255, (int(at[0] + rng.integers(-10, 11)), at[1] + 5), thing.getchannel("A"))
            shadow = np.asarray(cast.filter(ImageFilter.GaussianBlur(rng.uniform(2, 7))), np.float32) / 255
            scene = scene * (1 - rng.uniform(0.25, 0.65) * shadow[..., None])
        return scene * (1 - alpha) + rgba[..., :3] * alpha

    def _photo(self, scene: Floats, rng: np.random.Generator) -> Image.Image:
        """Exposure, contrast, white balance, softness and noise, mild enough that the color word stays true."""
        scene = (scene - 0.5) * rng.uniform(0.88, 1.08) + 0.5
        scene = scene * rng.uniform(0.9, 1.08) * (1 + rng.uniform(-0.04, 0.04, 3).astype(np.float32))
        scene = scene + rng.standard_normal(scene.shape, np.float32) * np.float32(rng.uniform(0, 0.03))
        return _to_image(scene).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9)))

    def color_image(self, rng: np.random.Generator) -> tuple[Image.Image, Answers]:
        """One main object: {'color': word} and, on a plain ground, {'background': word}."""
        word = str(rng.choice(list(PALETTE)))
        thing = self._painted(self._object(rng), word, rng)
        inner = np.asarray(thing, np.float32)[..., :3].mean((0, 1)) / 255
        scene, ground = self._background(rng)
        while np.abs(scene.mean((0, 1)) - inner).max() < 0.14 or word == ground:  # else nobody could see it
            scene, ground = self._background(rng)
        center = (rng.uniform(0.42, 0.58), rng.uniform(0.44, 0.58))
        scene = self._place(scene, thing, FRAME * rng.uniform(0.62, 1.1), center, rng)
        return self._photo(scene, rng), {"color": word} | ({"background": ground} if ground else {})

    def _contrasting(self, things: list[Image.Image], rng: np.random.Generator) -> Floats:
        for _ in range(8):
            scene = self._background(rng)[0]
            means = [np.asarray(t, np.float32)[..., :3].mean((0, 1)) / 255 for t in things]
            if all(np.abs(scene.mean((0, 1)) - m).max() > 0.16 for m in means):
                break
        return scene

    def count_image(self, rng: np.random.Generator) -> tuple[Image.Image, Answers]:
        """One to four objects of like size that do not touch: {'count': 'one' .. 'four'}."""
        count = int(rng.integers(1, 5))
        like, alike = self._object(rng, single=True), rng.random() < 0.7
        word = str(rng.choice(list(PALETTE))) if rng.random() < 0.5 else None
        things = [
            self._painted(like if alike else self._object(rng, single=True), word if alike else None, rng)
            for _ in range(count)
        ]
        scene = self._contrasting(things, rng)
        layouts = {1: [1], 2: [2, 3], 3: [3, 4], 4: [4]}[count]
        grid = {
            1: [(0.5, 0.5)],
            2: [(0.27, 0.5), (0.73, 0.5)],
            3: [(0.5, 0.26), (0.26, 0.73), (0.74, 0.73)],
            4: [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)],
        }
        spots = grid[layouts[rng.integers(len(layouts))]]
        side = FRAME * (rng.uniform(0.25, 0.75) if count == 1 else rng.uniform(0.26, 0.42))
        room = 0.14 if count == 1 else max(0.0, 0.22 - side / FRAME / 2)
        for i, thing in zip(rng.permutation(len(spots)), things, strict=False):
            center = (spots[i][0] + rng.uniform(-room, room), spots[i][1] + rng.uniform(-room, room))
            scene = self._place(scene, thing, side * rng.uniform(0.88, 1), center, rng)
        return self._photo(scene, rng), {"count": COUNTS[count - 1]}

    def position_image(self, rng: np.random.Generator) -> tuple[Image.Image, Answers]:
        """One smaller object: {'position': 'left' | 'right' | 'top' | 'bottom' | 'center'}."""
        where = str(rng.choice(list(CENTERS)))
        thing = self._painted(self._object(rng), None if rng.random() < 0.5 else str(rng.choice(list(PALETTE))), rng)
        x, y = CENTERS[where]
        jitter_x, jitter_y = (
            (0.06 if x != 0.5 or where == "center" else 0.14),
            (0.06 if y != 0.5 or where == "center" else 0.14),
        )
        center = (x + rng.uniform(-jitter_x, jitter_x), y + rng.uniform(-jitter_y, jitter_y))
        scene = self._place(self._contrasting([thing], rng), thing, FRAME * rng.uniform(0.25, 0.42), center, rng)
        return self._photo(scene, rng), {"position": where}


@functools.cache
def _maker(data_dir: Path, exclude: frozenset[str]) -> Synthesizer:
    return Synthesizer(data_dir, set(exclude))  # one a process, so that its cut-outs are kept from job to job


def _make(job: tuple[Path, frozenset[str], str, int, int, int]) -> list[tuple[bytes, str, Answers]]:
    data_dir, exclude, kind, count, seed, size = job
    maker, rng = _maker(data_dir, exclude), np.random.default_rng(seed)
    made = []
    for _ in range(count):
        image, answers = getattr(maker, f"{kind}_image")(rng)
        buffer = io.BytesIO()
        image.resize((size, size), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
        made.append((buffer.getvalue(), kind, answers))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Write synthetic color, count and position images to one .npz.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the unpacked image sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--exclude", type=Path, help="text file, one source key a line, e.g. fashion/000123.jpg")
    for kind, count in (
        ("--color", 12000),
        ("--count-images", 2000),
        ("--position-images", 2000),
        ("--size", 160),
        ("--processes", 16),
        ("--seed", 0),
    ):
        parser.add_argument(kind, type=int, default=count)
    args = parser.parse_args()
    exclude = frozenset(args.exclude.read_text().split() if args.exclude else ())
    wanted = {"color": args.color, "count": args.count_images, "position": args.position_images}
    chunks = [(kind, min(125, total - start)) for kind, total in wanted.items() for start in range(0, total, 125)]
    jobs = [(args.data, exclude, kind, n, args.seed * 100_003 + i, args.size) for i, (kind, n) in enumerate(chunks)]
    start = time.monotonic()
    with multiprocessing.Pool(args.processes) as pool:
        made = [row for rows in pool.imap(_make, jobs) for row in rows]
    columns = {
        name: np.array([a.get(name, "") for _, _, a in made]) for name in ("color", "background", "count", "position")
    }
    offsets = np.cumsum([0] + [len(jpeg) for jpeg, _, _ in made])
    data = np.frombuffer(b"".join(jpeg for jpeg, _, _ in made), np.uint8)
    np.savez(
        args.out,
        data=data,
        offsets=offsets,
        kind=np.array([kind for _, kind, _ in made]),
        allow_pickle=False,
        **columns,
    )
    seconds = time.monotonic() - start
    print(f"{len(made)} images, {len(data) / 1e6:.0f} MB, {seconds:.0f} s, {len(made) / seconds:.0f} images/s")


if __name__ == "__main__":
    main()
