"""What happens to pictures before the network sees them in training, all on the GPU.

In: (b, 3, side, side) uint8 and, for each picture, what its set allows. Out: normalised floats.
"""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor
from torch.nn import functional as F

NO_MIRROR = {"card", "cmuface", "road_signs", "writing_system", "handwritten_alphabet", "emoji_category"}
TURNED = {"textures": 180, "steel_defects": 180, "magnetic_tile_defects": 180, "pcb_defects": 180, "ucm_aerial_captions": 180, "blood_cells": 180, "card": 25, "tomato_leaf_disease": 90}  # fmt: skip
PLAIN = {"photo_quality"}  # its labels are what augmentation does
GENTLE = {
    "card",
    "cmuface",
    "road_signs",
    "writing_system",
    "handwritten_alphabet",
    "pcb_defects",
    "magnetic_tile_defects",
    "emotion",
}
"""Sets whose answer may lie at the edge: hardly cropped."""
SMALL = {"vehicle_color9", "cars_make_type", "vehicle_kind", "objects1000"}
GREY = {"face_attributes", "face_age_gender", "facial_expression"}
"""Sets of which the project is also asked in small pictures, or in grey ones."""


def normalize(pixels: Tensor) -> Tensor:
    return (pixels.float() - 127) / 128


def augment(
    pixels: Tensor, mirror: Tensor, turn: Tensor, plain: Tensor, gentle: Tensor, small: Tensor, grey: Tensor
) -> Tensor:
    """(b, 3, s, s) uint8 -> normalised floats. turn: (b,) degrees at most. The others: (b,) bool. small: some become as
    small as those of CIFAR-10. grey: some lose their color."""
    b, side, device = len(pixels), pixels.shape[-1], pixels.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(b, device=device) * (high - low) + low

    angle = uniform(-1, 1) * turn * (math.pi / 180)
    one = torch.ones(b, device=device)
    scale, aspect = 1 / uniform(0.85, 1.45).where(~plain, one).where(~gentle, uniform(0.85, 1.06)), uniform(0.85, 1.18)
    aspect = aspect.where(~gentle, uniform(0.94, 1.06))
    shift = 0.1 * one.where(~gentle, 0.3 * one)
    flip = torch.where(mirror & (torch.rand(b, device=device) < 0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * scale * aspect * flip, -sin * scale, uniform(-1, 1) * shift], 1),
            torch.stack([sin * scale * flip, cos * scale / aspect, uniform(-1, 1) * shift], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [b, 3, side, side], align_corners=False)
    x = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    order = torch.randperm(b, device=device)
    tiny = torch.argsort(
        (small & ~plain).float() + torch.rand(b, device=device), descending=True
    )  # those that may be, first
    for few, may, size in (
        (order[: b // 8], ~plain, random.randrange(64, 150)),
        (tiny[: b // 16], small & ~plain, random.randrange(28, 64)),
    ):
        shrunk = F.interpolate(x[few], size=(size, size), mode="bilinear", antialias=True, align_corners=False)
        shrunk = F.interpolate(shrunk, size=(side, side), mode="bicubic", align_corners=False)
        x[few] = torch.where(may[few].view(-1, 1, 1, 1), shrunk, x[few])
    soft = (~plain).float().view(b, 1, 1, 1)
    colorless = (grey & (torch.rand(b, device=device) < 0.2)).view(b, 1, 1, 1)
    light = x.mean(1, keepdim=True)
    x = torch.where(colorless, light, x)
    x = light + (x - light) * (1 + (uniform(0.75, 1.25).view(b, 1, 1, 1) - 1) * soft)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + (uniform(0.75, 1.25).view(b, 1, 1, 1) - 1) * soft)
    x = x * (1 + (uniform(0.75, 1.2).view(b, 1, 1, 1) - 1) * soft)
    x = x * (1 + (torch.rand(b, 3, 1, 1, device=device) - 0.5) * 0.12 * soft)
    center, half = torch.rand(b, 2, device=device) * side, uniform(0.05, 0.17).view(b, 1) * side
    axis = torch.arange(side, device=device).view(1, -1)
    hole = ((axis - center[:, :1]).abs() < half)[:, :, None] & ((axis - center[:, 1:]).abs() < half)[:, None, :]
    hole &= ((torch.rand(b, device=device) < 0.25) & ~plain).view(b, 1, 1)
    x = torch.where(hole[:, None], uniform(0, 255).view(b, 1, 1, 1), x)
    return normalize(x.clamp(0, 255))


def spoil(pixels: Tensor) -> Tensor:
    """Pictures in which nothing can be seen any more: blurred to a few pixels, black, white, or noise. (b, 3, s, s) uint8."""
    b, side = len(pixels), pixels.shape[-1]
    x = F.interpolate(pixels.float(), size=(3, 3), mode="area")
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    choice = torch.rand(b, 1, 1, 1, device=pixels.device)
    level = torch.rand(b, 1, 1, 1, device=pixels.device)
    x = torch.where(choice < 0.25, level * 12, x)
    x = torch.where((choice > 0.25) & (choice < 0.4), 255 - level * 8, x)
    noise = torch.randn_like(x)
    x = torch.where((choice > 0.4) & (choice < 0.6), 128 + noise * 60, x + noise * level * 10)
    return x.clamp(0, 255).to(torch.uint8)
