"""What a collection could be sorted by, from a sample of it.

In: the ids of the sample's images, a model. Out: up to ten `Proposal`s, each with the groups that it makes of the
sample, the most useful first. Promise: every answer is one of the run's, so a later run asks none of it again; an
interest that does not split the sample, or splits it as another one does, is not proposed; no ground truth is used.

A model that was taught interests (nano) tries those that fit the pictures and keeps the ones that it says it
understands. A model that writes describes each picture from three sides and proposes interests once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from manylens.errors import ModelError, UsageError
from manylens.events import Event, StageAdvanced, StageFinished, StageStarted
from manylens.method.observations import REFUSALS, Looks, spoken
from manylens.models.base import CompleteRequest, Model, ask_interests, ask_verdict
from manylens.pipeline.budget import Budget
from manylens.pipeline.look import look_at_images
from manylens.sync import in_thread
from manylens.text import counted
from manylens.types import Interest, parse_interests
from manylens.writing import SuggestedInterests, SuggestInterests, Written

Emit = Callable[[Event], None]

MOST_PROPOSED = 10

SIDES = (
    "what is shown: the main subject and what happens",
    "where and when: place, surroundings, light, weather",
    "what kind of picture it is: origin, style, colors, mood",
)
"""The interests through which a model that writes describes the sample, before it proposes any."""

ASKED = "what to sort these pictures by"
"""The interest of the request for proposals."""

LEAST_ANSWERED, MOST_IN_ONE, FEWEST_IN_GROUP = 0.5, 0.85, 2
"""An interest splits the sample where at least half of it has an answer, no answer is that of more than 85% of these,
and two answers occur twice."""

SAME = 0.7
"""NMI of two groupings of the sample, from which the second one is not worth a line of its own."""


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """An answer and the images of the sample that have it."""

    name: str
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposal:
    """groups: the largest first. answered: share of the sample that has an answer, in [0, 1]."""

    interest: Interest
    groups: tuple[SampleGroup, ...]
    answered: float


def calls_of_suggestions(images: int, writes: bool, taught: bool) -> int:
    """Model calls for a sample of so many images; of a model that was taught interests not known beforehand: 0."""
    return images * len(SIDES) + 1 if writes and not taught else 0


async def propose(image_ids: Sequence[str], model: Model, emit: Emit, budget: Budget) -> list[Proposal]:
    """Raises UsageError for a model that can do neither."""
    taught = await in_thread(lambda: ask_interests(model, image_ids))
    if taught:
        found = await _try(image_ids, taught, model, emit, budget)
    elif model.capabilities.writes_text:
        found = await _written(image_ids, model, emit, budget)
    else:
        raise UsageError(
            f"suggestions come from a model that writes, or was taught interests, {model.name} is neither",
            "use nano, or a model behind a server",
        )
    return _different([one for one in found if splits(one.groups, len(image_ids))], taught)[:MOST_PROPOSED]


async def _try(
    image_ids: Sequence[str], interests: Sequence[str], model: Model, emit: Emit, budget: Budget
) -> list[Proposal]:
    """Look through those that the model understands here. Sorted by what they tell: how many have a sure answer that
    is not everyone's."""
    emit(StageStarted("look", "", len(interests)))
    found: list[tuple[float, int, Proposal]] = []
    tried = 0
    for number, text in enumerate(interests):
        verdict = await in_thread(lambda text=text: ask_verdict(model, text, image_ids))  # type: ignore[misc]
        if verdict is None or verdict.word == "good":
            (interest,) = parse_interests(text)
            looks = (await look_at_images(image_ids, [interest], model, lambda event: None, budget))[interest]
            if looks.not_looked:
                break
            tried += 1
            groups = group_by_words(looks)
            sizes = np.array([len(group.images) for group in groups if len(group.images) >= FEWEST_IN_GROUP])
            told = sizes.sum() / max(1, len(image_ids))
            even = 1 - float(((sizes / sizes.sum()) ** 2).sum()) if len(sizes) else 0.0
            worth = float(told * even * (looks.confidences.mean() if len(looks) else 0.0))
            answered = sum(len(group.images) for group in groups) / max(1, len(image_ids))
            found.append((-round(worth, 6), number, Proposal(interest, groups, round(answered, 4))))
        emit(StageAdvanced("look", "", number + 1, len(interests)))
    pictures = counted(len(image_ids), "picture")
    emit(StageFinished("look", "", f"{counted(tried, 'interest')} of {len(interests):,} understood on {pictures}"))
    return [proposal for *_, proposal in sorted(found, key=lambda entry: entry[:2])]


def group_by_words(looks: Looks) -> tuple[SampleGroup, ...]:
    """Images by equal descriptions, the largest group first; those without an answer are in none."""
    groups: dict[str, list[int]] = {}
    for at, words in enumerate(looks.words):
        if words and words not in REFUSALS:
            groups.setdefault(words, []).append(at)
    order = sorted(groups, key=lambda words: (-len(groups[words]), words))
    return tuple(
        SampleGroup(spoken(looks, groups[words], words), tuple(looks.image_ids[at] for at in groups[words]))
        for words in order
    )


async def _written(image_ids: Sequence[str], model: Model, emit: Emit, budget: Budget) -> list[Proposal]:
    sides = [Interest(text) for text in SIDES]
    looks = await look_at_images(image_ids, sides, model, emit, budget)
    said: dict[str, list[str]] = {}
    for side in sides:
        for image_id, words, description in zip(
            looks[side].image_ids, looks[side].words, looks[side].descriptions, strict=True
        ):
            if words not in REFUSALS:
                said.setdefault(image_id, []).append(description)
    ids = sorted(said)
    if len(ids) < 2:
        return []
    emit(StageStarted("vocabulary", "", None))
    task = SuggestInterests(ASKED, tuple(tuple(said[image_id]) for image_id in ids), MOST_PROPOSED)
    request = CompleteRequest(ASKED, task)
    if not budget.admit([request], budget.part(1.0)):
        emit(StageFinished("vocabulary", "", "the budget was spent before anything could be suggested"))
        return []
    (reply,) = await model.complete([request])
    budget.charge(request, reply)
    if isinstance(reply, ModelError):
        raise reply
    found = read_proposals(reply.written, ids)
    emit(StageFinished("vocabulary", "", f"{counted(len(found), 'interest')} suggested"))
    return found


def read_proposals(written: Written, image_ids: Sequence[str]) -> list[Proposal]:
    """Interests that a run would take, each picture in the first group that names it; the rest is left out."""
    if not isinstance(written, SuggestedInterests):
        return []
    found: dict[str, Proposal] = {}
    for entry in written.interests:
        try:
            (interest,) = parse_interests(entry.interest)
        except UsageError:  # too long, without a letter, or called like one of the run's own files
            continue
        taken: set[int] = set()
        groups = []
        for group in entry.groups:
            own = [n for n in dict.fromkeys(group.numbers) if 1 <= n <= len(image_ids) and n not in taken]
            taken.update(own)
            if own:
                groups.append(SampleGroup(group.name, tuple(image_ids[n - 1] for n in own)))
        groups.sort(key=lambda group: (-len(group.images), group.name))
        answered = round(len(taken) / len(image_ids), 4)
        found.setdefault(interest.slug, Proposal(interest, tuple(groups), answered))
    return list(found.values())


def splits(groups: Sequence[SampleGroup], pictures: int) -> bool:
    """Whether these are groups that somebody would sort the pictures into."""
    sizes = [len(group.images) for group in groups]
    answered = sum(sizes)
    return (
        answered >= LEAST_ANSWERED * pictures
        and max(sizes, default=0) <= MOST_IN_ONE * answered
        and sum(size >= FEWEST_IN_GROUP for size in sizes) >= 2
    )


def _different(proposals: Sequence[Proposal], order: Sequence[str]) -> list[Proposal]:
    """One of those that group the sample alike: the first by `order`, interests; it has the place of the best."""
    first = {text: at for at, text in enumerate(order)}
    kept: list[Proposal] = []
    for one in proposals:
        like = next((at for at, other in enumerate(kept) if likeness(one.groups, other.groups) >= SAME), None)
        if like is None:
            kept.append(one)
        elif first.get(one.interest.text, 0) < first.get(kept[like].interest.text, 0):
            kept[like] = one
    return kept


def likeness(some: Sequence[SampleGroup], others: Sequence[SampleGroup]) -> float:
    """Normalised mutual information of two groupings, of the images that both have; 0 where one has a single group."""
    place = {image_id: at for at, group in enumerate(others) for image_id in group.images}
    pairs = [(at, place[i]) for at, group in enumerate(some) for i in group.images if i in place]
    if not pairs:
        return 0.0

    def entropy(keys: Sequence[object]) -> float:
        shares = np.array(list(Counter(keys).values())) / len(keys)
        return float(-(shares * np.log(shares)).sum())

    one, two = entropy([a for a, _ in pairs]), entropy([b for _, b in pairs])
    return 2 * (one + two - entropy(pairs)) / (one + two) if one > 0 and two > 0 else 0.0
