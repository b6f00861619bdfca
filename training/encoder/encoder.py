"""The network: EfficientNet-Lite2, and a head that reads its pictures through an interest.

In: pixels (b, 3, side, side), normalised; the interest's embedding (b, 384) by all-MiniLM-L6-v2, unit length.
Out: H(u), (b, 384), unit length, in the space of that text embedder: near the embedding of the words that answer.

`Eyes` see once per picture: visual positions (b, p, WIDTH) and pooled features (b, POOLED). `Head` reads them once per
interest: queries made from the interest attend over the positions, its FiLM scales the pooled features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TEXT, WIDTH, HEADS, QUERIES = 384, 256, 8, 4
MEAN, STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)  # of EfficientNet-Lite: (x - 127) / 128
# kernel, stride, expansion, output channels, repeats: EfficientNet-Lite0 scaled by 1.1 in width and 1.2 in depth
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 3), (5, 2, 6, 48, 3), (3, 2, 6, 88, 4), (5, 1, 6, 120, 4), (5, 2, 6, 208, 5), (3, 1, 6, 352, 1))  # fmt: skip
POOLED = 1280 + 2 * (24 + 48 + 120)  # mean of the last layer; mean and deviation of three earlier ones
TAPPED = (1, 2, 4)


class SamePad(nn.Conv2d):
    """TensorFlow's padding: with stride 2 on an even side, one row and column at the end only."""

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        pad = max((-(x.shape[-1] // -s) - 1) * s + k - x.shape[-1], 0)
        if pad % 2 == 0:
            return F.conv2d(x, self.weight, None, self.stride, pad // 2, 1, self.groups)
        x = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
        return F.conv2d(x, self.weight, None, self.stride, 0, 1, self.groups)


def conv(into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SamePad:
    return SamePad(into, out, kernel, stride, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = into * expansion
        self.expand = nn.ModuleList([conv(into, inner), norm(inner)]) if expansion > 1 else None
        self.depthwise, self.norm1 = conv(inner, inner, kernel, stride, inner), norm(inner)
        self.project, self.norm2 = conv(inner, out), norm(out)
        self.skip = stride == 1 and into == out

    def forward(self, x: Tensor, drop: float = 0.0) -> Tensor:
        y = x
        if self.expand is not None:
            y = F.relu6(self.expand[1](self.expand[0](y)))
        y = F.relu6(self.norm1(self.depthwise(y)))
        y = self.norm2(self.project(y))
        if not self.skip:
            return y
        if drop and self.training:
            y = y * (torch.rand(len(y), 1, 1, 1, device=y.device) >= drop).to(y.dtype) / (1 - drop)
        return x + y


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = conv(3, 32, 3, 2), norm(32)
        blocks, into, ends = [], 32, []
        for kernel, stride, expansion, out, repeats in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(into, out, kernel, stride if repeat == 0 else 1, expansion))
                into = out
            ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.taps = {ends[stage] for stage in TAPPED}
        self.head, self.norm1 = conv(into, 1280), norm(1280)

    def forward(self, x: Tensor, drop: float = 0.0) -> tuple[Tensor, list[Tensor]]:
        x = F.relu6(self.norm0(self.stem(x)))
        tapped = []
        for i, block in enumerate(self.blocks):
            x = block(x, drop * i / len(self.blocks))
            if i in self.taps:
                tapped.append(x)
        return F.relu6(self.norm1(self.head(x))), tapped


class Eyes(nn.Module):
    """Pixels -> positions (b, p, WIDTH), pooled (b, POOLED)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.positions = nn.Linear(1280, WIDTH)

    def forward(self, pixels: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor]:
        last, tapped = self.backbone(pixels, drop)
        flat = last.flatten(2).transpose(1, 2)
        pooled = [flat.mean(1)]
        for layer in tapped:
            layer = layer.float().flatten(2)
            mean = layer.mean(2)
            spread = ((layer - mean[:, :, None]) ** 2).mean(2).add(1e-5).sqrt()
            pooled += [mean, spread]
        return self.positions(flat), torch.cat([part.float() for part in pooled], 1)


class Head(nn.Module):
    """Positions, pooled and interest -> H(u) before it is brought to unit length."""

    def __init__(self, positions: int, inner: int = 1024) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, positions, WIDTH))
        self.pooled_norm = nn.BatchNorm1d(POOLED, affine=False)
        self.token_norm = nn.LayerNorm(WIDTH)
        self.interest = nn.Sequential(nn.Linear(TEXT, 512), nn.GELU())
        self.query = nn.Linear(512, QUERIES * WIDTH)
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.scale_shift = nn.Linear(512, 2 * 512)
        self.pooled_in = nn.Linear(POOLED, 512)
        self.gate = nn.Linear(512, inner)
        self.mix1 = nn.Linear(QUERIES * WIDTH + 512 + 512, inner)
        self.mix2 = nn.Linear(inner, inner)
        self.out = nn.Linear(inner, TEXT)
        self.norm1, self.norm2 = nn.LayerNorm(inner), nn.LayerNorm(inner)
        nn.init.normal_(self.place, std=0.02)
        for layer in (self.scale_shift, self.gate):
            nn.init.zeros_(layer.bias)
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, positions: Tensor, pooled: Tensor, interest: Tensor) -> Tensor:
        b, p, _ = positions.shape
        about = self.interest(interest * TEXT**0.5)
        tokens = self.token_norm(positions) + self.place
        query = self.query(about).view(b, QUERIES * HEADS, WIDTH // HEADS)
        key = self.key(tokens).view(b, p, HEADS, WIDTH // HEADS)
        value = self.value(tokens).view(b, p, HEADS, WIDTH // HEADS)
        query = query.view(b, QUERIES, HEADS, WIDTH // HEADS)
        weight = torch.einsum("bqhd,bphd->bhqp", query, key) / (WIDTH // HEADS) ** 0.5
        seen = torch.einsum("bhqp,bphd->bqhd", weight.softmax(-1), value).reshape(b, QUERIES * WIDTH)
        scale, shift = self.scale_shift(about).chunk(2, 1)
        whole = self.pooled_in(self.pooled_norm(pooled)) * (1 + scale) + shift
        x = F.gelu(self.norm1(self.mix1(torch.cat([seen, F.gelu(whole), about], 1))))
        x = x * (1 + torch.tanh(self.gate(about)))
        x = x + F.gelu(self.norm2(self.mix2(x)))
        return self.out(x)


class Encoder(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.eyes = Eyes()
        self.head = Head((side // 32) ** 2)
        self.classes = nn.Linear(1280, 1000)  # ImageNet's, for distillation only

    def forward(
        self, pixels: Tensor, interest: Tensor, drop: float = 0.0, of: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """of: (a,) which picture each of a interests is about; without it picture and interest go together."""
        positions, pooled = self.eyes(pixels, drop)
        if of is not None:
            return F.normalize(self.head(positions.float()[of], pooled[of], interest), dim=1), pooled
        return F.normalize(self.head(positions.float(), pooled, interest), dim=1), pooled


def load_imagenet(model: Encoder, weights: dict[str, Tensor]) -> None:
    """EfficientNet-Lite2's own weights into the backbone and `classes`: the same tensors in the same order."""
    given = [value for name, value in weights.items() if "num_batches_tracked" not in name]
    targets = [(n, v) for n, v in model.eyes.backbone.state_dict().items() if "num_batches_tracked" not in n]
    for (name, target), value in zip(targets, given[: len(targets)], strict=True):
        if target.shape != value.shape:
            raise SystemExit(f"{name}: {tuple(value.shape)} does not fit {tuple(target.shape)}")
        target.copy_(value)
    weight, bias = given[len(targets) :]
    model.classes.weight.data.copy_(weight)
    model.classes.bias.data.copy_(bias)
