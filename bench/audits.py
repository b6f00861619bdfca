"""Does the bound that the audits support hold? Simulated runs in which every trusted acceptance is asked after all.

`python -m bench.audits [--runs 200] [--images N ...] [--noise NAME ...]`. Per run: the walks, the bound on the share of
trusted acceptances that asking would refuse (Clopper-Pearson, one-sided, 95%), and that share itself: each image that
stands by trust at the end of the walks is put to the judge against the cluster as it was stated in that round. The
bound assumes that the audited acceptances are a random share of the trusted ones; a seeded hash makes them so.
"""

from __future__ import annotations

import argparse
import asyncio
from unittest import mock

from bench.simulate import INTEREST, NOISES, draw_labels
from manylens import walk as walking
from manylens.calibrate import calibrate_judge
from manylens.evidence import Question, belonging
from manylens.look import look_at_images
from manylens.models.scripted import Noise, ScriptedModel
from manylens.pipeline import _Asker, bound_trust_error, relate, walk
from manylens.records import Settings


def ignore(event: object) -> None:
    pass


def run_once(images: int, classes: int, seed: int, noise: Noise) -> tuple[float, float, int]:
    """(bound, share that asking would refuse, trusted acceptances)."""
    labels = draw_labels(images, classes, seed)
    model = ScriptedModel({INTEREST.text: labels}, noise=noise, seed=seed)
    settings = Settings(seed=seed, judgements_per_image=None)
    trusted: dict[int, Question] = {}
    gather = walking._Growth._next_candidates

    def remember(growth: walking._Growth) -> list[tuple[int, int, list[int] | None]]:
        before = set(growth.members)
        batch = gather(growth)
        # Had they been asked, it would have been in this round, against the cluster as it is stated now.
        trusted.update({image: Question(growth.profile, image) for image in set(growth.members) - before})
        return batch

    async def drive() -> tuple[float, float, int]:
        looks = (await look_at_images(list(labels), [INTEREST], model, ignore))[INTEREST]
        asker = _Asker(looks, model, settings, ignore)
        asker.calibration = await asker.drive(calibrate_judge(looks, settings), 1.0)
        graph, _ = await relate(looks, model, settings, asker)
        with mock.patch.object(walking._Growth, "_next_candidates", remember):
            walked = await walk(looks, graph, settings, asker)
        standing = [
            trusted[image]
            for draft in walked.drafts
            for image, how in draft.members.items()
            if how.decided_by == "trust"
        ]
        answers = await asker._ask(standing, 1.0)
        refused = sum(
            belonging(looks, question.profile, question.candidate, answer) <= 0
            for question, answer in zip(standing, answers, strict=True)
        )
        bound = bound_trust_error(walked)
        return (1.0 if bound is None else bound), refused / max(len(standing), 1), len(standing)

    return asyncio.run(drive())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--images", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--classes", type=int, default=13)
    parser.add_argument("--noise", nargs="+", choices=NOISES, default=["DESIGN", "12% wrong", "10% false no"])
    options = parser.parse_args()
    print("| images | noise | runs | bound holds | mean bound | mean share refused | trusted per image |")
    print("|---|---|---|---|---|---|---|")
    for images in options.images:
        for noise in options.noise:
            found = [run_once(images, options.classes, seed, NOISES[noise]) for seed in range(options.runs)]
            held = sum(share <= bound for bound, share, _ in found)
            bound = sum(bound for bound, _, _ in found) / len(found)
            share = sum(share for _, share, _ in found) / len(found)
            trusted = sum(count for _, _, count in found) / len(found) / images
            print(
                f"| {images:,} | {noise} | {len(found)} | {held / len(found):.1%} | {bound:.3f} | {share:.3f} | "
                f"{trusted:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
