"""Runs by a model whose answers repeat its looks: what they say of their certainty, and what they ask."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from manylens.models.base import Capabilities
from manylens.models.scripted import Noise, ScriptedModel
from manylens.pipeline import cluster_images
from manylens.pipeline.add import add_images
from manylens.pipeline.budget import Budget
from manylens.settings import Settings
from manylens.types import Clustering, Interest

KIND = Interest("kind")
REPEATS = Noise(wrong_description=0.15, stubborn=1.0)
"""Every sixth look is wrong, and every answer is the look's."""


class Repeating(ScriptedModel):
    """It says of itself that its answers repeat its looks."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, own_doubt=(0.6, 0.6))


def draw_labels(images: int, classes: int, seed: int) -> dict[str, str]:
    chance = random.Random(seed)
    return {f"{chance.getrandbits(64):016x}": f"kind{chance.randrange(classes)}" for _ in range(images)}


def run(image_ids: Iterable[str], model: ScriptedModel, seed: int = 0, into: tuple[str, ...] = ()) -> Clustering:
    settings = Settings(seed=seed, into=into)
    return asyncio.run(cluster_images(list(image_ids), [KIND], model, settings, lambda event: None))[KIND]


def misplaced(found: Clustering, labels: Mapping[str, str]) -> float:
    inside: dict[int, Counter[str]] = {}
    for a in found.assignments:
        if a.cluster is not None:
            inside.setdefault(a.cluster, Counter())[labels[a.image_id]] += 1
    return 1 - sum(max(count.values()) for count in inside.values()) / sum(count.total() for count in inside.values())


@pytest.mark.parametrize("seed", range(4))
def test_a_judge_that_repeats_its_looks_makes_nobody_sure(seed: int) -> None:
    labels = draw_labels(400, 5, seed)
    believed = run(labels, ScriptedModel({"kind": labels}, noise=REPEATS, seed=seed), seed)
    known = run(labels, Repeating({"kind": labels}, noise=REPEATS, seed=seed), seed)
    true = misplaced(known, labels)
    assert true > 0.1
    assert believed.estimate is not None and believed.estimate.high < true, "what was said before: it is false"
    assert known.estimate is not None and known.estimate.basis == "looks"
    assert known.estimate.low <= true <= known.estimate.high
    assert abs(known.estimate.share - true) < 0.06
    placed = [a.confidence for a in known.assignments if a.cluster is not None]
    assert 1 - sum(placed) / len(placed) == pytest.approx(known.estimate.share, abs=1e-3)


def test_what_its_looks_have_answered_it_is_not_asked() -> None:
    labels = draw_labels(300, 5, 0)
    found = run(labels, Repeating({"kind": labels}, noise=REPEATS))
    assert found.calls.choose == 0 and found.foreseen_calls == (0, 0)
    assert len(found.clusters) == 5 and not found.is_partial
    assert not any("asked" in a.reason for a in found.assignments)
    assert not any("question" in note or "not known" in note for note in found.notes)


def test_names_that_no_look_says_it_is_asked_about() -> None:
    labels = draw_labels(200, 3, 0)
    model = Repeating({"kind": labels}, noise=Noise())
    same = run(labels, model, into=("kind0", "kind1", "kind2"))
    assert same.calls.choose == 0 and misplaced(same, labels) == 0
    other = run(labels, model, into=("alt kind0", "alt kind1", "alt kind2"))
    assert 0 < other.calls.choose <= other.foreseen_calls[1] and misplaced(other, labels) == 0
    assert {cluster.name for cluster in other.clusters} == {"alt kind0", "alt kind1", "alt kind2"}


def test_a_given_name_in_the_plural_is_the_description_in_the_singular() -> None:
    names = ("indoors", "outdoors")
    labels = {image_id: names[int(kind[-1])] for image_id, kind in draw_labels(60, 2, 0).items()}
    found = run(labels, Repeating({"kind": labels}, noise=Noise()), into=names)
    assert found.calls.choose == 0
    assert misplaced(found, labels) == 0 and len(found.clusters) == 2


def test_pictures_that_come_later_join_by_their_looks() -> None:
    labels = draw_labels(200, 4, 1)
    first = [image_id for image_id, kind in labels.items() if kind != "kind3"][:100]
    model = Repeating({"kind": labels}, noise=REPEATS)
    before = run(first, model)
    settings = Settings()
    after = asyncio.run(add_images(before, list(labels), model, settings, lambda event: None, Budget(model, settings)))
    assert model.calls["choose"] == 0
    true = misplaced(after, labels)
    assert after.estimate is not None and after.estimate.basis == "looks"
    assert after.estimate.low <= true <= after.estimate.high
    came = [a for a in after.assignments if a.image_id not in set(first) and a.cluster is not None]
    assert len(came) > 90 and 0.8 < sum(a.confidence for a in came) / len(came) < 0.95


def test_pictures_that_come_later_bring_new_kinds_without_a_question() -> None:
    labels = draw_labels(200, 4, 1)
    first = [image_id for image_id, kind in labels.items() if kind != "kind3"]
    model = Repeating({"kind": labels}, noise=Noise())
    before = run(first, model)
    settings = Settings()
    after = asyncio.run(add_images(before, list(labels), model, settings, lambda event: None, Budget(model, settings)))
    assert [len(before.clusters), len(after.clusters), model.calls["choose"]] == [3, 4, 0]
    assert misplaced(after, labels) == 0
