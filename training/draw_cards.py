"""Photographs of playing cards, drawn from outlines and noise: nano learns from such, the tests and `bench` sort such.

In: a card (or a folder) and a seed. Out: an RGB photo (or 312 of them with `labels.csv`). One collection, four true
clusterings: suit, rank, color, deck style. Equal seeds give equal bytes under equal versions of Pillow and NumPy; file
names and their order say nothing of the labels. `python training/draw_cards.py` draws the collection of `manylens demo`
again, which ships as pictures: src/manylens/cli/sample.zip.
"""

from __future__ import annotations

import math
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from manylens.errors import UsageError
from manylens.files import write_atomically

RANKS = ("ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "jack", "queen", "king")
SUITS = ("clubs", "diamonds", "hearts", "spades")
DECK_STYLES = ("classic", "minimal", "vintage", "jumbo", "ornate", "banded")

Color: TypeAlias = tuple[int, int, int]
Tones: TypeAlias = dict[str, Color]
Array: TypeAlias = NDArray[np.floating[Any]]
Generator: TypeAlias = np.random.Generator
Progress: TypeAlias = Callable[[int, int], None]

_WHITE: Color = (255, 255, 255)
_HEIGHT = 1.4
_LEAST_PX = 64


@dataclass(frozen=True)
class Card:
    """One card of one deck. Raises ValueError for a rank, suit or style that is not listed above."""

    rank: str
    suit: str
    style: str

    def __post_init__(self) -> None:
        for field, known in (("rank", RANKS), ("suit", SUITS), ("style", DECK_STYLES)):
            if (value := getattr(self, field)) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {value!r}: pass {field}={known[0]!r}")

    @property
    def color(self) -> str:
        """`"red"` for diamonds and hearts, `"black"` for clubs and spades."""
        return "red" if self.suit in ("diamonds", "hearts") else "black"


# A drawing is `tone path / tone path ...`. Paths are as in SVG (M, L, Q, C), with `O x y r` for a disc; a leading
# `|` closes the outline with its mirror image about x = 0, a leading `&` adds a mirrored copy.

_STEM = "ink |M0 6 L-4 14 Q-5 40 -22 50"
_PIPS = {  # in a box of -50..50
    "hearts": "ink |M0 50 C-12 26 -50 12 -50 -18 C-50 -58 -8 -60 0 -28",
    "diamonds": "ink |M0 50 Q-17 20 -39 0 Q-17 -20 0 -50",
    "spades": "ink |M0 -50 C-10 -26 -49 -8 -49 16 C-49 42 -14 42 -3 20 /" + _STEM,
    "clubs": "ink O0 -26 24 / ink &O-26 9 24 / ink O0 -2 13 /" + _STEM,
}
# For each rank, where its pips stand: column (left, centre, right) and twelfths of the way down.
_SIX, _EIGHT = "l0 r0 l6 r6 l12 r12", "l0 r0 l4 r4 l8 r8 l12 r12"
_PLACES = f"""c6/c0 c12/c0 c6 c12/l0 r0 l12 r12/l0 r0 l12 r12 c6/{_SIX}/{_SIX} c3/{_SIX} c3 c9/{_EIGHT} c6/
    {_EIGHT} c2 c10""".split("/")

# Court figures from the waist (y = 87) up, x in -50..50.
_ROBE = """main |M0 50 Q-32 52 -42 66 L-47 87 L0 87 / gold &M-47 87 L-43 69 L-33 73 L-35 87 /
    second &M-30 87 L-29 74 L-19 77 L-20 87 / second |M0 54 L-10 56 L-14 87 L0 87 /
    gold &M-14 87 L-10 56 L-7 56 L-10 87 / gold O0 72 3 / main O0 82 3 /"""
_FACE = """skin |M0 40 L-6 42 L-7 53 L0 55 / skin |M0 17 C-17 17 -15 43 0 48 / line &O-5 31 1.8 /
    line &M-9 27 Q-5 24 -2 27 Q-5 25.5 -9 27 / line M0 31 L-1.5 36.5 L0.5 36.5 /"""
_HEADGEAR = {
    "jack": """second M8 16 Q22 -4 40 1 Q29 6 26 14 Q18 19 8 18 / main M-19 19 Q-28 4 -8 0 Q12 -3 20 11 Q21 19 14 20 /
    gold M-17 21 Q0 15 15 20 L15 16 Q0 11 -17 16""",
    "queen": """gold |M0 19 L-14 20 L-18 9 Q-12 14 -8 7 Q-5 13 0 4 / white O0 4 3 / white &O-8 7 2.6 /
    white &O-18 9 2.6""",
    "king": """gold |M0 20 L-17 20 L-24 3 L-12 11 L0 1 / main |M0 16 L-11 16 L0 7 / main &O-24 3 3 /
    second |M0 21 L-17 21 L-17 16 L0 16 / main O0 1 3""",
}
_FIGURES = {
    "jack": f"""hair M35 12 L38 12 L38 87 L35 87 / steel M38 16 Q50 18 48 33 Q43 27 38 28 / skin O36.5 66 5.5 /
    steel M36.5 0 L40 14 L33 14 / {_ROBE} hair |M0 15 L-14 16 Q-19 32 -18 42 Q-25 47 -19 52 Q-10 52 -9 40 L0 40 /
    {_FACE} line M-4 42 L4 42 L0 44 / white |M0 51 L-9 49 L-13 55 L-8 60 L-3 57 L0 62 / {_HEADGEAR["jack"]}""",
    "queen": f"""second |M0 8 Q-29 8 -29 66 L0 66 / {_ROBE}
    hair |M0 13 Q-21 13 -20 36 Q-27 50 -20 62 Q-10 62 -8 48 L0 48 / skin |M0 50 L-9 53 Q-7 66 0 66 / {_FACE}
    line M-4 42 Q0 39 4 42 Q0 46 -4 42 / white O0 61 2.2 / white &O-5 59 2 / {_HEADGEAR["queen"]} /
    leaf M36 64 Q39 48 36 32 L38 32 Q42 48 39 66 / leaf M38 50 Q48 46 47 38 Q40 41 38 50 / main O37 18 5.5 /
    main O44 23 5.5 / main O41 31 5.5 / main O33 31 5.5 / main O30 23 5.5 / gold O37 25 4 / skin O37 64 5.5""",
    "king": f"""{_ROBE} hair |M0 15 L-15 16 Q-21 34 -19 46 Q-24 51 -15 52 L0 50 /
    white |M0 48 Q-22 48 -34 60 Q-28 68 -16 63 Q-8 72 0 73 / line &O-24 60 1.8 / line &O-14 56 1.8 / {_FACE}
    hair |M0 37 Q-5 35 -13 33 Q-17 52 -7 58 L-5 64 L0 60 / line M-4 43 L4 43 L0 45.5 / {_HEADGEAR["king"]} /
    steel M34.5 56 L34.5 12 L37 3 L39.5 12 L39.5 56 / gold M27 55 L47 55 L47 59 L27 59 /
    hair M35 58 L39 58 L39 72 L35 72 / gold O37 75 3.5 / skin O37 66 5.5""",
}
_LEAVES = """line M0 0 Q-40 -4 -66 8 Q-36 20 0 0 / line M0 0 Q4 40 -8 66 Q-20 36 0 0 /
    line M0 0 Q-34 12 -44 44 Q-12 34 0 0 / line O-58 34 5 / line O-34 58 5"""
_SPOTS = np.mgrid[7.5:92.5:11j, 7.5:132.5:16j].reshape(2, -1).T.tolist()
_STUDS = "light " + " ".join(f"M{x} {y - 3.3} L{x + 3.3} {y} L{x} {y + 3.3} L{x - 3.3} {y}" for x, y in _SPOTS)
_INKS = {"black": ((22, 22, 26), (34, 34, 38), (14, 16, 24)), "red": ((206, 28, 38), (186, 20, 34), (222, 40, 40))}
_PLAIN = {"line": (30, 26, 30), "white": (250, 248, 244), "steel": (186, 194, 204), "leaf": (72, 118, 70)}
_SLABS = {"A": "lb rb", "K": "lt lb rt rb", "J": "rt", "1": "cb", "4": "rb", "7": "lt"}


@cache
def _polygons(path: str) -> tuple[Array, ...]:
    """Flatten a path to polygons, each float64 (n, 2)."""
    polygons: list[Array] = []
    for letter, numbers in re.findall(r"([MLQCO])([^MLQCO]*)", path):
        knots = np.array(numbers.split()[:2] if letter == "O" else numbers.split(), dtype=np.float64).reshape(-1, 2)
        if letter == "O":
            angle = np.linspace(0, math.tau, 32, endpoint=False)
            knots = knots + float(numbers.split()[2]) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        if letter in "QC":
            knots = np.vstack([polygons[-1][-1:], knots])
            degree, t = len(knots) - 1, np.linspace(0, 1, 14)[1:]
            bernstein = [math.comb(degree, k) * t**k * (1 - t) ** (degree - k) for k in range(degree + 1)]
            knots = np.stack(bernstein, axis=1) @ knots
        polygons = [*polygons, knots] if letter in "MO" else [*polygons[:-1], np.vstack([polygons[-1], knots])]
    if path[0] == "|":
        polygons = [np.vstack([p, p[::-1] * (-1, 1)]) for p in polygons]
    return tuple(polygons + [p * (-1, 1) for p in polygons if path[0] == "&"])


@cache
def _glyph(symbol: str, bold: int, serif: bool) -> Image.Image:
    """A rank symbol as a trimmed mask, some 100 px high. Pillow's own font has no serifs: slabs are added."""
    font = ImageFont.load_default(size=130)
    draw, x = ImageDraw.Draw(mask := Image.new("L", (420, 220))), 60.0
    for letter in symbol:
        draw.text((x, 30), letter, 255, font, stroke_width=bold)
        x0, y0, x1, y1 = draw.textbbox((x, 30), letter, font, stroke_width=bold)
        for slab in _SLABS.get(letter, "").split() if serif else ():
            middle, top = {"l": x0 + 12, "r": x1 - 12, "c": x1 - 14}[slab[0]], y0 if slab[1] == "t" else y1 - 11
            draw.rectangle((middle - 20, top, middle + 20, top + 11), 255)
        x = x1 + 4
    return mask.crop(mask.getbbox())


class _Pen:
    """Draws on a white card in card widths. Draw, `half_turn`, draw again, `half_turn`: a two-headed card."""

    def __init__(self, width_px: int) -> None:
        self.width_px, self.image = width_px, Image.new("RGB", (width_px, round(_HEIGHT * width_px)), _WHITE)

    def half_turn(self) -> None:
        self.image = self.image.transpose(Image.Transpose.ROTATE_180)

    def draw(self, drawing: str, tones: Tones, x: float, y: float, size: float, line: float = 0) -> None:
        """Draw with the origin at (x, y) and 100 units as `size`; `line` is the outline's width, 0 for none."""
        canvas = ImageDraw.Draw(self.image)
        for part in drawing.split("/"):
            tone, path = part.strip().split(" ", 1)
            for polygon in _polygons(path):
                xy = ((polygon * (size / 100) + (x, y)) * self.width_px).ravel().tolist()
                if tone in tones:
                    canvas.polygon(xy, tones[tone])
                if line:
                    canvas.line(xy + xy[:4], tones["line"], max(1, round(line * self.width_px)), joint="curve")

    def stamp(self, mask: Image.Image, x: float, y: float, width: float, height: float, ink: Color) -> None:
        """Print a mask centred on (x, y)."""
        mask = mask.resize((round(width * self.width_px), round(height * self.width_px)), Image.Resampling.BOX)
        self.image.paste(ink, (round((x - width / 2) * self.width_px), round((y - height / 2) * self.width_px)), mask)

    def frame(self, x: float, y: float, tones: Tones, line: float) -> None:
        """A rectangle that keeps x and y from the card's edges, in the tones `fill` and `line`."""
        path = f"fill M{x} {y} L{1 - x} {y} L{1 - x} {_HEIGHT - y} L{x} {_HEIGHT - y}"
        self.draw(path, tones, 0, 0, 100, line)


# The face, in card widths. Index: x and y of the rank symbol, its height, that of the pip below. Middle: x of the left
# column, y of the first row, pip, lone pip, width of a court.
_LAYOUTS = {
    "classic": ((0.12, 0.16, 0.165, 0.135), (0.31, 0.25, 0.215, 0.48, 0.60)),
    "minimal": ((0.14, 0.17, 0.165, 0.120), (0.50, 0.70, 0.600, 0.60, 0.60)),
    "vintage": ((0.15, 0.19, 0.150, 0.125), (0.33, 0.28, 0.200, 0.42, 0.56)),
    "jumbo": ((0.26, 0.30, 0.420, 0.000), (0.28, 0.33, 0.420, 0.42, 0.50)),
    "ornate": ((0.205, 0.235, 0.160, 0.130), (0.385, 0.29, 0.165, 0.42, 0.48)),
    "banded": ((0.115, 0.17, 0.165, 0.140), (0.36, 0.22, 0.200, 0.44, 0.50)),
}


def _pick(rng: Generator, *choices: Color, spread: float = 8) -> Color:
    """One of the colors, varied by `spread` levels."""
    red, green, blue = np.clip(choices[rng.integers(len(choices))] + rng.normal(0, spread, 3), 0, 255)
    return int(red), int(green), int(blue)


def _draw_face(card: Card, rng: Generator, width_px: int) -> Image.Image:
    """The printed marks on plain white, `width_px` wide. Ink only: paper and light come later."""
    ink = _pick(rng, *_INKS[card.color], spread=7)
    symbol = ("A", *map(str, range(2, 11)), "J", "Q", "K")[RANKS.index(card.rank)]
    glyph = _glyph(symbol, int(rng.integers(2, 6)), card.style in ("vintage", "ornate"))
    wide, scale = min(glyph.width / glyph.height * rng.uniform(0.78, 1.08), 0.95), rng.uniform(0.92, 1.1)
    pen, (x, y, height, pip) = _Pen(width_px), _LAYOUTS[card.style][0]
    _draw_ornaments(pen, card.style, ink, rng)
    mark = _WHITE if card.style == "banded" else ink
    for _ in range(2):
        pen.stamp(glyph, x, y, wide * height * scale, height * scale, mark)
        pen.draw(_PIPS[card.suit], {"ink": mark}, x, y + (height + pip) * scale / 2 + 0.025, pip * scale)
        pen.half_turn()
    _draw_middle(pen, card, ink, scale, rng)
    return pen.image


def _draw_ornaments(pen: _Pen, style: str, ink: Color, rng: Generator) -> None:
    """What a style prints under the marks."""
    brown = _pick(rng, (120, 92, 60), (96, 84, 70), (110, 70, 50))
    band = _pick(rng, (22, 96, 104), (30, 58, 120), (36, 98, 62), (92, 58, 130), (170, 124, 40))
    tones = {"ink": ink, "line": brown, "band": band, "light": _pick(rng, (240, 214, 150), (244, 236, 214))}
    for _ in range(2):
        if style == "banded":
            pen.draw("ink M0 0 L22.5 0 L22.5 140 L0 140 / ink M24.5 0 L26 0 L26 140 L24.5 140", tones, 0, 0, 1)
        if style == "vintage":
            pen.draw(_LEAVES, tones, 0.93, 0.07, 0.24)
            pen.frame(0.035, 0.035, tones, 0.008)
            pen.frame(0.06, 0.06, tones, 0.004)
        pen.half_turn()
    if style == "ornate":
        pen.frame(0.03, 0.03, {"fill": band}, 0)
        pen.draw(_STUDS, tones, 0, 0, 1)
        pen.frame(0.12, 0.12, {"fill": _WHITE, "line": tones["light"]}, 0.008)
        pen.frame(0.135, 0.135, {"line": band}, 0.006)


def _draw_middle(pen: _Pen, card: Card, ink: Color, scale: float, rng: Generator) -> None:
    """Pips in their places, a court, or what the style has instead."""
    column_x, row_y, size, lone, width = _LAYOUTS[card.style][1]
    pip, tones = _PIPS[card.suit], {"ink": ink, "main": ink, "line": ink, "gold": _WHITE, "second": _WHITE}
    if card.style == "jumbo":
        pen.draw("ink M6 69.2 L94 69.2 L94 70.8 L6 70.8", tones, 0, 0, 1)
    if card.rank in _FIGURES and card.style == "minimal":
        pen.draw(pip, tones, 0.5, 0.82, 0.46 * scale)
        pen.draw(_HEADGEAR[card.rank], tones, 0.5, 0.3, 1.05, 0.014)
    elif card.rank in _FIGURES:
        _draw_court(pen, card, ink, width, rng)
    else:
        places = {"minimal": "c6", "jumbo": "r0 l12"}.get(card.style, _PLACES[RANKS.index(card.rank)])
        for side in (1, -1):  # the upper half, then the lower
            for place in places.split():
                column, row = "lcr".index(place[0]) - 1, int(place[1:]) / 12
                if (row <= 0.5) == (side == 1):
                    x, y = 0.5 + side * column * (0.5 - column_x), row_y + min(row, 1 - row) * (_HEIGHT - 2 * row_y)
                    pen.draw(pip, tones, x, y, (lone if places == "c6" else size) * scale)
            pen.half_turn()


def _draw_court(pen: _Pen, card: Card, ink: Color, width: float, rng: Generator) -> None:
    """A figure from its waist up, and the same again upside down. Black suits wear no red."""
    main = ink if card.color == "red" else _pick(rng, (34, 38, 58), (28, 30, 36), (40, 52, 84))
    second = _pick(rng, (240, 212, 186) if card.color == "red" else (188, 198, 214), spread=12)
    gold = _pick(rng, (226, 178, 62), (214, 164, 70), (238, 196, 90))
    skin = _pick(rng, (246, 214, 186), (236, 190, 156), (172, 118, 84), (250, 230, 210))
    hair = _pick(rng, (96, 60, 36), (190, 140, 70), (70, 50, 42), (170, 165, 160))
    tones = _PLAIN | {"ink": ink, "main": main, "second": second, "gold": gold, "skin": skin, "hair": hair}
    x, waist, pip = 0.5, 0.7, (0.5 - 0.36 * width, 0.7 - 0.78 * width, 0.21 * width)
    if card.style == "jumbo":
        x, waist, pip = 0.73, 0.66, (0.24, 0.595, 0.14)
    for _ in range(2):
        pen.draw(_FIGURES[card.rank], tones, x, waist - 0.87 * width, width, width / 120)
        pen.draw(_PIPS[card.suit], tones, *pip)
        pen.half_turn()
    if card.style != "jumbo":
        pen.frame(0.5 - width / 2, 0.7 - 0.93 * width, {"line": _pick(rng, (40, 60, 120), (60, 60, 60))}, 0.006)


def _noise(rng: Generator, shape: tuple[int, ...], cells: tuple[float, ...], octaves: int = 1) -> Array:
    """Smooth noise of `shape` (rows, columns), mean near 0, deviation near 0.7; `cells` is its coarsest lattice."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        lattice = [max(2, min(round(c * 2**octave), n)) for c, n in zip(cells, shape, strict=True)]
        image = Image.fromarray(rng.standard_normal(lattice, dtype=np.float32))
        total += np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)) * 0.6**octave
    return total


def _print(face: Image.Image, style: str, rng: Generator) -> Image.Image:
    """The face on its paper: tooth, blotches, uneven ink, bend, and age where the style has it."""
    ink = 1 - np.asarray(face, np.float32) / 255
    shape = ink.shape[:2]
    papers: dict[str, Color] = {"vintage": (229, 206, 160), "ornate": (248, 241, 220)}
    paper = np.array(_pick(rng, papers.get(style, (248, 247, 242)), spread=4), np.float32)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / shape[1]
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, _HEIGHT - y))
    tone = 1 + 0.012 * _noise(rng, shape, shape) + 0.012 * _noise(rng, shape, (5, 4), 2)
    tone += rng.uniform(-0.1, 0.1) * ((y / _HEIGHT - 0.5) ** 2 * 4 - 0.4)  # a slight bend
    tone += (rng.random() < 0.3) * 0.012 * (np.sin(x * 330) + np.sin(y * 330))  # some have a linen finish
    strength = rng.uniform(0.94, 1.0) + 0.02 * _noise(rng, shape, (30, 20))
    stain = rng.uniform(0, 0.12) * np.exp(-edge / 0.012)
    if style == "vintage":
        strength = np.clip(0.84 + 0.1 * _noise(rng, shape, (40, 30), 2), 0.5, 0.95)
        stain = 0.5 * np.clip(_noise(rng, shape, (4, 3), 3) - 0.5, 0, 0.5)
        stain += 0.35 * np.exp(-edge / 0.03) * (1 + 0.5 * _noise(rng, shape, (12, 9)))
        for _ in range(rng.integers(0, 3)):  # creases
            tone -= 0.14 * np.exp(-(((y - rng.uniform(0.2, 1.2) - rng.normal() * (x - 0.5)) / 0.006) ** 2))
    sheet = paper * (1 - stain[..., None] * np.array((0.25, 0.45, 0.8), np.float32)) * tone[..., None]
    return Image.fromarray(np.clip(sheet * (1 - ink * strength[..., None]), 0, 255).astype(np.uint8))


def _table(rng: Generator, size_px: int) -> Array:
    """A table top (n, n, 3) in 0..255, its pattern at any angle."""
    n = math.ceil(1.42 * size_px)
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) / n
    soft = partial(_noise, rng, (n, n))
    kind = rng.choice(("wood", "wood", "felt", "cloth", "marble", "granite"))
    if kind == "wood":
        color = _pick(rng, (156, 110, 70), (104, 68, 44), (196, 160, 116), (74, 54, 42), (168, 160, 150), spread=5)
        rings, planks = np.sin(math.tau * (y * rng.uniform(4, 12) + 0.5 * soft((5, 1.5), 2))), int(rng.integers(1, 5))
        boards = rng.uniform(-0.15, 0.12, planks)[np.minimum((y * planks).astype(int), planks - 1)]
        seams = np.abs(y * planks - np.round(y * planks)) < 0.012 * planks
        tone = 0.08 * rings + 0.07 * soft((n / 2, 5)) + 0.04 * soft((n, n / 6)) + boards - 0.5 * seams
    elif kind == "felt":
        color = _pick(rng, (28, 100, 62), (26, 64, 116), (62, 62, 68), (40, 112, 112), (84, 62, 100))
        tone = 0.09 * soft((n, n)) + 0.06 * soft((n / 4, n / 4)) + 0.04 * soft((3, 3))
    elif kind == "cloth":
        color = _pick(rng, (206, 194, 170), (70, 88, 118), (128, 128, 128), (222, 222, 216), (120, 140, 120))
        threads = math.tau * rng.uniform(50, 90)
        tone = 0.07 * np.sin(x * threads) * np.sin(y * threads)
        tone += 0.06 * (soft((4, 4)) + soft((n / 2, 4)) + soft((4, n / 2)))
        if rng.random() < 0.4:  # checked
            tone -= 0.22 * ((np.sin(x * 31.4) > 0).astype(np.float32) + (np.sin(y * 31.4) > 0))
    else:
        color = _pick(rng, (206, 204, 200), (120, 120, 122), (70, 72, 76), (190, 176, 156))
        veins, grit = np.exp(-np.abs(soft((3, 3), 5)) / 0.05), np.clip(np.abs(soft((n / 2, n / 2))) - 0.9, -0.2, 0.6)
        tone = 0.06 * soft((5, 5), 4) + (0.2 * grit if kind == "granite" else -0.35 * veins)
    top = np.array(color, np.float32) * (1 + tone[..., None])
    image = Image.fromarray(np.clip(top, 0, 255).astype(np.uint8)).rotate(rng.uniform(0, 360), Image.Resampling.BICUBIC)
    inner = slice((n - size_px) // 2, (n + size_px) // 2)
    return np.asarray(image, np.float32)[inner, inner]


def _pose(rng: Generator, size_px: int) -> tuple[Array, int]:
    """The card's corners in px (4, 2), from its top left clockwise, and its width there, in perspective."""
    angle = math.radians(rng.uniform(-180, 180) if rng.random() < 0.07 else rng.uniform(-25, 25))
    turn = np.array([(math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))])
    flat = np.array([(-0.5, -0.7), (0.5, -0.7), (0.5, 0.7), (-0.5, 0.7)]) @ turn
    toward, tilt = rng.uniform(0, math.tau), math.radians(rng.uniform(0, 26))
    axis = np.array((math.cos(toward), math.sin(toward)))
    depth = (flat @ axis)[:, None]
    seen = (flat + depth * (math.cos(tilt) - 1) * axis) / (1 + depth * math.sin(tilt) / rng.uniform(2.5, 5))
    scale = size_px * (1 - 0.4 * rng.beta(1.0, 2.8)) / np.ptp(seen, axis=0).max()
    seen = (seen - (seen.min(axis=0) + seen.max(axis=0)) / 2) * scale
    return size_px / 2 + seen + rng.uniform(-0.4, 0.4, 2) * (size_px - np.ptp(seen, axis=0)), math.ceil(scale * 1.08)


def _lay(face: Image.Image, corners: Array, size_px: int) -> tuple[Array, Array]:
    """See a flat card with its corners there: color (n, n, 3) in 0..255 and cover (n, n, 1) in 0..1."""
    (w, h), cut, rows = face.size, Image.new("L", face.size), []
    ImageDraw.Draw(cut).rounded_rectangle((1, 1, w - 2, h - 2), 0.055 * w, 255)
    face.putalpha(cut)
    for (u, v), (x, y) in zip(((0, 0), (w, 0), (w, h), (0, h)), corners * 2, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y, u), (0, 0, 0, x, y, 1, -v * x, -v * y, v)]
    system, frame = np.array(rows), (2 * size_px, 2 * size_px)
    mapping = np.linalg.solve(system[:, :8], system[:, 8]).tolist()
    seen = face.transform(frame, Image.Transform.PERSPECTIVE, mapping, Image.Resampling.BICUBIC).reduce(2)
    pixels = np.asarray(seen, np.float32)
    return pixels[..., :3], pixels[..., 3:] / 255


def _shadow(cover: Array, x_px: float, y_px: float, blur_px: float) -> Array:
    """What a cover keeps from the light, (n, n, 1) in 0..1."""
    mask = Image.fromarray((cover[..., 0] * 255).astype(np.uint8))
    moved = mask.transform(mask.size, Image.Transform.AFFINE, (1, 0, -x_px, 0, 1, -y_px), Image.Resampling.BILINEAR)
    return np.asarray(moved.filter(ImageFilter.GaussianBlur(blur_px)), np.float32)[..., None] / 255


def draw_card(card: Card, *, rng: Generator, size_px: int = 192) -> Image.Image:
    """Photograph one card: RGB, `size_px` x `size_px`.

    Everything comes from `rng`: equal states give equal pixels, and another card in the same scene. The card fills some
    60 to 100% of the frame, mostly turned by at most 25 degrees. Raises ValueError for size_px < 64.
    """
    if size_px < _LEAST_PX:
        raise ValueError(f"size_px must be at least {_LEAST_PX}, got {size_px}: pass size_px=192")
    photo, light, unit = _table(rng, size_px), rng.uniform(0, math.tau), size_px / 192
    lift, depth, blur = rng.uniform(-6, -1) * unit, rng.uniform(0.3, 0.65), rng.uniform(1.5, 6) * unit
    corners, width_px = _pose(rng, size_px)
    own = np.random.default_rng(rng.integers(2**63))  # a card draws as often as it needs; the scene must not shift
    sheets = [(_print(_draw_face(card, own, 4 * width_px).reduce(2), card.style, own), corners)]
    if rng.random() < 0.2:  # a neighbour lies below, face down
        under, width_px = _pose(rng, size_px)
        back, dye = _Pen(2 * width_px), _pick(rng, (40, 72, 140), (40, 110, 90), (110, 120, 130), (90, 70, 140))
        back.frame(0.04, 0.04, {"fill": dye}, 0)
        back.draw(_STUDS, {"light": _WHITE}, 0, 0, 1)
        sheets.insert(0, (back.image, under + rng.uniform(-0.5, 0.5, 2) * size_px))
    for sheet, quad in sheets:
        color, cover = _lay(sheet, quad, size_px)
        cast = _shadow(cover, lift * math.cos(light), lift * math.sin(light), blur)
        photo = photo * (1 - depth * cast) * (1 - 0.3 * _shadow(cover, 0, 0, 1.2 * unit))
        photo = photo * (1 - cover) + color * cover
    y, x = (np.mgrid[0:size_px, 0:size_px].astype(np.float32) / size_px - 0.5)[..., None]
    along, across = x * math.cos(light) + y * math.sin(light), y * math.cos(light) - x * math.sin(light)
    gloss = np.exp(-(((along - rng.uniform(-0.5, 0.5)) / rng.uniform(0.08, 0.3)) ** 2))
    photo = photo + (255 - photo) * rng.uniform(0, 0.2) * gloss * cover
    if rng.random() < 0.2:  # something outside the frame shades a part of it
        edge = np.tanh((along * 0.5 + across * 0.85 - rng.uniform(-0.3, 0.3)) / rng.uniform(0.02, 0.12))
        photo = photo * (1 - rng.uniform(0.07, 0.2) * (1 + edge))
    photo = photo * (1 + rng.uniform(0.05, 0.45) * along) * (1 - rng.uniform(0, 0.7) * (x**2 + y**2))
    warmth, tint, exposure = rng.normal(0, 0.05), rng.normal(0, 0.012), rng.uniform(0.84, 1.12)
    gain = exposure / 255 * np.array((1 + warmth, 1 + tint, 1 - warmth), np.float32)
    photo = 255 * np.clip(photo * gain, 0, 1) ** rng.uniform(0.85, 1.15)
    image = Image.fromarray(photo.astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7) * unit))
    grain = rng.normal(0, rng.uniform(1, 5), photo.shape[:2])[..., None] + rng.normal(0, 1.2, photo.shape)
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


def write_sample(
    folder: Path, *, seed: int = 0, images_per_card: int = 6, size_px: int = 192, progress: Progress | None = None
) -> Path:
    """Write `52 * images_per_card` JPEGs to `folder/images` and their truth to `folder/labels.csv`; return the former.

    `labels.csv` (file,suit,rank,color,style) comes last: its presence says that the sample is complete. Repeat an
    interrupted call; equal arguments give equal bytes. `progress(done, total)` follows each image. Raises ValueError
    for images_per_card < 1, seed < 0 or size_px < 64, UsageError where `folder/images` holds other files.
    """
    limits = {"images_per_card": (images_per_card, 1), "seed": (seed, 0), "size_px": (size_px, _LEAST_PX)}
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}: leave it out to get the default")
    deck = [  # styles rotate with rank + suit: where they can't be equally frequent, none is tied to a suit or a color
        Card(rank, suit, DECK_STYLES[(i + j + k) % len(DECK_STYLES)])
        for i, rank in enumerate(RANKS)
        for j, suit in enumerate(SUITS)
        for k in range(images_per_card)
    ]
    order = np.random.default_rng((seed, 0)).permutation(len(deck))
    cards = {f"card-{i:04d}.jpg": deck[k] for i, k in enumerate(order, start=1)}
    images, labels = folder / "images", folder / "labels.csv"
    images.mkdir(parents=True, exist_ok=True)
    if others := sorted(p.name for p in images.iterdir() if p.name not in cards and p.name[0] != "."):
        rule = f"{images} may hold only this sample, got {len(others)} other files ({others[0]}), which have no label"
        raise UsageError(rule, "choose an empty folder")
    labels.unlink(missing_ok=True)
    table = ["file,suit,rank,color,style\n"]
    for i, (name, card) in enumerate(cards.items(), start=1):
        photo = draw_card(card, rng=np.random.default_rng((seed, i)), size_px=size_px)
        photo.save(images / name, "JPEG", quality=90)
        table.append(f"{name},{card.suit},{card.rank},{card.color},{card.style}\n")
        if progress is not None:
            progress(i, len(cards))
    write_atomically(labels, "".join(table))
    return images


def pack_sample(archive: Path) -> None:
    """Draw the collection of `manylens demo` into a zip; equal pictures give equal bytes."""
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(archive, "w") as packed:  # JPEGs: stored as they are
        images = write_sample(Path(scratch))
        for file in [*sorted(images.iterdir()), images.parent / "labels.csv"]:
            packed.writestr(zipfile.ZipInfo(str(file.relative_to(scratch))), file.read_bytes())


if __name__ == "__main__":
    pack_sample(Path(__file__).parents[1] / "src" / "manylens" / "cli" / "sample.zip")
