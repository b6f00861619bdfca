"""What the encoder can do on pictures it was not trained on, by direct means.

For each task: accuracy and NMI of the closed list of label texts; k-means, true K, on H(u given the interest) and on
the tuned pooled features; the same closed list under the held-out wordings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from tasks import Book, Task
from torch import Tensor
from torch.nn import functional as F

MOST = 400  # pictures of one task


def nmi(a: Any, b: Any) -> float:
    return float(normalized_mutual_info_score(a, b))


def kmeans_nmi(features: np.ndarray, truth: np.ndarray) -> float:
    found = KMeans(len(set(truth.tolist())), n_init=2, random_state=0).fit_predict(features)
    return nmi(truth, found)


@torch.inference_mode()
def evaluate(
    model: Any,
    texts: Tensor,
    pixels: Tensor,
    tasks: list[Task],
    book: Book,
    normalize: Callable[[Tensor], Tensor],
    half: torch.dtype,
) -> list[dict[str, Any]]:
    device = texts.device
    results = []
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    for task in tasks:
        rows, truth = task.held_rows, task.held_answers
        if task.left_out:
            rows, truth = np.concatenate([task.rows, rows]), np.concatenate([task.answers, truth])
        pick = np.random.default_rng(0).permutation(len(rows))[:MOST]
        rows, truth = rows[pick], truth[pick]
        if len(rows) < 12 or len(set(truth.tolist())) < 2:
            continue
        fresh = [row for row in rows.tolist() if row not in seen]
        for at in range(0, len(fresh), 256):
            part = fresh[at : at + 256]
            with torch.autocast(device.type, half):
                x = normalize(pixels[torch.as_tensor(part, device=device)]).to(memory_format=torch.channels_last)
                positions, pooled = model.eyes(x)
            for i, row in enumerate(part):
                seen[row] = positions[i].half(), pooled[i]
        positions = torch.stack([seen[row][0] for row in rows.tolist()]).float()
        pooled = torch.stack([seen[row][1] for row in rows.tolist()])

        def through(word: int) -> Tensor:
            interest = texts[word][None].expand(len(positions), -1)
            return F.normalize(model.head(positions, pooled, interest), dim=1)

        h = through(int(task.wordings[0]))
        table = texts[torch.as_tensor(task.labels, device=device)]

        def closed(h: Tensor) -> np.ndarray:
            return (h @ table.T).argmax(1).cpu().numpy()

        chosen = closed(h)
        others = [nmi(truth, closed(through(int(word)))) for word in task.held_wordings]
        mean = torch.cat([seen[row][1][None, :1280] for row in rows.tolist()]).cpu().numpy()
        own = nmi(truth, chosen)
        results.append(
            {
                "task": task.key, "left_out": task.left_out, "n": len(rows), "k": len(set(truth.tolist())),
                "accuracy": float((chosen == truth).mean()), "closed": own, "h": kmeans_nmi(h.cpu().numpy(), truth),
                "pooled": kmeans_nmi(mean, truth),
                "wordings": {book.texts[int(w)]: v for w, v in zip(task.held_wordings, others, strict=True)},
            }
        )  # fmt: skip
    return results


def print_table(results: list[dict[str, Any]]) -> None:
    columns = ("accuracy", "closed", "h", "pooled")
    for left_out in (False, True):
        chosen = [r for r in results if r["left_out"] == left_out]
        if not chosen:
            continue
        print(
            f"\n{'LEFT OUT' if left_out else 'GIVEN'}: n, K, accuracy and NMI of the closed list, k-means on H, tuned features; median NMI of held-out wordings"
        )
        for r in chosen:
            words = list(r["wordings"].values())
            middle = f"{np.median(words):.2f}" if words else "-"
            print(
                f"{r['task'][:44]:44} {r['n']:4} {r['k']:3} " + " ".join(f"{r[c]:.2f}" for c in columns) + f"  {middle}"
            )
        print(
            f"{'mean of ' + str(len(chosen)):53}" + " ".join(f"{np.mean([r[c] for r in chosen]):.3f}" for c in columns)
        )
        losses = [r["closed"] - v for r in chosen for v in r["wordings"].values()]
        if losses:
            print(
                f"wordings: median loss {np.median(losses):.3f}, more than .10 in {np.mean(np.asarray(losses) > 0.1):.2f} of {len(losses)}"
            )
