"""Which tasks of the bank an interest asks for, learned from their wordings: a multinomial logistic regression on embeddings.

    python read_interests.py --folder ../../src/manylens/models/nano [--validate]

In: FOLDER's bank, `wordings.toml`, `interests.toml`. Out: `reader` in FOLDER/bank.npz, (tasks, 385) float16: weights and,
last, the offset. Held-out wordings are in no task. With --validate nothing is written: a quarter of the nouns and
questions is kept back, and how they are read is printed beside the nearest wording alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from phrasings import Phrasings
from sklearn.linear_model import LogisticRegression
from tasks import FIRST_NINE, KIND_WORDS, OBJECT_WORDS, OBJECTS, OPEN, Wordings, readable

from manylens.models.nano.bank import TASK_HEAT
from manylens.models.text_embedder import TextEmbedder

DRAWN = 70  # phrasings of each task
STRENGTH = 30.0  # of the regression, C of scikit-learn, found with --validate: of 3, 10, 30, 100 the least loss
OWN_WORDS = {"object": OBJECT_WORDS, "objects": OBJECTS, "what the picture shows": OPEN}


@dataclass
class Group:
    """Tasks that are asked for in the same words. tasks: their places in the bank. kept_back: wordings to judge by."""

    tasks: list[int]
    wordings: list[str]
    kept_back: list[str]


def is_kept_back(text: str) -> bool:
    return int(hashlib.sha256(text.casefold().encode()).hexdigest()[:8], 16) % 4 == 0


def reduced(entry: dict[str, Any], plain: str) -> tuple[dict[str, Any], list[str]]:
    """An entry without the nouns and questions that are kept back, and those."""
    subject, plural = entry["subjects"][0], entry["plurals"][0]
    away = [n for n in entry["nouns"] if is_kept_back(n) and n != plain]
    asked = [q for q in entry["questions"] if is_kept_back(q)]
    rest = dict(entry)
    rest["nouns"] = [n for n in entry["nouns"] if n not in away] or [plain]
    rest["questions"] = [q for q in entry["questions"] if q not in asked] or entry["questions"][:1]
    rest["train"] = [t for t in entry["train"] if not is_kept_back(t)] or [plain]
    said = [q.replace("{subject}", subject).replace("{plural}", plural) for q in asked]
    return rest, [*away, *(f"{n} of the {subject}" for n in away[:3]), *said]


def groups_of(bank: dict[str, Any], folder: Path, validate: bool) -> list[Group]:
    books, rng = Wordings.read(folder), random.Random(5)
    keys = {(books.of(key)[-1][0], key.split(".")[0]): key for key in [*FIRST_NINE, *books.attribute_of]}
    groups: dict[tuple[str, ...], Group] = {}
    for place, task in enumerate(bank["tasks"]):
        name = task["name"]
        if not task["domain"]:
            kind = [w.format(k=name.removeprefix("kind of ")) for w in KIND_WORDS]
            groups[name,] = Group([place], list(OWN_WORDS.get(name, kind)), [])
            continue
        key = keys[name, task["domain"]]
        plain, labels = readable(key.split(".")[1]), sorted(bank["words"][k] for k in task["words"])
        entries, kept_back = [], []
        for _, entry in books.of(key):
            rest, away = reduced(entry, plain) if validate else (entry, [])
            entries.append(rest)
            kept_back += away
        pools = [Phrasings.from_table(entry, labels) for entry in entries]
        never = {w.casefold() for entry in entries for w in entry["heldout"]}
        drawn = [plain, *(n for entry in entries for n in entry["nouns"])]
        drawn += [rng.choice(pools).draw(rng) for _ in range(DRAWN)]
        group = groups.setdefault(tuple(a for a, _ in books.of(key)), Group([], [], list(dict.fromkeys(kept_back))))
        group.tasks.append(place)
        group.wordings += [w.casefold() for w in drawn if w.casefold() not in never]
    return [Group(g.tasks, list(dict.fromkeys(g.wordings)), g.kept_back) for g in groups.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--validate", action="store_true")
    o = parser.parse_args()
    bank = json.loads((o.folder / "bank.json").read_text("utf-8"))
    groups, embedder = groups_of(bank, Path(__file__).parent, o.validate), TextEmbedder()
    x = np.concatenate([embedder.embed(group.wordings) for group in groups])
    y = np.concatenate([np.full(len(group.wordings), k) for k, group in enumerate(groups)])
    weight = 1 / np.bincount(y)[y]  # groups count the same
    fitted = LogisticRegression(C=STRENGTH, max_iter=300).fit(x, y, sample_weight=weight * len(y) / weight.sum())
    print(f"{len(groups)} groups of tasks, {len(x)} wordings; {np.mean(fitted.predict(x) == y):.3f} of them read right")
    if o.validate:
        truth = np.concatenate([np.full(len(group.kept_back), k) for k, group in enumerate(groups)])
        asked = embedder.embed([w for group in groups for w in group.kept_back])
        near = np.full((len(asked), len(groups)), -1.0)
        for k in range(len(groups)):
            near[:, k] = (asked @ x[y == k].T).max(1)
        learned = fitted.decision_function(asked)
        for name, logits in (
            ("nearest", near / TASK_HEAT),
            ("learned", learned),
            ("mean of both", (near / TASK_HEAT + learned) / 2),
        ):
            own = logits[np.arange(len(truth)), truth]
            loss = np.log(np.exp(logits - own[:, None]).sum(1))
            better = (logits > own[:, None]).sum(1)
            print(
                f"{name}: of {len(truth)} first {np.mean(better == 0):.3f}, of the first three {np.mean(better < 3):.3f}, loss {loss.mean():.3f}"
            )
        return
    reader = np.zeros((len(bank["tasks"]), x.shape[1] + 1), np.float16)
    for k, group in enumerate(groups):
        reader[group.tasks] = [*fitted.coef_[k], fitted.intercept_[k]]
    with np.load(o.folder / "bank.npz") as npz:
        arrays = {name: npz[name] for name in npz.files}
    np.savez_compressed(o.folder / "bank.npz", **{**arrays, "reader": reader})


if __name__ == "__main__":
    main()
