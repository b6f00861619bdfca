"""The table of docs/explanation/nano.md's held-out numbers, through the ONNX files: what a trained encoder does on unseen pictures.

python measure.py --data packed --seen seen.npz --head head.onnx [--left-out] --json measured.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score as nmi
from tasks import CANNOT_TELL, NOT_APPLICABLE, Book, Corpus, make_tasks

from manylens.models.text_embedder import TextEmbedder

MOST = 250


def kmeans(features: np.ndarray, truth: np.ndarray) -> float:
    return float(nmi(truth, KMeans(len(set(truth.tolist())), n_init=4, random_state=0).fit_predict(features)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "seen", "head", "json"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--no-kmeans", action="store_true")
    o = parser.parse_args()
    corpus, book = Corpus.read(o.data), Book()
    tasks = make_tasks(corpus, book, Path(__file__).parent, leave_out=o.left_out, wordings=40, seed=0)
    kept = np.load(o.seen)
    at = {row: i for i, row in enumerate(kept["rows"].tolist())}
    positions, pooled = kept["positions"], kept["pooled"]
    session = onnxruntime.InferenceSession(str(o.head), providers=["CPUExecutionProvider"])
    embedder = TextEmbedder()
    known: dict[str, np.ndarray] = {}

    def text(words: str) -> np.ndarray:
        if words not in known:
            known[words] = embedder.embed([words])[0]
        return known[words]

    results = []
    for task in tasks:
        rows, truth = task.held_rows, task.held_answers
        if task.left_out:
            rows, truth = np.concatenate([task.rows, rows]), np.concatenate([task.answers, truth])
        here = np.asarray([r in at for r in rows.tolist()], bool)
        rows, truth = rows[here], truth[here]
        pick = np.random.default_rng(0).permutation(len(rows))[:MOST]
        rows, truth = rows[pick], truth[pick]
        if len(rows) < 12 or len(set(truth.tolist())) < 2:
            continue
        places = np.asarray([at[r] for r in rows.tolist()])
        seen, whole = positions[places].astype(np.float32), pooled[places].astype(np.float32)

        def through(words: str) -> np.ndarray:
            (h,) = session.run(None, {"positions": seen, "pooled": whole, "interest": text(words)[None]})
            return h

        labels = [book.texts[k] for k in task.labels]
        table = np.stack([text(words) for words in [*labels, NOT_APPLICABLE, CANNOT_TELL]])
        plain = book.texts[task.wordings[0]]
        h = through(plain)
        logits = h @ table.T
        chosen = logits[:, : len(labels)].argmax(1)
        own = float(nmi(truth, chosen))
        wordings = {}
        for word in task.held_wordings:
            other = (through(book.texts[word]) @ table[: len(labels)].T).argmax(1)
            wordings[book.texts[word]] = float(nmi(truth, other))
        results.append({
            "task": task.key, "left_out": task.left_out, "n": len(rows), "k": len(set(truth.tolist())),
            "accuracy": float((chosen == truth).mean()), "closed": own, "h": 0 if o.no_kmeans else kmeans(h, truth),
            "pooled": 0 if o.no_kmeans else kmeans(whole[:, :1280], truth), "away": float((logits.argmax(1) >= len(labels)).mean()), "wordings": wordings,
        })  # fmt: skip
        r = results[-1]
        words = list(wordings.values())
        print(
            f"{'- ' if task.left_out else ''}{task.key[:42]:44} {r['n']:4} {r['k']:3} "
            + " ".join(f"{r[c]:.2f}" for c in ("accuracy", "closed", "h", "pooled", "away"))
            + f"  {np.median(words):.2f} {min(words):.2f}" * bool(words),
            flush=True,
        )
    for left in (False, True):
        part = [r for r in results if r["left_out"] == left]
        if part:
            losses = np.asarray([r["closed"] - v for r in part for v in r["wordings"].values()])
            print(
                f"{'left out' if left else 'given'}, {len(part)}: "
                + ", ".join(
                    f"{c} {np.mean([r[c] for r in part]):.3f}" for c in ("accuracy", "closed", "h", "pooled", "away")
                )
                + f"; wordings: median loss {np.median(losses):.3f}, more than .10 in {np.mean(losses > 0.1):.3f} of {len(losses)}"
            )
    o.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
