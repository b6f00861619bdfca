"""The words that nano answers with, by what they answer, and what kinds of picture it was taught on.

    python make_bank.py --data packed --levels levels.json --taught taught.npz --out ../src/manylens/models/nano [--left-out]

In: the packed corpus, `wordings.toml`, `interests.toml`; `see.py --taught`'s features. Out: `bank.json` (words, tasks)
and `bank.npz` (float16: embeddings of words and wordings; the discriminant axes and centers of the sets).
Held-out wordings are in no task.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from tasks import (
    CANNOT_TELL,
    KIND_WORDS,
    NOT_APPLICABLE,
    OBJECT_WORDS,
    OBJECTS,
    OPEN,
    VAGUE_KINDS,
    Book,
    Corpus,
    kind_of,
    make_tasks,
)

from manylens.models.text_embedder import TextEmbedder

AXES = 40
SHRINK = 0.2
OPEN_TASKS = (
    "coco_captions.activity",
    "coco_captions.place",
    "coco_captions.animal",
    "coco_captions.food",
    "human_actions15.action",
)
NO_BANK = {"miniplaces100.kind_of_place", "cars_make_type.model"}
PLAIN_NAMES = {"open": "no glasses or sunglasses"}


def domain_model(
    features: np.ndarray, sets: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Discriminant axes of the sets: axes (d, AXES), middle (d,), centers (sets, AXES), the usual distance."""
    middle = features.mean(0)
    x = features - middle
    centers = np.stack([x[sets == k].mean(0) for k in range(len(names))])
    inside = x - centers[sets]
    within = inside.T @ inside / len(x)
    within = (1 - SHRINK) * within + SHRINK * np.eye(len(within)) * np.trace(within) / len(within)
    values, vectors = np.linalg.eigh(within)
    whiten = vectors / np.sqrt(values)
    _, _, turned = np.linalg.svd(centers @ whiten, full_matrices=False)
    axes = whiten @ turned[:AXES].T
    placed = x @ axes
    distance = ((placed - (centers @ axes)[sets]) ** 2).sum(1)
    return axes, middle, centers @ axes, float(np.median(distance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "levels", "taught", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--wordings", type=int, default=48)
    parser.add_argument("--scale", type=float, default=30.0)
    o = parser.parse_args()
    corpus, book = Corpus.read(o.data), Book()
    tasks = make_tasks(corpus, book, Path(__file__).parent, leave_out=o.left_out, wordings=o.wordings, seed=1)
    levels = json.loads(o.levels.read_text())
    words = Book()
    words.all([NOT_APPLICABLE, CANNOT_TELL])
    listed: list[tuple[str, str, list[str], list[str]]] = []
    opens: set[str] = set()
    for task in tasks:
        if task.left_out or task.key in NO_BANK:
            continue
        labels = [book.texts[k] for k in task.labels]
        wordings = list(dict.fromkeys(book.texts[k].casefold() for k in task.wordings))
        listed.append((task.attribute, task.key.split(".")[0], labels, wordings))
        if task.key in OPEN_TASKS:
            opens |= set(labels)
    for kind, classes in levels["kinds"].items():
        if kind not in VAGUE_KINDS:
            listed.append(
                (
                    f"kind of {kind}",
                    "",
                    sorted({levels["names"][k] for k in classes}),
                    [w.format(k=kind) for w in KIND_WORDS],
                )
            )
    common = sorted({name for name in levels["common"] if name})
    things = {p.strip() for value in corpus.values["coco_captions.objects"] for p in value.split(";")}
    listed.append(("object", "", sorted({*common, *things}), list(OBJECT_WORDS)))
    listed.append(("objects", "", sorted(things), list(OBJECTS)))
    listed.append(("what the picture shows", "", sorted(opens | things | set(common)), list(OPEN)))
    kept = np.load(o.taught)
    of = corpus.set_of[kept["rows"]]
    domains = [name for k, name in enumerate(corpus.sets) if (of == k).any()]
    index = np.asarray([domains.index(corpus.sets[k]) for k in of])
    axes, middle, centers, usual = domain_model(kept["pooled"][:, :1280].astype(np.float64), index, domains)
    told = []
    wordings: list[str] = []
    for name, domain, labels, asked in listed:
        told.append(
            {
                "name": name,
                "domain": domain,
                "words": sorted({words(label) for label in labels}),
                "wordings": len(asked),
            }
        )
        wordings += asked
    embedder = TextEmbedder()
    o.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        o.out / "bank.npz", words=embedder.embed(words.texts).astype(np.float16), wordings=embedder.embed(wordings).astype(np.float16),
        axes=axes.astype(np.float16), middle=middle.astype(np.float16), centers=centers.astype(np.float16),
    )  # fmt: skip
    numbers = {"scale": o.scale, "domain_heat": 0.5, "usual_distance": usual}
    (o.out / "bank.json").write_text(
        json.dumps(
            {
                "words": words.texts,
                "domains": domains,
                "kinds": [kind_of(name) for name in domains],
                "tasks": told,
                "numbers": numbers,
            }
        )  # fmt: skip
    )
    print(
        f"{len(told)} tasks, {len(words.texts)} words, {len(wordings)} wordings; {(o.out / 'bank.npz').stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
