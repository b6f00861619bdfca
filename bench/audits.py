"""Does the bound that the audits support hold? Simulated runs in which every trusted acceptance is asked after all.

`python -m bench.audits [--runs 200] [--images N ...] [--noise NAME ...]`. Per run: the walks and the offers, the bound
on the share of trusted acceptances that asking would refuse (Clopper-Pearson, one-sided, 95%), and that share itself:
each image that stands by trust at the end of the walks, or was taken up unasked from the leftovers, is put to the judge
against the cluster as it was stated in that round. The bound assumes that the audited acceptances are a random share of
the trusted ones; a seeded hash makes them so.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from unittest import mock

from bench.simulate import INTEREST, NOISES, draw_labels
from manylens import walk as walking
from manylens.calibrate import calibrate_judge
from manylens.evidence import Question, belonging
from manylens.look import look_at_images
from manylens.models.budget import Allowance, Budget
from manylens.models.scripted import Noise, ScriptedModel
from manylens.pipeline import _Asker, bound_trust_error, relate, walk
from manylens.records import Settings
from manylens.settle import offer_leftovers
from manylens.targets import Refusals, Targets


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
        asker = _Asker(looks, model, settings, ignore, Budget(model, settings), Allowance())
        asker.calibration = await asker.drive(calibrate_judge(looks, settings), 1.0)
        graph, edge = await relate(looks, model, settings, asker)

        async def refusals_of(questions: list[Question], close: Sequence[float] = ()) -> int:
            answers = await asker._ask(questions, 1.0)
            far = close or [0.0] * len(questions)
            return sum(
                belonging(looks, question.profile, question.candidate, answer) + against <= 0
                for question, answer, against in zip(questions, answers, far, strict=True)
            )

        with mock.patch.object(walking._Growth, "_next_candidates", remember):
            walked = await walk(looks, graph, settings, asker)
        standing = [
            trusted[image]
            for draft in walked.drafts
            for image, how in draft.members.items()
            if how.decided_by == "trust"
        ]
        refused = await refusals_of(standing)
        refusals = Refusals(walked.refused)
        large = [number for number, draft in enumerate(walked.drafts) if draft.size > settings.small_cluster]
        targets = Targets(looks, walked.drafts, large, settings)
        by_keys = {walked.drafts[number].keys: number for number in large}
        offered = await asker.drive(offer_leftovers(looks, walked.drafts, refusals, settings, edge), 1.0)
        walked.add_audits(refusals.trusted, refusals.audits)
        taken = [
            (image, by_keys[draft.keys])
            for draft in offered
            for image, how in draft.members.items()
            if how.decided_by == "offer" and how.probability is None
        ]
        refused += await refusals_of(
            [Question(targets.profiles[number], image) for image, number in taken],
            [targets.close(image, number, edge) for image, number in taken],
        )
        standing_in_all = len(standing) + len(taken)
        bound = bound_trust_error(walked)
        return (1.0 if bound is None else bound), refused / max(standing_in_all, 1), standing_in_all

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
