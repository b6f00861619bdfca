"""What a model makes of an interest, seen on a few pictures before all are sorted.

In: the ids of a sample's images, an interest, a model. Out: a `Glance`. Promise: one look at each image and at most
three texts beside; no question about clusters is asked, so the groups are those of the descriptions alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from manylens.errors import ModelError, UsageError
from manylens.events import Event
from manylens.method.observations import REFUSALS, Looks, spoken
from manylens.method.vocabulary import make_vocabulary
from manylens.models.base import CompleteRequest, Model, ask_interests, ask_verdict, ask_wordings
from manylens.models.prompts_writing import MOST_WORDINGS
from manylens.pipeline.budget import Budget
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.look import look_at_images
from manylens.pipeline.suggest import SAME, SampleGroup, group_by_words, likeness
from manylens.settings import Settings
from manylens.sync import in_thread
from manylens.types import Interest, Verdict
from manylens.writing import OtherWordings, WordOtherwise, Written

TEXTS = 3
"""At most, beside the looks: descriptions into categories, categories compared, other wordings."""


@dataclass(frozen=True, slots=True)
class OtherWording:
    """An interest to try instead. verdict: the model's on the sample, or None. names: of the groups that it makes, the
    largest first; empty where it was not tried. why: what would differ, or empty."""

    interest: Interest
    verdict: Verdict | None = None
    names: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Glance:
    """looks: of the sample. groups: the largest first; those of one image are among them. unanswered: ids of images for
    which there is no answer. verdict: None where the model gives none."""

    looks: Looks
    groups: tuple[SampleGroup, ...]
    unanswered: tuple[str, ...]
    verdict: Verdict | None
    wordings: tuple[OtherWording, ...]


def calls_of_preview(images: int, interests: int, writes: bool) -> int:
    """Model calls of a preview, beside the tries of other wordings by a model in this process."""
    return interests * (images + (TEXTS if writes and images > 1 else 0))


async def glance(
    image_ids: Sequence[str],
    interests: Sequence[Interest],
    model: Model,
    settings: Settings,
    emit: Callable[[Event], None],
    budget: Budget,
) -> dict[Interest, Glance]:
    """Each interest by itself, through one look of an image after the other."""
    looks = await look_at_images(image_ids, interests, model, emit, budget)
    return {interest: await _understood(looks[interest], model, settings, emit, budget) for interest in looks}


async def _understood(
    looks: Looks, model: Model, settings: Settings, emit: Callable[[Event], None], budget: Budget
) -> Glance:
    verdict = await in_thread(lambda: ask_verdict(model, looks.interest.text, looks.image_ids)) if len(looks) else None
    groups = group_by_words(looks)
    if model.capabilities.writes_text and len(set(looks.words)) > 1:
        session = JudgeSession(looks, model, emit, budget, budget.part(1.0))
        closed = settings.into or looks.interest.options
        vocabulary = await session.drive(make_vocabulary(looks, "medium", closed))
        groups = _grouped(looks, vocabulary.category, vocabulary.no_answer)
    placed = {image_id for group in groups for image_id in group.images}
    unanswered = tuple(image_id for image_id in looks.image_ids if image_id not in placed)
    wordings = await _wordings(looks, groups, verdict, model, budget)
    return Glance(looks, groups, unanswered, verdict, tuple(wordings))


def _grouped(looks: Looks, category: Mapping[str, str], silent: Collection[str]) -> tuple[SampleGroup, ...]:
    groups: dict[str, list[str]] = {}
    for at, words in enumerate(looks.words):
        if words and words not in REFUSALS and words not in silent:
            groups.setdefault(category.get(words) or spoken(looks, [at], words), []).append(looks.image_ids[at])
    order = sorted(groups, key=lambda name: (-len(groups[name]), name))
    return tuple(SampleGroup(name, tuple(groups[name])) for name in order)


async def _wordings(
    looks: Looks, groups: Sequence[SampleGroup], verdict: Verdict | None, model: Model, budget: Budget
) -> list[OtherWording]:
    """From a model that was taught interests those near this one that fit the pictures and that it understands here,
    and where this one is not understood others, too; from a model that writes what it proposes. None that makes the
    same groups where these are understood."""
    interest, is_known = looks.interest, verdict is not None and verdict.word == "good"
    near = await in_thread(lambda: ask_wordings(model, interest.text))
    fitting = await in_thread(lambda: ask_interests(model, looks.image_ids))
    tried = [text for text in near if text in fitting]
    if not is_known:  # whatever was meant, these are understood
        tried = list(dict.fromkeys([*tried, *fitting]))
    found: list[OtherWording] = []
    for text in tried:
        if len(found) == MOST_WORDINGS:
            break
        other = Interest(text)
        said = await in_thread(lambda text=text: ask_verdict(model, text, looks.image_ids))  # type: ignore[misc]
        if said is None or said.word != "good":
            continue
        seen = (await look_at_images(looks.image_ids, [other], model, lambda event: None, budget))[other]
        made = group_by_words(seen)
        names = tuple(group.name for group in made)
        if len(names) > 1 and not (is_known and likeness(groups, made) >= SAME):
            found.append(OtherWording(other, said, names))
    if not fitting and model.capabilities.writes_text and len(looks):
        found = await _proposed(looks, model, budget)
    return found[:MOST_WORDINGS]


async def _proposed(looks: Looks, model: Model, budget: Budget) -> list[OtherWording]:
    counts = Counter(looks.descriptions)
    task = WordOtherwise(looks.interest.text, tuple(sorted(counts.items(), key=lambda e: (-e[1], e))))
    request = CompleteRequest(looks.interest.text, task)
    if not budget.admit([request], budget.part(1.0)):
        return []
    (reply,) = await model.complete([request])
    budget.charge(request, reply)
    return [] if isinstance(reply, ModelError) else read_wordings(reply.written, looks.interest)


def read_wordings(written: Written, interest: Interest) -> list[OtherWording]:
    found: dict[str, OtherWording] = {}
    for entry in written.wordings if isinstance(written, OtherWordings) else ():
        try:
            other = Interest(entry.interest)
        except UsageError:
            continue
        if other.slug != interest.slug:
            found.setdefault(other.slug, OtherWording(other, why=entry.why))
    return list(found.values())
