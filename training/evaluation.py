"""Held-out numbers of a trained nano, per (set, attribute): nothing here is ever used to choose weights.

accuracy of the described word; NMI of descriptions; NMI of k-means on H with the true K; AUC of judgements (true group
against a random other); the same accuracy under phrasings never trained on; accuracy by color for objects kept out.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from augment import plain
from data import Pool, Task
from nano_model import END_ID, VISUAL_TOKENS, Nano
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score
from tokenizers import Tokenizer
from torch import Tensor

MAX_ANSWER_TOKENS = 8


@torch.no_grad()
def describe(nano: Nano, features: Tensor, prompt: list[int], tokenizer: Tokenizer) -> tuple[list[str], np.ndarray]:
    """Greedy answers and H for images under one prompt (b, 9, 1280)."""
    device = features.device
    ids = torch.tensor([prompt] * len(features), device=device)
    h = None
    for _ in range(MAX_ANSWER_TOKENS):
        states = nano.hidden_states(ids, features)
        if h is None:
            h = nano.embed(states[:, -1])
        ids = torch.cat([ids, nano.logits(states[:, -1]).argmax(-1, keepdim=True)], 1)
        if bool((ids[:, len(prompt) :] == END_ID).any(1).all()):
            break
    words = []
    for row in ids[:, len(prompt) :].tolist():
        words.append(tokenizer.decode(row[: row.index(END_ID)] if END_ID in row else row).strip())
    assert h is not None
    return words, h.float().cpu().numpy()


@torch.no_grad()
def judge(nano: Nano, features: Tensor, prompt: list[int], yes: int, no: int) -> np.ndarray:
    ids = torch.tensor([prompt] * len(features), device=features.device)
    logits = nano.logits(nano.hidden_states(ids, features)[:, -1])
    return torch.softmax(logits[:, [yes, no]].float(), -1)[:, 0].cpu().numpy()


def evaluate(
    nano: Nano, pool: Pool, tasks: list[Task], pixels: Tensor, tokenizer: Tokenizer, device: torch.device, limit: int
) -> dict[str, dict[str, object]]:
    nano.eval()
    choose = random.Random(0)
    table: dict[str, dict[str, object]] = {}

    def tokens(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def describe_prompt(text: str) -> list[int]:
        return [1, *tokens(text)] + [nano.image_token] * VISUAL_TOKENS + tokens("\nAnswer:")

    def judge_prompt(text: str, name: str) -> list[int]:
        return describe_prompt(f"{text}\nGroup: {name}\nBelongs, yes or no?")

    yes, no = tokens(" yes")[0], tokens(" no")[0]
    print(f"{'task':24}{'n':>5}{'acc':>7}{'acc held-out phrases':>22}{'NMI desc':>10}{'NMI k-means':>12}{'AUC':>7}")
    for task in tasks:
        chosen = list(np.flatnonzero(task.held_out)[:limit])
        if len(chosen) < 8:
            continue
        truth = [task.answers[i] for i in chosen]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = torch.cat(
                [
                    nano.visual_features(
                        plain(pixels[torch.from_numpy(task.rows[chosen[at : at + 256]]).to(device)])
                    ).float()
                    for at in range(0, len(chosen), 256)
                ]
            )

            def over_all(prompt: list[int], features: Tensor = features) -> tuple[list[str], np.ndarray]:
                parts = [
                    describe(nano, features[at : at + 256], prompt, tokenizer) for at in range(0, len(features), 256)
                ]
                return [w for p in parts for w in p[0]], np.concatenate([p[1] for p in parts])

            words, h = over_all(describe_prompt(task.phrasings.listed[0]))
            other = [over_all(describe_prompt(p))[0] for p in task.held_out_phrases[:3]]
            scores, wanted = [], []
            for name in task.values:
                member = np.array([t == name for t in truth])
                outside = np.flatnonzero(~member)
                picked = np.concatenate(
                    [
                        np.flatnonzero(member),
                        np.array(choose.sample(list(outside), min(len(outside), int(member.sum()) + 5)), dtype=int),
                    ]
                )
                if len(picked) and member.any():
                    scores.append(
                        judge(
                            nano,
                            features[torch.from_numpy(picked).to(device)],
                            judge_prompt(task.phrasings.listed[0], name),
                            yes,
                            no,
                        )
                    )
                    wanted.append(member[picked])
        k = len(set(truth))
        found = KMeans(k, n_init=4, random_state=0).fit_predict(h)
        row: dict[str, object] = {
            "n": len(truth),
            "accuracy": float(np.mean([a == b for a, b in zip(words, truth, strict=True)])),
            "accuracy_held_out_phrases": [
                float(np.mean([a == b for a, b in zip(o, truth, strict=True)])) for o in other
            ],
            "nmi_descriptions": float(normalized_mutual_info_score(truth, words)),
            "nmi_held_out_phrases": [float(normalized_mutual_info_score(truth, o)) for o in other],
            "nmi_kmeans": float(normalized_mutual_info_score(truth, found)),
            "judge_auc": float(roc_auc_score(np.concatenate(wanted), np.concatenate(scores)))
            if scores and len(set(truth)) > 1
            else None,
        }
        if "color" in task.key:
            row["by_color"] = {
                c: [sum(w == c for w, t in zip(words, truth, strict=True) if t == c), truth.count(c)]
                for c in sorted(set(truth))
            }
        table[task.key] = row
        phrases = " ".join(f"{x:.3f}" for x in row["accuracy_held_out_phrases"])  # type: ignore[attr-defined]
        print(
            f"{task.key:24}{row['n']:5}{row['accuracy']:7.3f}{phrases:>22}{row['nmi_descriptions']:10.3f}{row['nmi_kmeans']:12.3f}"
            f"{row['judge_auc'] or 0:7.3f}",
            flush=True,
        )
    return table
