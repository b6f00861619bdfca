"""Whole runs with the scripted model: what is found, what it takes, what is said of it."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import normalized_mutual_info_score

from manylens.errors import ModelBusy, ModelError
from manylens.events import Event, Foreseen, StageAdvanced, StageFinished, StageStarted
from manylens.method.observations import normalise_description
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    LookReply,
    LookRequest,
    Request,
    Usage,
    request_key,
)
from manylens.models.scripted import DESIGN_NOISE, Noise, ScriptedModel
from manylens.models.wordings import Wordings
from manylens.pipeline import cluster_images
from manylens.settings import CALLS_PER_PICTURE, Settings
from manylens.types import Clustering, Interest

KIND = Interest("kind")


def draw_labels(images: int, classes: int, seed: int, weights: Sequence[float] | None = None) -> dict[str, str]:
    chance = random.Random(seed)
    names = [f"kind{number}" for number in range(classes)]
    return {f"{chance.getrandbits(64):016x}": chance.choices(names, weights)[0] for _ in range(images)}


def run(
    labels: Mapping[str, str],
    noise: Noise | None = None,
    model: ScriptedModel | None = None,
    seed: int = 0,
    events: list[Event] | None = None,
    image_ids: Sequence[str] | None = None,
    **changes: object,
) -> Clustering:
    model = model or ScriptedModel({"kind": labels}, noise=noise, seed=seed)
    chosen = Settings(seed=seed, **changes)  # type: ignore[arg-type]
    emit = (lambda event: None) if events is None else events.append
    return asyncio.run(cluster_images(image_ids or list(labels), [KIND], model, chosen, emit))[KIND]


def agreement(found: Clustering, labels: Mapping[str, str]) -> float:
    """NMI over all readable images; the unassigned ones count as one more cluster."""
    true = [labels[assignment.image_id] for assignment in found.assignments]
    return float(normalized_mutual_info_score(true, [assignment.cluster or 0 for assignment in found.assignments]))


def check_partition(found: Clustering, image_ids: Sequence[str]) -> None:
    elsewhere = {image for image, _ in found.failed} | set(found.not_looked)
    assert [a.image_id for a in found.assignments] == sorted(set(image_ids) - elsewhere)
    assert len(found.assignments) + len(found.failed) + len(found.not_looked) == len(set(image_ids))
    sizes = Counter(a.cluster for a in found.assignments if a.cluster is not None)
    assert {cluster.id: cluster.size for cluster in found.clusters} == sizes
    assert [cluster.id for cluster in found.clusters] == list(range(1, len(found.clusters) + 1))
    assert [sizes[c.id] for c in found.clusters] == sorted(sizes.values(), reverse=True)
    assert len({normalise_description(cluster.name) for cluster in found.clusters}) == len(found.clusters)
    where = {a.image_id: a.cluster for a in found.assignments}
    assert all(where[image] == cluster.id for cluster in found.clusters for image in cluster.exemplars)
    for a in found.assignments:
        assert a.decided_by in (("choice", "description") if a.cluster is not None else ("choice", ""))
        assert 0 <= a.confidence <= 1 if a.cluster is not None else a.confidence == 0
    placed = sum(size for size in sizes.values())
    for of, size in [(found.estimate, placed), *((c.misplaced, c.size) for c in found.clusters)]:
        assert of is None or 0 <= of.low <= of.share <= of.high <= 1, (of, size)


@pytest.mark.parametrize("seed", [0, 1])
def test_two_thousand_images_under_the_noise_of_the_design(seed: int) -> None:
    """13 classes, 3.5% wrong descriptions, 8% outlying embeddings, 4% wrong choices."""
    labels = draw_labels(2000, 13, seed)
    found = run(labels, DESIGN_NOISE, seed=seed)
    check_partition(found, list(labels))
    assert agreement(found, labels) >= 0.95
    assert len(found.clusters) == 13
    assert 0 < found.calls.choose <= 0.25 * len(labels)
    assert (found.calls.look, found.calls.judge, found.calls.complete) == (2000, 0, 0)


@pytest.mark.parametrize("classes", [3, 4, 13])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_deck_of_cards(classes: int, seed: int) -> None:
    labels = draw_labels(260, classes, seed)
    found = run(labels, DESIGN_NOISE, seed=seed)
    assert len(found.clusters) == classes
    assert agreement(found, labels) >= (0.88 if classes == 3 else 0.93)  # few wrong looks take much of few classes
    assert found.calls.choose <= 0.5 * len(labels)


def test_two_kinds_do_not_silence_a_good_judge() -> None:
    """With two options a guesser agrees with itself half of the time: it takes more questions to tell it from a judge
    who is wrong one time in 25."""
    silenced = 0
    for seed in range(10):
        labels = draw_labels(260, 2, seed)
        found = run(labels, DESIGN_NOISE, seed=seed)
        assert len(found.clusters) == 2
        silenced += found.estimate is None
    assert silenced <= 1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_judge_that_repeats_the_mistakes_of_the_look_and_sees_no_exemplars(seed: int) -> None:
    """Like nano: 3% wrong descriptions, of which the judge believes 60%, going by the cluster's name alone."""
    labels = draw_labels(520, 13, seed)
    noise = replace(DESIGN_NOISE, wrong_description=0.03, stubborn=0.6)
    model = ScriptedModel({"kind": labels}, noise=noise, seed=seed, sees_exemplars=False)
    found = run(labels, model=model, seed=seed)
    assert len(found.clusters) == 13
    assert agreement(found, labels) >= 0.93


class Cheating(ScriptedModel):
    """Looks honestly, and chooses by a rule of its own."""

    def __init__(self, labels: Mapping[str, str], rule: str) -> None:
        super().__init__({"kind": labels}, noise=DESIGN_NOISE)
        self._rule = rule

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        self.calls["choose"] += len(requests)
        replies: list[ChooseReply | ModelError] = []
        for request in requests:
            count = len(request.options)
            at = {"first": 0, "last": count - 1, "none": count}.get(self._rule)
            if at is None:
                at = int(request_key(self, request), 16) % (count + 1)
            shares = [0.1 / count] * (count + 1)
            shares[at] = 0.9
            replies.append(ChooseReply(tuple(shares), "because"))
        return replies


@pytest.mark.parametrize("rule", ["first", "last", "none", "any"])
@pytest.mark.parametrize("images", [60, 240, 520])
def test_a_judge_not_to_be_believed_costs_nothing_but_what_the_descriptions_give(rule: str, images: int) -> None:
    labels = draw_labels(images, 13, 0)
    model = Cheating(labels, rule)
    found = run(labels, model=model)
    check_partition(found, list(labels))
    replies = asyncio.run(model.look([LookRequest("kind", image) for image in sorted(labels)]))
    said = [reply.description for reply in replies if isinstance(reply, LookReply)]
    ceiling = normalized_mutual_info_score([labels[image] for image in sorted(labels)], said)
    assert agreement(found, labels) >= ceiling - 0.02
    assert len(found.clusters) == 13
    assert "tell nothing for this interest" in found.notes[0]
    assert ("gave every image the same answer" if rule == "none" else "no better than a guesser might") in found.notes[
        0
    ]
    assert found.estimate is None
    assert all(cluster.misplaced is None for cluster in found.clusters), "nothing is known, so nothing is said"
    assert found.calls.choose <= 48, "after its trial it is asked nothing more"


def test_an_honest_none_of_them_is_not_held_against_the_judge() -> None:
    """Where no two images are alike there is nothing to plant, and "none of them" is right every time."""
    labels = {f"{number:03d}": f"kind{number}" for number in range(100)}
    found = run(labels)
    assert found.clusters == ()
    assert not any("tell nothing" in note for note in found.notes)
    assert found.calls.choose <= 0.6 * len(labels)


@pytest.mark.slow
def test_more_effort_asks_more_and_the_result_is_better() -> None:
    found = {}
    for effort in CALLS_PER_PICTURE:
        runs = [
            (run(labels, replace(DESIGN_NOISE, wrong_description=0.1), seed=seed, effort=effort), labels)
            for seed in range(3)
            for labels in [draw_labels(500, 8, seed)]
        ]
        found[effort] = sum(f.calls.choose for f, _ in runs), sum(agreement(f, of) for f, of in runs)
    assert [found[e] for e in ("low", "normal", "high", "max")] == sorted(found.values())


def test_unbalanced_classes_keep_their_small_kinds() -> None:
    """Sizes from 800 down to 8."""
    sizes = [800, 400, 200, 100, 50, 25, 12, 8]
    labels = {f"{kind}-{number:03d}": f"kind{kind}" for kind, size in enumerate(sizes) for number in range(size)}
    found = run(labels, DESIGN_NOISE)
    assert len(found.clusters) == len(sizes)
    assert agreement(found, labels) >= 0.95


def test_a_kind_of_three_images_stands_alone() -> None:
    labels = {f"a{number:02d}": "ace" for number in range(40)} | {f"j{number}": "joker" for number in range(3)}
    found = run(labels)
    assert [(cluster.name, cluster.size) for cluster in found.clusters] == [("ace", 40), ("joker", 3)]


def test_synonyms_end_in_one_cluster() -> None:
    labels = draw_labels(400, 4, 0)
    found = run(labels, Noise(synonym=0.3))
    assert len(found.clusters) == 4
    assert agreement(found, labels) == pytest.approx(1.0)


def test_where_nothing_is_wrong_the_result_is_perfect_for_a_fraction_of_the_calls() -> None:
    labels = draw_labels(1000, 13, 0)
    found = run(labels)
    assert agreement(found, labels) == pytest.approx(1.0)
    assert found.calls.choose <= 0.15 * len(labels)
    assert found.estimate is not None
    assert found.estimate.share < 0.02
    assert found.estimate.low == 0


@pytest.mark.slow
def test_the_estimate_is_of_the_images_that_are_placed_and_of_each_cluster() -> None:
    """Of 20 runs the 95% interval leaves out the true share in at most 3."""
    left_out = 0
    for seed in range(20):
        labels = draw_labels(400, 6, seed)
        found = run(labels, replace(DESIGN_NOISE, wrong_description=0.08), seed=seed, effort="low")
        kinds = {
            c.id: Counter(labels[a.image_id] for a in found.assignments if a.cluster == c.id).most_common(1)[0][0]
            for c in found.clusters
        }
        placed = [a for a in found.assignments if a.cluster is not None]
        share = sum(kinds[a.cluster or 0] != labels[a.image_id] for a in placed) / len(placed)
        assert found.estimate is not None
        left_out += not found.estimate.low <= share <= found.estimate.high
        assert all(c.misplaced is not None for c in found.clusters)
    assert left_out <= 3


def test_the_reply_depends_on_pixels_through_the_callback() -> None:
    """Labels computed from the images' mean colors, not from a table."""
    chance = np.random.default_rng(0)
    pixels = {
        f"{number:03d}": np.clip(
            np.array([200, 40, 40][:: 1 if number % 3 else -1]) + chance.normal(0, 20, (8, 8, 3)), 0, 255
        )
        for number in range(90)
    }

    def name_color(interest: str, image_id: str) -> str:
        red, _, blue = pixels[image_id].mean(axis=(0, 1))
        return "red" if red > blue else "blue"

    model = ScriptedModel(name_color, classes={"kind": ["red", "blue"]})
    found = run(dict.fromkeys(pixels, ""), model=model)
    assert [(cluster.name, cluster.size) for cluster in found.clusters] == [("red", 60), ("blue", 30)]


@given(st.integers(0, 60), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([None, 0, 3, 20]))
@settings(max_examples=40, deadline=None)
def test_permuting_the_images_changes_nothing_and_it_is_a_partition(
    images: int, classes: int, seed: int, budget: int | None
) -> None:
    labels = draw_labels(images, classes, seed)
    noise = Noise(0.2, 0.2, 0.1, 0.2, failed_look=0.05, wrong_choice=0.1)
    shuffled = list(labels)
    random.Random(seed + 1).shuffle(shuffled)
    found = run(labels, noise, seed=seed, budget_calls=budget)
    check_partition(found, list(labels))
    assert run(labels, noise, seed=seed, image_ids=shuffled, budget_calls=budget) == found


def test_another_seed_asks_about_others() -> None:
    labels = draw_labels(300, 4, 0)
    model = ScriptedModel({"kind": labels}, noise=DESIGN_NOISE)
    one, other = (
        asyncio.run(cluster_images(list(labels), [KIND], model, Settings(seed=seed), lambda event: None))[KIND]
        for seed in (0, 1)
    )
    assert one != other


def test_interests_share_one_pass_image_by_image() -> None:
    order: list[tuple[str, str]] = []

    class Listening(ScriptedModel):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            order.extend((request.image_id, request.interest) for request in requests)
            return await super().look(requests)

    labels = draw_labels(100, 3, 0)
    shades = {image: "dark" if number % 2 else "light" for number, image in enumerate(labels)}
    model = Listening({"kind": labels, "shade": shades})
    interests = [KIND, Interest("shade"), Interest("kind")]
    found = asyncio.run(cluster_images(list(labels), interests, model, Settings(), lambda event: None))
    assert list(found) == [KIND, Interest("shade")]
    assert order == [(image, interest) for image in sorted(labels) for interest in ("kind", "shade")]
    assert len(found[KIND].clusters) == 3
    assert {cluster.name for cluster in found[Interest("shade")].clusters} == {"dark", "light"}


def test_calls_are_counted_as_the_model_counts_them_and_nothing_is_asked_twice() -> None:
    keys: list[str] = []

    class Listening(ScriptedModel):
        async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
            keys.extend(request_key(self, request) for request in requests)
            replies = await super().choose(requests)
            failing = [int(request_key(self, request)[:2], 16) < 12 for request in requests]
            return [ModelError("unlucky") if bad else reply for bad, reply in zip(failing, replies, strict=True)]

        async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
            keys.extend(request_key(self, request) for request in requests)
            return await super().complete(requests)

    labels = draw_labels(300, 5, 0)
    noise = replace(DESIGN_NOISE, failed_look=0.02)
    model = Listening({"kind": labels}, noise=noise, writes_text=True, wordings=Wordings(5))
    found = run(labels, model=model)
    assert (found.calls.look, found.calls.judge, found.calls.choose, found.calls.complete) == tuple(
        model.calls[kind] for kind in ("look", "judge", "choose", "complete")
    )
    assert found.calls.judge == 0 < found.calls.complete
    assert found.calls.failed > len(found.failed) > 0
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("budget", [0, 150, 400, 403, 410, 440])
def test_the_budget_is_a_hard_limit_on_all_calls_and_is_said(budget: int, writes: bool) -> None:
    """Looks, choices and texts alike; and it is used."""
    labels = draw_labels(400, 5, 0)
    wordings = Wordings(2) if writes else None
    model = ScriptedModel({"kind": labels}, noise=DESIGN_NOISE, writes_text=writes, wordings=wordings)
    found = run(labels, model=model, budget_calls=budget)
    check_partition(found, list(labels))
    assert model.calls.total() == found.calls.total <= budget
    assert budget - model.calls.total() <= (3 if writes else 0), "a writer's names have a share of their own"
    assert found.is_partial
    assert found.notes[0].startswith(f"Partial: the budget of {budget} calls did not cover every question")
    assert len(found.not_looked) == max(0, 400 - budget)
    loose = [a.reason for a in found.assignments if a.cluster is None]
    assert all(reason.endswith("the budget was spent before a cluster was found for it") for reason in loose)
    if budget and not writes:
        assert len(found.clusters) == 5, "descriptions alone still sort"
        assert agreement(found, labels) >= 0.88


def test_images_that_share_a_description_are_a_cluster_where_the_budget_ended_before_they_were_asked_about() -> None:
    """A kind of 80 must not vanish into the one that it is nearest to, nor be left out."""
    labels = draw_labels(400, 5, 0)
    for budget in range(400, 470, 5):
        found = run(labels, DESIGN_NOISE, budget_calls=budget)
        assert {cluster.name for cluster in found.clusters} == {f"kind{number}" for number in range(5)}


def test_a_budget_that_suffices_changes_nothing() -> None:
    labels = draw_labels(400, 5, 0)
    free = run(labels, DESIGN_NOISE)
    assert run(labels, DESIGN_NOISE, budget_calls=10_000) == free
    assert not free.is_partial


@pytest.mark.parametrize("budget", [0, 61, 200, 260, 299])
def test_one_budget_is_for_all_interests(budget: int) -> None:
    """Looks first, of whole images; the interests share what is left."""
    labels = draw_labels(100, 3, 0)
    shades = {image: "dark" if number % 2 else "light" for number, image in enumerate(labels)}
    model = ScriptedModel({"kind": labels, "shade": shades}, noise=DESIGN_NOISE)
    chosen = Settings(budget_calls=budget)
    found = asyncio.run(cluster_images(list(labels), [KIND, Interest("shade")], model, chosen, lambda event: None))
    assert model.calls.total() <= budget
    assert [one.calls.look for one in found.values()] == [min(100, budget // 2)] * 2
    assert all(one.calls.choose > 0 for one in found.values()) == (budget > 200)


class Metered(ScriptedModel):
    """Reports what each answer takes, as a server does: never the same twice."""

    def __init__(self, labels: Mapping[str, str], *, counts: bool = True) -> None:
        super().__init__({"kind": labels}, noise=DESIGN_NOISE)
        self.counts = counts
        self.tokens = 0

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, image_tokens=500, reply_tokens=80)

    def _usage(self, request: Request) -> Usage | None:
        drawn = int(request_key(self, request)[:4], 16)
        usage = Usage(200 + drawn % 300, 1 + drawn % 80)
        self.tokens += usage.tokens_in + usage.tokens_out
        return usage if self.counts else None

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        replies = await super().look(requests)
        return [replace(y, usage=self._usage(x)) for x, y in zip(requests, replies, strict=True)]  # type: ignore[type-var]

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        replies = await super().choose(requests)
        return [replace(y, usage=self._usage(x)) for x, y in zip(requests, replies, strict=True)]  # type: ignore[type-var]


@pytest.mark.parametrize("budget_usd", [0.0, 0.0005, 0.05, 0.16])
@pytest.mark.parametrize("counts", [True, False])
def test_a_budget_in_money_is_never_passed(budget_usd: float, counts: bool) -> None:
    labels = draw_labels(400, 5, 0)
    model = Metered(labels, counts=counts)
    found = run(labels, model=model, budget_usd=budget_usd, price_in=1.0, price_out=1.0)
    check_partition(found, list(labels))
    assert model.tokens / 1e6 <= budget_usd
    assert found.is_partial
    assert f"${budget_usd:,.2f}" in found.notes[0]
    if counts:
        spent = found.calls.tokens
        assert spent.tokens_in + spent.tokens_out == model.tokens
        left = budget_usd * 1e6 - model.tokens
        assert left < 5_000, "what is left is less than one choice with eight exemplars may take"
    else:
        assert found.calls.tokens.uncounted == model.calls.total()


@pytest.mark.slow
def test_what_is_asked_stays_within_what_was_foreseen_from_the_looks() -> None:
    for seed, (images, classes) in enumerate([(60, 30), (260, 13), (400, 5), (1000, 100), (1500, 13)]):
        labels = draw_labels(images, classes, seed)
        events: list[Event] = []
        found = run(labels, DESIGN_NOISE, events=events, seed=seed)
        low, high = found.foreseen_calls
        assert [event for event in events if isinstance(event, Foreseen)] == [Foreseen("kind", low, high)]
        assert 0 < low <= found.calls.choose <= high


def test_failed_choices_leave_the_descriptions_and_are_counted() -> None:
    class Failing(ScriptedModel):
        async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
            self.calls["choose"] += len(requests)
            return [ModelError("no choice today", "come back") for _ in requests]

    labels = draw_labels(200, 4, 0)
    model = Failing({"kind": labels}, noise=Noise(outlying=0.3))
    found = run(labels, model=model)
    check_partition(found, list(labels))
    assert found.calls.failed == found.calls.choose == model.calls["choose"] > 0
    assert found.calls.choose <= 48, "who answers nothing in the trial is asked nothing more"
    assert agreement(found, labels) == pytest.approx(1.0)
    assert found.estimate is None
    assert f"{found.calls.choose:,} model calls failed" in found.notes[0]
    assert found.notes[0].endswith("Most often: no choice today: come back")


def test_failed_looks_are_listed_with_their_reasons() -> None:
    labels = draw_labels(200, 4, 0)
    found = run(labels, Noise(failed_look=0.1))
    check_partition(found, list(labels))
    assert 5 < len(found.failed) < 40
    assert all("the scripted look failed" in reason for _, reason in found.failed)


def test_a_model_that_raises_instead_of_replying_sinks_nothing() -> None:
    class Raising(ScriptedModel):
        async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
            raise ModelBusy("the server is overloaded")

    labels = draw_labels(100, 3, 0)
    found = run(labels, model=Raising({"kind": labels}))
    assert found.calls.failed == found.calls.choose > 0
    assert len(found.clusters) == 3


def test_unusable_embeddings_count_as_failed_looks() -> None:
    class Broken(ScriptedModel):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            replies = await super().look(requests)
            bad = {"0": np.full(64, np.nan), "1": np.zeros(64), "2": np.ones(3)}
            return [
                LookReply("x", float("nan"), bad[request.image_id].astype(np.float16))
                if request.image_id in bad
                else reply
                for request, reply in zip(requests, replies, strict=True)
            ]

    labels = {str(number): "a" for number in range(8)}
    found = run(labels, model=Broken({"kind": labels}))
    assert [image for image, _ in found.failed] == ["0", "1", "2"]
    assert [cluster.size for cluster in found.clusters] == [5]


@pytest.mark.parametrize(
    ("labels", "noise", "sizes"),
    [
        ({}, Noise(), []),
        ({"0": "a"}, Noise(), []),
        ({"0": "a", "1": "a"}, Noise(), [2]),
        ({"0": "a", "1": "b"}, Noise(), []),
        ({str(k): "a" for k in range(50)}, Noise(spread=0.0), [50]),
        ({str(k): "a" for k in range(20)}, Noise(failed_look=1.0), []),
        ({str(k): f"kind{k}" for k in range(100)}, Noise(), []),
    ],
    ids=["none", "one", "two alike", "two unlike", "all identical", "all looks failed", "all different"],
)
def test_degenerate_collections_get_no_invented_clusters(
    labels: dict[str, str], noise: Noise, sizes: list[int]
) -> None:
    found = run(labels, noise)
    check_partition(found, list(labels))
    assert [cluster.size for cluster in found.clusters] == sizes


def test_identical_embeddings_with_different_descriptions_are_told_apart_by_the_judge() -> None:
    class Flat(ScriptedModel):
        async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
            replies = await super().look(requests)
            flat = np.eye(64)[0].astype(np.float16)
            return [replace(reply, embedding=flat) if isinstance(reply, LookReply) else reply for reply in replies]

    labels = {f"{number:02d}": "ab"[number % 2] for number in range(40)}
    found = run(labels, model=Flat({"kind": labels}))
    assert [(cluster.name, cluster.size) for cluster in found.clusters] == [("a", 20), ("b", 20)]


def test_events_frame_every_stage_and_never_pass_their_total() -> None:
    events: list[Event] = []
    run(draw_labels(200, 4, 0), DESIGN_NOISE, events=events)
    framed = [
        (type(event).__name__, event.stage) for event in events if isinstance(event, StageStarted | StageFinished)
    ]
    assert framed == [
        (kind, stage) for stage in ("look", "walk", "check", "name") for kind in ("StageStarted", "StageFinished")
    ]
    assert all(event.total is None or event.done <= event.total for event in events if isinstance(event, StageAdvanced))


class Unsure(ScriptedModel):
    """Says the same with little confidence."""

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        replies = await super().look(requests)
        return [replace(reply, confidence=0.2) if isinstance(reply, LookReply) else reply for reply in replies]


@pytest.mark.parametrize(("kind", "warned"), [(ScriptedModel, False), (Unsure, True)])
def test_the_person_is_warned_where_the_model_is_unsure_of_what_it_sees(
    kind: type[ScriptedModel], warned: bool
) -> None:
    labels = draw_labels(60, 3, 0)
    model = kind({"kind": labels})
    found = asyncio.run(cluster_images(list(labels), [Interest("kind")], model, Settings(), lambda event: None))
    assert any("unsure" in note for note in found[Interest("kind")].notes) == warned


def test_a_stand_ins_look_serves_the_images_it_stands_for() -> None:
    labels = draw_labels(300, 4, 0)
    ids = sorted(labels)
    served = {image_id: next(other for other in ids if labels[other] == labels[image_id]) for image_id in ids[:100]}
    model = ScriptedModel({"kind": labels})
    found = asyncio.run(cluster_images(ids, [KIND], model, Settings(), lambda event: None, served))[KIND]
    check_partition(found, ids)
    looked = {served.get(image_id, image_id) for image_id in ids}
    assert model.calls["look"] == found.calls.look == len(looked) < 300
    assert agreement(found, labels) == 1.0


def test_a_look_that_failed_for_many_failed_once() -> None:
    labels = draw_labels(20, 2, 0)
    first, *others = sorted(labels)
    model = ScriptedModel({"kind": labels}, noise=Noise(failed_look=1.0))
    stand_ins = dict.fromkeys(others, first)
    (found,) = asyncio.run(
        cluster_images(list(labels), [KIND], model, Settings(), lambda event: None, stand_ins)
    ).values()
    assert (found.calls.look, found.calls.failed, len(found.failed)) == (1, 1, 20)
