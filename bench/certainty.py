"""Is what a run of nano says of its certainty true? The whole pipeline on held-out pictures of labelled sets.

`python -m bench.certainty --data DIR [--most 200] [--families plain odd distorted] [--sets NAME ...]`; DIR holds the
labelled zips that training reads, and `world/`. Prints a row for each grouping: verdict, NMI, the estimated share of
misplaced pictures with its interval, the true one, and how many of the 50 pictures that the review queue shows first
are misplaced, beside what as many drawn at random would hold; then for each family the mean error of the estimate, how
many intervals hold the truth, the expected calibration error of the pictures' confidences; then the verdicts by NMI.

True share: of the placed pictures, those without the label that most of their cluster have. Clusters finer than the
labels are right by that measure. `odd` has interests in words that were not taught; `distorted`, pictures blurred,
darkened, shrunk, turned, greyed or compressed. `--fit` prints `OWN_DOUBT` of `models/nano` as one half of the sets has
it, and how many intervals of the other half then hold the truth.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

import manylens
from bench.held_out import TRAINING, is_held_out
from manylens.method.own_doubt import estimate_by_looks
from manylens.results.evaluate import evaluate_labels
from manylens.types import Clustering

sys.path.insert(0, str(TRAINING / "encoder"))
from held_out import difference_hash  # type: ignore[import-not-found]
from pack import FIRST_NINE, VALIDATION_SHARE, near_groups, share_of  # type: ignore[import-not-found]

QUEUE = 50
FEWEST = 20
"""Pictures of a grouping that is looked at."""

NO_LABELS = ("file", "split", "identity", "caption1", "caption2", "caption3", "caption4", "caption5")

ODD = {
    ("art_medium", "medium"): ("how was it made", "technique"),
    ("art_medium", "subject"): ("what is drawn",),
    ("big_cats", "big cat"): ("animal", "wild animal"),
    ("blood_cells", "blood cell"): ("cell type under the microscope",),
    ("card", "rank"): ("number on it", "value"),
    ("card", "suit"): ("symbol",),
    ("cifar10", "class"): ("what is in the picture", "subject"),
    ("cifar10", "type"): ("living or made by people", "does it breathe?"),
    ("clothing_kind", "kind of clothing"): ("garment", "what to wear"),
    ("coco_captions", "activity"): ("what happens", "sport"),
    ("coco_captions", "animal"): ("creature", "pet"),
    ("coco_captions", "daytime"): ("time of day", "light"),
    ("coco_captions", "food"): ("meal",),
    ("coco_captions", "people"): ("how crowded is it", "how many persons"),
    ("coco_captions", "place"): ("where was it taken", "surroundings"),
    ("coco_captions", "setting"): ("indoors or outdoors", "inside or outside?", "under a roof"),
    ("coco_captions", "weather"): ("sky", "what the sky looks like"),
    ("day_night", "daytime"): ("day or night", "light"),
    ("dog_breeds", "dog breed"): ("dog", "animal"),
    ("emoji_category", "emoji category"): ("theme",),
    ("emotion", "emotion"): ("feeling", "mood of the person"),
    ("face_age_gender", "age group"): ("how old", "generation"),
    ("face_attributes", "facial hair"): ("beard",),
    ("face_attributes", "glasses"): ("eyewear",),
    ("face_attributes", "hair"): ("hair color", "hairstyle"),
    ("face_attributes", "headwear"): ("hat",),
    ("face_attributes", "smile"): ("mood", "happy or not"),
    ("facial_expression", "facial expression"): ("feeling", "how does the person feel"),
    ("fashion", "category"): ("where on the body is it worn",),
    ("fashion", "gender"): ("who is it for",),
    ("fashion", "usage"): ("occasion",),
    ("flowers", "species"): ("plant",),
    ("food_dishes", "dish"): ("cuisine", "what is on the plate"),
    ("fruit", "species"): ("what could I eat",),
    ("furniture_kind", "piece of furniture"): ("home",),
    ("grocery_items", "kind of grocery"): ("aisle in the shop",),
    ("human_actions15", "action"): ("what is the person doing?", "hobby"),
    ("kind_of_image", "kind of image"): ("sort of picture", "file type"),
    ("magnetic_tile_defects", "defective"): ("good or defective", "damaged?"),
    ("miniplaces100", "kind_of_place"): ("surroundings",),
    ("miniplaces100", "setting"): ("indoors or outdoors", "inside or outside?"),
    ("pcb_defects", "printed circuit board defect"): ("fault",),
    ("photo_quality", "photo quality"): ("what is wrong with the photo", "sharp or blurred"),
    ("road_signs", "kind of road sign"): ("meaning of the sign", "shape"),
    ("rooms_places365", "room"): ("part of the house",),
    ("steel_defects", "steel surface defect"): ("flaw", "surface"),
    ("sun_scenes8", "place"): ("landscape",),
    ("textures", "texture"): ("pattern", "surface"),
    ("tomato_leaf_disease", "tomato leaf disease"): ("illness of the plant",),
    ("ucm_aerial_captions", "land_use"): ("what the land is for", "aerial view"),
    ("vehicle_color9", "color"): ("paint",),
    ("vehicle_kind", "vehicle"): ("transport",),
    ("weather5", "weather"): ("what is it like outside", "what the sky looks like"),
    ("writing_system", "writing system"): ("script", "language"),
}
"""(set, column) -> interests as a stranger might put them."""

Distortion = Callable[[Image.Image], Image.Image]


def _shrunk(picture: Image.Image) -> Image.Image:
    picture.thumbnail((40, 40))
    return picture


def _compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=6)
    return Image.open(buffer).convert("RGB")


DISTORTIONS: dict[str, Distortion] = {
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 60)),
    "dark": lambda picture: ImageEnhance.Brightness(picture).enhance(0.25),
    "shrunk": _shrunk,
    "turned": lambda picture: picture.rotate(25, expand=True),
    "grey": lambda picture: ImageEnhance.Contrast(picture.convert("L").convert("RGB")).enhance(0.6),
    "compressed": _compressed,
}


@dataclass(frozen=True, slots=True)
class Grouping:
    """A set's held-out pictures by one interest. family: `plain`, `odd` or `distorted`."""

    family: str
    set_name: str
    column: str
    interest: str
    distortion: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What a run said, and what is so. interval: (estimate, low, high). sure, right, group: of each placed picture.
    shown: misplaced ones among those that the review queue shows first, and as many drawn at random."""

    of: Grouping
    verdict: str
    nmi: float
    clusters: tuple[int, int]
    interval: tuple[float, float, float]
    sure: NDArray[np.float64]
    right: NDArray[np.bool_]
    group: NDArray[np.int64]
    shown: tuple[int, float]

    @property
    def misplaced(self) -> float:
        return float(1 - self.right.mean())

    @property
    def holds(self) -> bool:
        _, low, high = self.interval
        return low - 1e-4 <= self.misplaced <= high + 1e-4


def held_out_rows(file: Path) -> list[tuple[bytes, dict[str, str]]]:
    """(a picture's bytes, its row) of a zip's held-out part, as `training/encoder/pack.py` splits it."""
    name = file.stem
    with zipfile.ZipFile(file) as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")))
        if name == "objects1000":
            return []  # all of it was trained on
        if name in FIRST_NINE:
            held = [is_held_out(name, row) for row in rows]
        else:
            hashes = []
            for row in rows:
                with Image.open(io.BytesIO(archive.read(f"images/{row['file']}"))) as opened:
                    hashes.append(difference_hash(opened.convert("RGB")))
            held = [share_of(f"{name}/{rows[g]['file']}") < VALIDATION_SHARE for g in near_groups(hashes)]
        return [
            (archive.read(f"images/{row['file']}"), row) for row, is_held in zip(rows, held, strict=True) if is_held
        ]


def groupings(name: str, columns: Sequence[str], families: Sequence[str]) -> Iterator[Grouping]:
    for at, column in enumerate(columns):
        if "plain" in families:
            yield Grouping("plain", name, column, column.replace("_", " "))
        for interest in ODD.get((name, column), ()) if "odd" in families else ():
            yield Grouping("odd", name, column, interest)
        if "distorted" in families and at < 2:
            place = int(hashlib.sha256(f"{name} {column}".encode()).hexdigest(), 16) % len(DISTORTIONS)
            for distortion in [*DISTORTIONS, *DISTORTIONS][place : place + 2]:
                yield Grouping("distorted", name, column, column.replace("_", " "), distortion)


def measure(
    of: Grouping, rows: Sequence[tuple[bytes, dict[str, str]]], most: int, scratch: Path, said: list[tuple[str, float]]
) -> Told | None:
    """One grouping through the pipeline; None where too few pictures have a label, or nothing is understood."""
    labelled = [(content, row) for content, row in rows if row.get(of.column)]
    labelled.sort(key=lambda pair: hashlib.sha256(pair[1]["file"].encode()).digest())
    labelled = labelled[:most]
    if len(labelled) < FEWEST or len({row[of.column] for _, row in labelled}) < 2:
        return None
    # One folder of each distortion, so that its pictures are seen once for all interests.
    folder, out = scratch / f"pictures {of.distortion}", scratch / f"run {of.distortion}"
    folder.mkdir(exist_ok=True)
    for content, row in labelled:
        file = folder / f"{row['file']}.png"
        if not file.exists():
            with Image.open(io.BytesIO(content)) as opened:
                picture = opened.convert("RGB")
            (DISTORTIONS[of.distortion](picture) if of.distortion else picture).save(file)
    truth = {f"{row['file']}.png": row[of.column] for _, row in labelled}
    out = out.with_name(f"{out.name} {len(truth)}")
    result = manylens.cluster(folder, of.interest, files=sorted(truth), out=out, progress=False)
    one = result[of.interest]
    clustering: Clustering = one.clustering
    path = {image.id: image.paths[0] for image in result.collection.images}
    scores = evaluate_labels(
        [truth[path[a.image_id]] for a in clustering.assignments], [a.cluster for a in clustering.assignments]
    )
    verdict = "" if clustering.verdict is None else clustering.verdict.word
    said.append((verdict, scores.nmi))
    if verdict == "not understood":
        return None
    kinds: dict[int, Counter[str]] = defaultdict(Counter)
    for a in clustering.assignments:
        if a.cluster is not None:
            kinds[a.cluster][truth[path[a.image_id]]] += 1
    main = {cluster: max(count, key=lambda label: (count[label], label)) for cluster, count in kinds.items()}
    right = {a.image_id: main[a.cluster] == truth[path[a.image_id]] for a in clustering.assignments if a.cluster}
    placed = [a for a in clustering.assignments if a.cluster is not None]
    estimate = clustering.estimate
    if estimate is None or not placed:
        return None
    first = [doubt for doubt in manylens.review(out, of.interest, limit=QUEUE).doubts if doubt.cluster is not None]
    return Told(
        of,
        verdict,
        scores.nmi,
        (scores.clusters_found, scores.clusters_true),
        (estimate.share, estimate.low, estimate.high),
        np.array([a.confidence for a in placed]),
        np.array([right[a.image_id] for a in placed]),
        np.array([a.cluster or 0 for a in placed]),
        (sum(not right[doubt.image_id] for doubt in first), len(first) * (1 - fmean(right.values()))),
    )


def calibration_error(runs: Sequence[Told], bins: int = 10) -> float:
    sure = np.concatenate([run.sure for run in runs])
    right = np.concatenate([run.right for run in runs]).astype(float)
    at = np.minimum((sure * bins).astype(int), bins - 1)
    return float(sum(abs((sure - right)[at == number].sum()) for number in range(bins)) / len(sure))


def print_families(runs: Sequence[Told]) -> None:
    columns = (
        "family | groupings | mean estimate | mean truth | mean error | interval holds | truth below, above "
        "| mean width | ECE | misplaced of the queue's first | at random"
    )
    print(f"\n| {columns} |\n|" + "---|" * (columns.count("|") + 1))
    for family in [*dict.fromkeys(run.of.family for run in runs), "all"]:
        own = [run for run in runs if family in ("all", run.of.family)]
        below = sum(not run.holds and run.misplaced < run.interval[0] for run in own)
        above = sum(not run.holds and run.misplaced > run.interval[0] for run in own)
        cells = [
            family, len(own), f"{fmean(run.interval[0] for run in own):.1%}", f"{fmean(r.misplaced for r in own):.1%}",
            f"{fmean(abs(run.interval[0] - run.misplaced) for run in own):.1%}",
            f"{sum(run.holds for run in own) / len(own):.0%}", f"{below}, {above}",
            f"{fmean(run.interval[2] - run.interval[1] for run in own):.1%}", f"{calibration_error(own):.3f}",
            f"{fmean(run.shown[0] for run in own):.1f}", f"{fmean(run.shown[1] for run in own):.1f}",
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_verdicts(said: Sequence[tuple[str, float]]) -> None:
    """How many groupings of each range of NMI got each verdict; those by look among them."""
    edges = (0.0, 0.3, 0.45, 0.6)
    print("\n| verdict | " + " | ".join(f"NMI from {low:.2f}" for low in edges) + " |\n|" + "---|" * (len(edges) + 1))
    for word in ("good", "check", "not understood"):
        counts = Counter(int(np.searchsorted(edges, nmi, "right")) for verdict, nmi in said if verdict == word)
        print(f"| {word} | " + " | ".join(str(counts[at + 1]) for at in range(len(edges))) + " |")


# How far stated confidences are off together


def fitted_doubt(runs: Sequence[Told], nodes: int = 15) -> tuple[float, float]:
    """The standard deviations of `own_doubt` under which what these runs got right is most likely: both deviations are
    integrated out by Gauss-Hermite quadrature, and the best of a grid is taken."""
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / weight.sum()
    best, found = -np.inf, (0.0, 0.0)
    for of_all in np.arange(0.2, 1.5, 0.1):
        for of_one in np.arange(0.2, 1.5, 0.1):
            fit = sum(_likelihood(run, float(of_all), float(of_one), at, weight) for run in runs)
            if fit > best:
                best, found = fit, (round(float(of_all), 1), round(float(of_one), 1))
    return found


def _likelihood(run: Told, of_all: float, of_one: float, at: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    p = np.clip(run.sure, 1e-3, 1 - 1e-3)
    odds = np.log(p / (1 - p)) * np.sqrt(1 + 0.346 * (of_all**2 + of_one**2))
    every = np.zeros(len(at))
    for group in np.unique(run.group):
        inside = run.group == group
        sign = np.where(run.right[inside], 1.0, -1.0)
        z = sign[:, None, None] * (odds[inside][:, None, None] + of_all * at[None, :, None] + of_one * at[None, None])
        log = -np.logaddexp(0, -z).sum(axis=0)
        most = log.max(axis=1)
        every += most + np.log((np.exp(log - most[:, None]) * weight).sum(axis=1))
    return float(every.max() + np.log((np.exp(every - every.max()) * weight).sum()))


def print_fit(runs: Sequence[Told]) -> None:
    names = sorted({run.of.set_name for run in runs})
    # Where clusters are many more or fewer than labels, being right is a matter of their number.
    fair = [run for run in runs if 0.5 <= run.clusters[0] / run.clusters[1] <= 2]
    for half in (0, 1):
        mine = set(names[half::2])
        doubt = fitted_doubt([run for run in fair if run.of.set_name in mine])
        rest = [run for run in runs if run.of.set_name not in mine]
        held = 0
        for run in rest:
            _, group = np.unique(run.group, return_inverse=True)
            overall, _ = estimate_by_looks(run.sure, group.astype(np.int64), int(group.max()) + 1, doubt, 0)
            held += overall.low - 1e-4 <= run.misplaced <= overall.high + 1e-4
        print(f"fitted on one half of the sets {doubt}; of the other half's {len(rest)} intervals {held} hold")
    print(f"fitted on all: {fitted_doubt(fair)}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=[])
    parser.add_argument("--families", nargs="+", choices=("plain", "odd", "distorted"), default=["plain", "odd"])
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args(arguments)
    columns = "set | interest | n | verdict | NMI | K found / true | estimate | interval | truth | queue | at random"
    print(f"| {columns} |\n|" + "---|" * (columns.count("|") + 1))
    runs: list[Told] = []
    said: list[tuple[str, float]] = []
    for file in [*sorted(options.data.glob("*.zip")), *sorted((options.data / "world").glob("*.zip"))]:
        if options.sets and file.stem not in options.sets:
            continue
        rows = held_out_rows(file)
        labels = [column for column in (rows[0][1] if rows else ()) if column not in NO_LABELS]
        with tempfile.TemporaryDirectory(prefix="certainty-") as scratch:
            for of in groupings(file.stem, labels, options.families):
                told = measure(of, rows, options.most, Path(scratch), said)
                if told is None:
                    continue
                runs.append(told)
                share, low, high = told.interval
                cells = (
                    of.set_name, " ".join([of.interest, of.distortion]).strip(), len(told.sure), told.verdict,
                    f"{told.nmi:.3f}", f"{told.clusters[0]} / {told.clusters[1]}", f"{share:.1%}",
                    f"{low:.1%} to {high:.1%}", f"{told.misplaced:.1%}", told.shown[0], f"{told.shown[1]:.1f}",
                )  # fmt: skip
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print_families(runs)
    print_verdicts(said)
    if options.fit:
        print_fit(runs)


if __name__ == "__main__":
    main()
