"""Numbers that the run-time needs, from pictures that nothing was trained on: temperature, the trust in priors, the judge, the
edges, what a verdict's signals are worth, and of each task how well it goes.

    python calibrate.py --data packed --seen seen.npz --folder ../src/manylens/models/nano [--left-out] --json signals.json

Reads a folder's head.onnx and bank. Writes FOLDER/nano.json, and what was measured of each task in FOLDER/bank.json, where --write is given; prints the table of what whole
sets get as descriptions, and keeps each grouping's signals in --json for `calibrate_verdict.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score as nmi
from tasks import Book, Corpus, make_tasks

from manylens.models.nano.bank import Bank
from manylens.models.nano.verdict import Signals, agreement, decide, foreseen, rewordings
from manylens.models.text_embedder import TextEmbedder

MOST = 150


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "seen", "folder", "json"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--paraphrases", type=int, default=3)
    o = parser.parse_args()
    corpus, book = Corpus.read(o.data), Book()
    tasks = make_tasks(corpus, book, Path(__file__).parent, leave_out=o.left_out, wordings=40, seed=0)
    kept = np.load(o.seen)
    at = {row: i for i, row in enumerate(kept["rows"].tolist())}
    positions, pooled = kept["positions"], kept["pooled"]
    session = onnxruntime.InferenceSession(str(o.folder / "head.onnx"), providers=["CPUExecutionProvider"])
    bank, embedder = Bank(o.folder), TextEmbedder()
    scale = bank.numbers["scale"]
    known = o.folder / "nano.json"
    temperature = json.loads(known.read_text("utf-8"))["temperature"] if known.exists() else 1.0
    signals, right, told_p, pairs = [], [], [], []
    measured: dict[tuple[str, str], tuple[float, float]] = {}
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
        domains, far = bank.place(whole)

        def read_by(vector: np.ndarray) -> np.ndarray:
            (h,) = session.run(None, {"positions": seen, "pooled": whole, "interest": vector[None]})
            return h

        def read(wording: str) -> np.ndarray:
            return read_by(embedder.embed([wording])[0])

        labels = [book.texts[k] for k in task.labels]
        plain = [book.texts[task.wordings[0]], *[book.texts[k] for k in task.held_wordings[: o.paraphrases]]]
        for number, wording in enumerate(plain):
            may = bank.candidates(wording, embedder.embed([wording])[0], embedder.embed)
            h = read_by(may.vector)
            logits = scale * h @ may.vectors.T
            prior = may.prior(domains)
            scores = {}
            for trust in (0.0, 0.5, 1.0, 2.0):
                scores[trust] = float(nmi(truth, (logits + trust * prior).argmax(1)))
            shares = softmax(logits + prior)
            chosen = shares.argmax(1)
            others = [softmax(scale * read(w) @ may.vectors.T + prior).argmax(1) for w in rewordings(wording)]
            refused = float((chosen >= len(may.words) - 2).mean())
            words = [may.words[k] for k in chosen]
            exact = np.asarray([w == labels[t] for w, t in zip(words, truth, strict=True)])
            row = {
                "task": task.key, "left_out": task.left_out, "wording": wording, "plain": number == 0, "closeness": may.closeness,
                "name": may.name, "confidence": float(shares.max(1).mean()), "refused": refused,
                "agreement": float(np.mean([agreement(chosen, x) for x in others])), "far": float(np.median(far)),
                "spread": float(1 - np.linalg.norm(h.mean(0))), "nmi": scores[1.0], "scores": scores, "exact": float(exact.mean()),
                "said": [w for w, _ in sorted({w: words.count(w) for w in words}.items(), key=lambda p: -p[1])[:4]],
                "n": len(rows), "found": len(set(words)),
            }  # fmt: skip
            of = ("closeness", "confidence", "refused", "agreement", "far", "spread")
            stated = softmax((logits + prior) / temperature)  # as a run states them
            at_work = {**{name: row[name] for name in of}, "confidence": float(stated.max(1).mean())}
            row["verdict"] = decide(Signals(**at_work, is_known=may.is_known, told=foreseen(stated))).word
            signals.append(row)
            if number == 0:
                print(
                    f"{'- ' if task.left_out else ''}{task.key[:38]:40} {may.closeness:.2f} {may.name[:18]:18} NMI "
                    + " ".join(f"{v:.2f}" for v in scores.values())
                    + f" exact {row['exact']:.2f} conf {row['confidence']:.2f} refused {refused:.2f} agree {row['agreement']:.2f} far {row['far']:.2f} spread {row['spread']:.2f} {row['said']}",
                    flush=True,
                )
                if not task.left_out:
                    measured[task.attribute, task.key.split(".")[0]] = row["nmi"], row["exact"]
                    right += exact.tolist()
                    told_p += list(
                        zip(
                            (logits + prior).tolist(),
                            [may.words.index(labels[t]) if labels[t] in may.words else -1 for t in truth],
                            strict=True,
                        )
                    )
                    h32 = h[:80]
                    same = truth[:80, None] == truth[None, :80]
                    upper = np.triu_indices(len(h32), 1)
                    pairs += list(zip((h32 @ h32.T)[upper].tolist(), same[upper].tolist(), strict=True))
    best_t, best = 1.0, 1e9
    for heat in (0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5):
        loss = float(
            np.mean([-np.log(softmax(np.asarray(row)[None] / heat)[0, k] + 1e-9) for row, k in told_p if k >= 0])
        )
        if loss < best:
            best_t, best = heat, loss
    x = np.asarray([p[0] for p in pairs])[:, None]
    y = np.asarray([p[1] for p in pairs])
    edge = LogisticRegression(class_weight=None).fit(x, y)
    # a judge: the odds of a name, for right and for the best wrong name
    odds, good = [], []
    for row, k in told_p:
        if k < 0:
            continue
        p = softmax(np.asarray(row)[None] / best_t)[0]
        wrong = np.argsort(-p)
        wrong = [w for w in wrong[:4].tolist() if w != k][:2]
        for w, g in [(k, 1), *((w, 0) for w in wrong)]:
            odds.append(np.log(max(p[w], 1e-9)) - np.log(max(1 - p[w], 1e-9)))
            good.append(g)
    judge = LogisticRegression().fit(np.asarray(odds)[:, None], good)
    numbers = {
        "scale": scale, "prior": 1.0, "temperature": best_t, "judge": [float(judge.coef_[0, 0]), float(judge.intercept_[0])],
        "none": 0.3, "edge_scale": float(edge.coef_[0, 0]), "edge_offset": float(edge.intercept_[0]),
        "image_px": 224, "positions": 49, "look_width": 1280,
    }  # fmt: skip
    print(numbers)
    for left in (False, True):
        part = [s for s in signals if s["left_out"] == left and s["plain"]]
        if part:
            print(
                f"{'left out' if left else 'given'} {len(part)}: NMI by trust",
                {t: round(float(np.mean([s["scores"][t] for s in part])), 3) for t in part[0]["scores"]},
            )
            others = [(p, s) for p in part for s in signals if s["task"] == p["task"] and not s["plain"]]
            losses = [p["nmi"] - s["nmi"] for p, s in others]
            warned = [s["verdict"] != "good" for p, s in others if p["nmi"] - s["nmi"] <= 0.1]
            unsaid = [p["nmi"] - s["nmi"] > 0.1 and s["verdict"] == "good" for p, s in others]
            print(
                f"wordings: median loss {np.median(losses):.3f}, more than .10 in {np.mean(np.asarray(losses) > 0.1):.3f} of {len(losses)}, in {np.mean(unsaid):.3f} with the verdict good; of the others {np.mean(warned):.3f} are warned of"
            )
    o.json.write_text(json.dumps({"signals": signals, "numbers": numbers}))
    if o.write:
        (o.folder / "nano.json").write_text(json.dumps(numbers, indent=1) + "\n")
        told = json.loads((o.folder / "bank.json").read_text("utf-8"))
        for entry in told["tasks"]:
            if (entry["name"], entry["domain"]) in measured:
                entry["measured"] = [round(x, 3) for x in measured[entry["name"], entry["domain"]]]
        (o.folder / "bank.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
