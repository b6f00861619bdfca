"""Colors for photographs whose color nobody wrote down, said by vision itself, for the language model to learn from.

What vision sees of a color carries over to kinds of things it was never taught a color of (a linear head names 56% of
the colors of held-out vehicles right); what the language model makes of it does so less (35%), since it has met few
kinds of things with a color. So a head is fitted to vision's features of the images with known colors, and what it is
sure of becomes answers for the other small photographs, as they are and hue-turned by `recolor.py`. Kinds that are kept
out of color training are kept out here.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F
from augment import plain
from data import Pool, Task
from nano_model import VISION_WIDTH, Nano
from recolor import KEPT_OUT
from torch import Tensor, nn

ROWS_PER_TASK = 1500
LEAST_SURE = 0.5


@torch.no_grad()
def pooled_features(nano: Nano, images: Tensor, rows: np.ndarray, device: torch.device) -> Tensor:
    """Mean of the visual features over the places, (n, 1280) float32. images: (m, 3, side, side) uint8, the pool."""
    found = []
    for at in range(0, len(rows), 256):
        pixels = plain(images[torch.from_numpy(rows[at : at + 256]).to(device)])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found.append(nano.visual_features(pixels.contiguous(memory_format=torch.channels_last)).mean(1).float())
    return torch.cat(found)


def add_pseudo_colors(
    nano: Nano, pool: Pool, tasks: list[Task], color_tasks: Collection[str], images: Tensor, device: torch.device
) -> int:
    """Extend the rows of `cifar10.color`; returns by how many. Nothing held out is looked at."""
    nano.vision_tower.eval()
    by_key = {task.key: task for task in tasks}
    rng = np.random.default_rng(0)
    rows, answers = [], []
    for task in tasks:
        if task.key in color_tasks:
            known = np.flatnonzero(~task.held_out)
            known = rng.permutation(known)[:ROWS_PER_TASK]
            rows.append(task.rows[known])
            answers.extend(task.answers[i] for i in known)
    words = sorted(set(answers))
    features = pooled_features(nano, images, np.concatenate(rows), device)
    wanted = torch.tensor([words.index(a) for a in answers], device=device)
    head = nn.Linear(VISION_WIDTH, len(words)).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(40):
        for chosen in torch.randperm(len(wanted), device=device).split(512):
            loss = F.cross_entropy(head(F.dropout(features[chosen], 0.2)), wanted[chosen], label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    task, kinds = by_key["cifar10.color"], by_key["cifar10.class"]
    nameable = {row for row, kind in zip(kinds.rows.tolist(), kinds.answers, strict=True) if kind not in KEPT_OUT}
    nameable.update(row for row, name in enumerate(pool.set_of) if name == "hued")
    nameable.difference_update(*(t.rows.tolist() for t in tasks if t.key in color_tasks))
    open_rows = np.array(sorted(row for row in nameable if not pool.held_out[row]), dtype=np.int64)
    if not len(open_rows):
        return 0
    with torch.no_grad():
        sure, found = head(pooled_features(nano, images, open_rows, device)).softmax(-1).max(-1)
    keep = (sure >= LEAST_SURE).cpu().numpy()
    task.rows = np.concatenate([task.rows, open_rows[keep]])
    task.answers = [*task.answers, *(words[i] for i in found[torch.from_numpy(keep).to(device)].tolist())]
    task.held_out = np.concatenate([task.held_out, np.zeros(int(keep.sum()), dtype=bool)])
    task.values = sorted(set(task.answers))
    return int(keep.sum())
