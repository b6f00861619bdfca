"""The noisy-judge simulation: the whole method on a scripted model of stated accuracy.

`python -m bench.simulate [--images 260 2000] [--seeds 3] [--settings NAME ...]` prints a Markdown table: NMI, K found,
judgements per image and how many of them were second looks, unassigned images and seconds beside the model, as mean
(and range) over seeds. `ceiling` is the NMI of the descriptions themselves: what perception allows where no judgement
corrects it. NMI counts each unassigned image as a cluster of its own. `--oracle` prints instead what an oracle makes
of the default allowance, `--worlds [NAME ...]` the worlds of open words (`bench.worlds`; 260, 1,000 and 5,000 images).

Three settings ask every candidate: "plain walk" is the paper's method, as in `bench.compare`; "same second looks" is
ours with as many second looks as the default makes on the same images; "ask everything" looks again as long as it
finds errors.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any
from unittest import mock

from sklearn.metrics import normalized_mutual_info_score

from bench.ablations import plain_walk
from bench.worlds import INTEREST as INTEREST
from bench.worlds import WORLD_SIZES, WORLDS, print_worlds
from bench.worlds import draw_labels as draw_labels
from manylens import pipeline
from manylens.evidence import Answer, Ask, Draft, Steps
from manylens.look import look_at_images
from manylens.models.scripted import DESIGN_NOISE, Noise, ScriptedModel
from manylens.records import Settings
from manylens.second_look import take_second_looks

SAME_SECOND_LOOKS = "same second looks"

SETTINGS = {
    "default": Settings(),
    "plain walk": plain_walk(Settings(), 0),
    SAME_SECOND_LOOKS: Settings(audit_share=1.0),
    "ask everything": Settings(audit_share=1.0),
    "allowance .4": Settings(judgements_per_image=0.4),
    "allowance .5": Settings(judgements_per_image=0.5),
    "allowance .75": Settings(judgements_per_image=0.75),
    "allowance 1": Settings(judgements_per_image=1.0),
    "no trust": Settings(trust_weight=1.0),
    "tau .3": Settings(tau=0.3),
    "tau .9": Settings(tau=0.9),
    "no second looks": Settings(second_looks=0.0),
    "second looks .2": Settings(second_looks=0.2),
    "audit .1": Settings(audit_share=0.1),
    "no allowance": Settings(judgements_per_image=None),
    "edges as learned": Settings(edge_questions=0),
    "trust .7": Settings(trust_weight=0.7),
    "trust .9": Settings(trust_weight=0.9),
    "k 16": Settings(neighbors=16),
    "k 64": Settings(neighbors=64),
}

NOISES = {
    "DESIGN": DESIGN_NOISE,
    "stubborn": replace(DESIGN_NOISE, stubborn=0.6),
    "10% false no": replace(DESIGN_NOISE, false_no=0.10),
    "5% false yes": replace(DESIGN_NOISE, false_yes=0.05),
    "12% wrong": replace(DESIGN_NOISE, wrong_description=0.12),
    "30% synonyms": replace(DESIGN_NOISE, synonym=0.3),
    "25% false no": replace(DESIGN_NOISE, false_no=0.25),
    "30% false yes": replace(DESIGN_NOISE, false_yes=0.3),
    "judge at chance": replace(DESIGN_NOISE, false_no=0.5, false_yes=0.5),
    "spread 1.2": replace(DESIGN_NOISE, spread=1.2),
    "spread 2": replace(DESIGN_NOISE, spread=2.0),
    "none": Noise(),
}


@dataclass(slots=True)
class _SecondLooks:
    """The pipeline's second looks, counted; after `most` questions they are told that the allowance is used up."""

    most: float
    asked: int = 0

    def __call__(self, *arguments: Any) -> Steps[tuple[list[Draft], list[int]]]:
        self.asked = 0  # a run's first call is its forecast, the second the run itself
        steps = take_second_looks(*arguments)
        answers: list[Answer] | None = None
        while True:
            try:
                ask = next(steps) if answers is None else steps.send(answers)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            wanted = len(ask.questions)
            said = yield Ask(ask.questions[: int(min(wanted, self.most - self.asked))])
            self.asked += sum(not answer.spent for answer in said)
            answers = [*said, *[Answer(None, spent=True)] * (wanted - len(said))]


def simulate(
    images: int,
    classes: int,
    seed: int,
    settings: str,
    noise: Noise,
    skew: float = 0.0,
    sees_exemplars: bool = True,
) -> dict[str, float]:
    """One run; all numbers of the table's row."""
    most = math.inf
    if settings == SAME_SECOND_LOOKS:
        default = simulate(images, classes, seed, "default", noise, skew, sees_exemplars)
        most = round(default["second looks"] * images)
    labels = draw_labels(images, classes, seed, skew)
    model = ScriptedModel({INTEREST.text: labels}, noise=noise, seed=seed, sees_exemplars=sees_exemplars)
    looks = asyncio.run(look_at_images(list(labels), [INTEREST], model, lambda event: None))[INTEREST]
    before = time.perf_counter()
    second_looks = _SecondLooks(most)
    with mock.patch.object(pipeline, "take_second_looks", second_looks):
        chosen = replace(SETTINGS[settings], seed=seed)
        found = asyncio.run(pipeline.cluster_looks(looks, model, chosen, lambda event: None))
    seconds = time.perf_counter() - before
    true = [labels[assignment.image_id] for assignment in found.assignments]
    said = [assignment.cluster or -1 - place for place, assignment in enumerate(found.assignments)]
    return {
        "ceiling": float(normalized_mutual_info_score(true, list(looks.words))),
        "NMI": float(normalized_mutual_info_score(true, said)),
        "K": len(found.clusters),
        "judged/image": found.calls.judge / images,
        "second looks": second_looks.asked / images,
        "unassigned": sum(cluster < 0 for cluster in said),
        "seconds": seconds,
    }


def oracle(images: int, classes: int, seed: int, noise: Noise, skew: float = 0.0) -> dict[str, float]:
    """The best that the allowance of the default can buy: a judge who never errs, no controls, audits or merges, and
    each question put where it finds most. It knows at which confidence looks are wrong (not which ones): what is
    surely wrong is sought a place first, one cluster after the other; then images are doubted by rising confidence."""
    labels = draw_labels(images, classes, seed, skew)
    model = ScriptedModel({INTEREST.text: labels}, noise=noise, seed=seed)
    looks = asyncio.run(look_at_images(list(labels), [INTEREST], model, lambda event: None))[INTEREST]
    true = [labels[image_id] for image_id in looks.image_ids]
    said: list[str] = list(looks.words)
    surest_right = min(float(c) for c, seen, is_so in zip(looks.confidences, said, true, strict=True) if seen == is_so)
    left = Settings().judgements_allowed(images) or 0
    chance = random.Random(seed)
    for place in sorted(range(images), key=lambda place: float(looks.confidences[place])):
        left -= float(looks.confidences[place]) >= surest_right  # else there is nothing to ask its own cluster
        if left < 0:
            break
        if said[place] != true[place]:
            # Its own is one of the others, in any order; the last of them need not be asked.
            questions = min(chance.randint(1, classes - 1), classes - 2)
            said[place] = true[place] if questions <= left else f"alone {place}"
            left -= min(questions, left)
    return {
        "ceiling": float(normalized_mutual_info_score(true, list(looks.words))),
        "NMI": float(normalized_mutual_info_score(true, said)),
        "still wrong": sum(seen != is_so for seen, is_so in zip(said, true, strict=True)) / images,
    }


def row(name: Sequence[object], runs: Sequence[dict[str, float]]) -> str:
    cells = [str(part) for part in name]
    for key in runs[0]:
        values = [run[key] for run in runs]
        if key == "K":
            cells.append(f"{mean(values):.1f} ({min(values):.0f}..{max(values):.0f})")
        elif key == "NMI":
            cells.append(f"{mean(values):.3f} ({min(values):.3f}..{max(values):.3f})")
        else:
            cells.append(f"{mean(values):.1f}" if key in ("unassigned", "seconds") else f"{mean(values):.3f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+")
    parser.add_argument("--classes", type=int, nargs="+", default=[13])
    parser.add_argument("--seeds", type=int, default=3)
    usual = ["default", "plain walk", SAME_SECOND_LOOKS, "ask everything"]
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=usual)
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=["DESIGN"])
    parser.add_argument("--skew", type=float, default=0.0)
    parser.add_argument("--blind", action="store_true", help="the judge goes by the cluster's name alone")
    parser.add_argument("--oracle", action="store_true", help="what an oracle makes of the allowance")
    parser.add_argument("--worlds", nargs="*", choices=WORLDS, help="worlds of open words, by default all of them")
    options = parser.parse_args()
    if options.worlds is not None:
        for classes in options.classes:
            sizes = options.images or WORLD_SIZES
            print_worlds(options.worlds or WORLDS, sizes, classes, options.seeds, options.skew)
        return
    options.images = options.images or [260, 2000]
    if options.oracle:
        print("| images | classes | noise | ceiling | NMI | still wrong |\n|---|---|---|---|---|---|")
        for images, classes, noise in itertools.product(options.images, options.classes, options.noise):
            bounds = [oracle(images, classes, s, NOISES[noise], options.skew) for s in range(options.seeds)]
            print(row([images, classes, noise], bounds), flush=True)
        return
    numbers = "ceiling | NMI | K | judged/image | second looks | unassigned | seconds"
    print(f"| images | classes | noise | settings | {numbers} |\n|{'---|' * 11}")
    for images in options.images:
        for classes in options.classes:
            for noise in options.noise:
                for name in options.settings:
                    runs = [
                        simulate(images, classes, s, name, NOISES[noise], options.skew, not options.blind)
                        for s in range(options.seeds)
                    ]
                    print(row([images, classes, noise, name], runs), flush=True)


if __name__ == "__main__":
    main()
