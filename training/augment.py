"""Image augmentation on the GPU: one affine warp and a few photo effects per image, no loops.

In: (b, 3, side, side) uint8 and which rows may be mirrored or turned.
Out: (b, 3, IMAGE_PX, IMAGE_PX) float32, normalised.
Hue is left alone and saturation hardly touched: color words are answers here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from nano_model import IMAGE_PX, MEAN, STD
from torch import Tensor


def normalize(pixels: Tensor) -> Tensor:
    """uint8 or [0, 255] floats -> ImageNet-normalised floats."""
    mean = torch.tensor(MEAN, device=pixels.device).view(1, 3, 1, 1) * 255
    std = torch.tensor(STD, device=pixels.device).view(1, 3, 1, 1) * 255
    return (pixels.float() - mean) / std


def plain(pixels: Tensor) -> Tensor:
    """What the run-time does: resize to IMAGE_PX, normalise."""
    x = pixels.float()
    if x.shape[-1] != IMAGE_PX:
        x = F.interpolate(x, size=(IMAGE_PX, IMAGE_PX), mode="bicubic", antialias=True, align_corners=False).clamp(
            0, 255
        )
    return normalize(x)


def _shrunk(x: Tensor, side: int) -> Tensor:
    """What a photo of `side` pixels looks like after it was enlarged."""
    small = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


def augment(pixels: Tensor, mirror: Tensor, max_turn_deg: Tensor, half_turn: Tensor, shrinkable: Tensor) -> Tensor:
    """mirror, half_turn, shrinkable: (b,) bool, allowed or not. max_turn_deg: (b,).

    Nothing here waits for the GPU (no boolean indexing, no numbers read back), so that the loop runs ahead of it.
    """
    b, device = pixels.shape[0], pixels.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(b, device=device) * (high - low) + low

    angle = uniform(-1, 1) * max_turn_deg * (torch.pi / 180) * (torch.rand(b, device=device) < 0.7)
    angle = angle + torch.pi * (half_turn & (torch.rand(b, device=device) < 0.25))
    scale = uniform(0.82, 1.22)
    aspect = uniform(0.88, 1.14)
    flip = torch.where(mirror & (torch.rand(b, device=device) < 0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * aspect / scale * flip, -sin / scale, uniform(-0.09, 0.09)], 1),
            torch.stack([sin * flip / scale, cos / aspect / scale, uniform(-0.09, 0.09)], 1),
        ],
        1,
    )
    theta[:, :, :2] = theta[:, :, :2] + (torch.rand(b, 2, 2, device=device) - 0.5) * 0.08
    grid = F.affine_grid(theta, [b, 3, IMAGE_PX, IMAGE_PX], align_corners=False)
    x = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    lot = torch.randperm(b, device=device)
    some, few = lot[: b // 5], lot[b // 5 : b // 5 + b // 8]
    x[some] = _shrunk(x[some], int(torch.randint(56, 140, (1,))))
    tiny = _shrunk(x[few], int(torch.randint(28, 56, (1,))))  # cards and faces could not be read at this size
    x[few] = torch.where(shrinkable[few].view(-1, 1, 1, 1), tiny, x[few])

    def per_image(values: Tensor) -> Tensor:
        return values.view(b, 1, 1, 1)

    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * per_image(uniform(0.8, 1.2))
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * per_image(uniform(0.75, 1.25))
    x = x * per_image(uniform(0.75, 1.2)) * (1 + (torch.rand(b, 3, 1, 1, device=device) - 0.5) * 0.14)
    noise = per_image(uniform(0, 14) * (torch.rand(b, device=device) < 0.3))
    x = (x + torch.randn_like(x) * noise).clamp(0, 255)

    erase = torch.rand(b, device=device) < 0.15
    center, half = torch.rand(b, 2, device=device) * IMAGE_PX, uniform(8, 26).view(b, 1)
    axis = torch.arange(IMAGE_PX, device=device).view(1, -1)
    rows = (axis - center[:, :1]).abs() < half
    cols = (axis - center[:, 1:]).abs() < half
    hole = (rows.unsqueeze(2) & cols.unsqueeze(1) & erase.view(b, 1, 1)).unsqueeze(1)
    x = torch.where(hole, per_image(uniform(0, 255)), x)
    return normalize(x)


def mix(pixels: Tensor, kind: Tensor, allowed: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Blend or patch images of one kind: mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), half and half.

    pixels: (b, 3, h, w). kind: (b,) whole numbers; only images of one kind are mixed. allowed: (b,) bool.
    Returns the pixels, each image's partner (b,) and how much of the image itself is left (b,), 1 where it is whole.
    Small sets are learnt by heart within a few dozen rounds; what is mixed is never seen twice.
    """
    b, device = pixels.shape[0], pixels.device
    order = torch.argsort(kind + 0.9 * torch.rand(b, device=device))
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    mixes = allowed & (kind[partner] == kind) & (torch.rand(b, device=device) < share)
    own = torch.distributions.Beta(0.6, 0.6).sample((b,)).to(device)
    own = torch.maximum(own, 1 - own)
    side = pixels.shape[-1]
    half = ((1 - own).sqrt() * side / 2).view(b, 1)
    center = torch.rand(b, 2, device=device) * side
    axis = torch.arange(side, device=device).view(1, -1)
    rows, cols = ((axis - center[:, i : i + 1]).abs() < half for i in (0, 1))
    patch = (rows.unsqueeze(2) & cols.unsqueeze(1)).float()
    blends = torch.rand(b, device=device) < 0.5
    taken = torch.where(blends.view(b, 1, 1), (1 - own).view(b, 1, 1), patch) * mixes.view(b, 1, 1)
    return torch.lerp(pixels, pixels[partner], taken.unsqueeze(1)), partner, 1 - taken.mean((1, 2))
