"""What a teacher says of a sample of a collection, and the lessons a student learns from it (pseudo supervision).

In: image ids, an interest, a teacher (any `Model`), a number of calls. Out: `PseudoLabels`, and the batches that
training draws from them. Promises: at most that many requests are put, none twice; no labels are used; what is drawn
depends on the seed and the step alone, so that training can go on from any step.

Of N calls, 90% describe images, drawn at random, through the interest; 5% judge pairs ("does v belong with u?"), in
turn of equal and of different descriptions; 5% judge membership, in turn an image in the group of its own description
and in another one. Where images are fewer than that, the calls left over judge. Descriptions get most because they
imply pairs and memberships at no cost: any two images, and any image with any group, are a lesson. 15% of the described
images are held out: no answer about one of them ever trains, and training stops by these answers.

A judgement outranks what descriptions imply. An image that its teacher refuses in the group of its own description
contradicts itself: its description teaches nothing. What images without a description probably show may be added
(`PseudoLabels.with_spread`): descriptions with their probabilities, which train as far as they are probable.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from manylens.errors import ModelError, UsageError
from manylens.events import Event, StageAdvanced, StageFinished, StageStarted
from manylens.method.observations import define_cluster, normalise_description, seeded_share
from manylens.models.base import JudgeReply, JudgeRequest, LookReply, LookRequest, Model

DESCRIBE_SHARE = 0.9
"""Of the calls; the rest judges pairs and memberships."""

HELD_OUT_SHARE = 0.15
_FEWEST_HELD_OUT = 2
FEWEST_CALLS = 20
"""Per interest: with fewer, three descriptions or less are held out, which tell nothing."""

EXEMPLARS = 3
JUDGEMENTS_PER_IMAGE = 2
"""At most so many pairs, and so many memberships, per described image."""

FIRMNESS = 2
"""Yes and no are learned from probabilities raised to this power: else every picture that is not quite plain would be
refused everywhere, and belong to nothing."""

_ASKED_AT_ONCE = 64
_SPREAD_TRIES = 20


SoftLabel: TypeAlias = tuple[tuple[str, float], ...]
"""Normalised descriptions with their probabilities, which sum to one; the most probable first."""


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """One row to learn: a look with the descriptions to give, or a judgement with the probability of yes.

    descriptions: as they are to be written, with their probabilities, the most probable first. view: which view of the
    picture, 0 is the whole of it.
    """

    request: LookRequest | JudgeRequest
    descriptions: SoftLabel = ()
    probability: float = 0.0
    view: int = 0

    @property
    def image_id(self) -> str:
        return self.request.image_id if isinstance(self.request, LookRequest) else self.request.candidate_id


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one interest. pairs: (row, row, whether both show the same, in [0, 1]) among those that describe."""

    lessons: tuple[PseudoLabel, ...]
    pairs: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """All that the teacher said of one interest.

    described: image id -> description, in the order asked. pairs: (u, v) -> probability that they belong together.
    members: judgements of membership, (request, probability of yes). held_out: image ids. calls, failed: requests put,
    and those of them that got no answer. spread: image id -> what it probably shows, of images that teach no
    description of their own, those held out among them.
    """

    interest: str
    described: dict[str, str]
    pairs: dict[tuple[str, str], float]
    members: tuple[tuple[JudgeRequest, float], ...]
    held_out: frozenset[str]
    calls: int = 0
    failed: int = 0
    spread: dict[str, SoftLabel] = field(default_factory=dict)
    words: dict[str, str] = field(init=False)
    """Image id -> its description, normalised."""
    spoken: dict[str, str] = field(init=False)
    """Normalised description -> how it was written most often, which is how the student learns to write it."""
    soft_labels: dict[str, SoftLabel] = field(init=False)
    """Image id -> what training takes it to show: the teacher's description, as certain, or what was spread to it."""

    def __post_init__(self) -> None:
        words = {image_id: normalise_description(text) for image_id, text in self.described.items()}
        forms: dict[str, Counter[str]] = {}
        for image_id, text in self.described.items():
            forms.setdefault(words[image_id], Counter())[text] += 1
        spoken = {said: min(of, key=lambda text: (-of[text], text)) for said, of in forms.items()}
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "spoken", spoken)
        own: dict[str, SoftLabel] = {image_id: ((words[image_id], 1.0),) for image_id in self.taught()}
        object.__setattr__(self, "soft_labels", own | self.spread)

    def with_spread(self, spread: Mapping[str, SoftLabel]) -> PseudoLabels:
        """These lessons, and what other images probably show."""
        return replace(self, spread=dict(spread))

    @property
    def contradicted(self) -> frozenset[str]:
        """Images whose own description the teacher took back when it judged."""
        return frozenset(
            request.candidate_id
            for request, probability in self.members
            if probability < 0.5 and normalise_description(request.cluster_name) == self.words[request.candidate_id]
        )

    def taught(self) -> list[str]:
        """Ids of images whose own descriptions train, in the order asked."""
        taken_back = self.contradicted
        return [i for i in self.described if i not in self.held_out and i not in taken_back]

    def groups(self, image_ids: Sequence[str]) -> dict[str, list[str]]:
        """Normalised description -> the images among these that the teacher described so."""
        return _groups({image_id: self.words[image_id] for image_id in image_ids})


def _groups(words: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for image_id, said in words.items():
        found.setdefault(said, []).append(image_id)
    return found


Emit: TypeAlias = Callable[[Event], None]


async def take_lessons(
    image_ids: Sequence[str], interest: str, teacher: Model, calls: int, seed: int, emit: Emit
) -> PseudoLabels:
    """Put at most `calls` requests to the teacher. Raises UsageError for too few calls or images, and ModelError where
    the teacher described too few of them."""
    if calls < FEWEST_CALLS:
        raise UsageError(
            f"a teacher is asked at least {FEWEST_CALLS} times for each interest, got {calls}",
            f"pass --teacher-calls {FEWEST_CALLS} or more, times the number of interests",
        )
    emit(StageStarted("teach", interest, calls))
    order = sorted(set(image_ids), key=lambda image_id: (seeded_share(seed, "lesson", image_id), image_id))
    sample = order[: round(calls * DESCRIBE_SHARE)]
    described: dict[str, str] = {}
    done = 0
    for start in range(0, len(sample), _ASKED_AT_ONCE):
        looks = [LookRequest(interest, image_id) for image_id in sample[start : start + _ASKED_AT_ONCE]]
        for look, reply in zip(looks, await teacher.look(looks), strict=True):
            if isinstance(reply, LookReply) and normalise_description(reply.description):
                described[look.image_id] = " ".join(reply.description.split())
        done += len(looks)
        emit(StageAdvanced("teach", interest, done, calls))
    ids = list(described)
    held_out = frozenset(ids[: round(len(ids) * HELD_OUT_SHARE)])
    kinds = len(set(map(normalise_description, described.values())))
    if len(held_out) < _FEWEST_HELD_OUT or kinds < 2:
        fewest = next(n for n in itertools.count() if round(n * HELD_OUT_SHARE) >= _FEWEST_HELD_OUT)
        raise ModelError(
            f"a teacher gives at least {fewest} descriptions, of two kinds or more, for {interest!r}: {len(ids)} came, "
            f"of {kinds}",
            "name an interest by which the images differ, or use another teacher",
        )
    pairs = list(_draw_pairs(interest, described, seed))
    members = list(_draw_members(interest, described, seed))
    for_members = min(len(members), max(round((calls - done) / 2), calls - done - len(pairs)))
    pairs = pairs[: calls - done - for_members]
    judgements = [request for _, request in pairs] + members[:for_members]
    answers: list[float | None] = []
    for start in range(0, len(judgements), _ASKED_AT_ONCE):
        replies = await teacher.judge(judgements[start : start + _ASKED_AT_ONCE])
        answers += [reply.probability if isinstance(reply, JudgeReply) else None for reply in replies]
        emit(StageAdvanced("teach", interest, done + len(answers), calls))
    found = list(zip(judgements, answers, strict=True))
    lessons = PseudoLabels(
        interest,
        described,
        {pair: p for (pair, _), (_, p) in zip(pairs, found[: len(pairs)], strict=True) if p is not None},
        tuple((request, p) for request, p in found[len(pairs) :] if p is not None),
        held_out,
        calls=len(sample) + len(judgements),
        failed=len(sample) - len(described) + answers.count(None),
    )
    detail = f"{len(described):,} descriptions, {len(lessons.pairs):,} pairs, {len(lessons.members):,} memberships"
    emit(StageFinished("teach", interest, detail + (f", {lessons.failed:,} failed" if lessons.failed else "")))
    return lessons


def _draw_pairs(interest: str, described: dict[str, str], seed: int) -> Iterator[tuple[tuple[str, str], JudgeRequest]]:
    """Pairs of described images, in turn of equal and of different descriptions, each pair once."""
    ids = list(described)
    words = {image_id: normalise_description(text) for image_id, text in described.items()}
    drawn: set[frozenset[str]] = set()
    random = np.random.default_rng([seed, 1])
    for turn in range(JUDGEMENTS_PER_IMAGE * len(ids)):
        first = ids[turn % len(ids)]
        # Rounds differ, so that every image is asked about in an equal pair and in a different one.
        equal = (turn + turn // len(ids)) % 2 == 0
        others = [i for i in ids if i != first and (words[i] == words[first]) == equal]
        for _ in range(_SPREAD_TRIES if others else 0):
            second = others[int(random.integers(len(others)))]
            if frozenset((first, second)) not in drawn:
                drawn.add(frozenset((first, second)))
                yield (first, second), group_request(interest, described[first], (first,), second)
                break


def _draw_members(interest: str, described: dict[str, str], seed: int) -> Iterator[JudgeRequest]:
    """Described images, in turn in the group of their own description and in another one."""
    lessons = PseudoLabels(interest, described, {}, (), frozenset())
    groups = lessons.groups(list(described))
    names = sorted(groups)
    drawn: set[tuple[str, str]] = set()
    random = np.random.default_rng([seed, 2])
    ids = list(described)
    for turn in range(JUDGEMENTS_PER_IMAGE * len(ids)):
        candidate = ids[turn % len(ids)]
        words = lessons.words[candidate]
        if (turn + turn // len(ids)) % 2:
            others = [name for name in names if name != words]
            words = others[int(random.integers(len(others)))]
        if (words, candidate) not in drawn:
            drawn.add((words, candidate))
            yield _member_request(lessons, words, groups[words], candidate)


def _member_request(lessons: PseudoLabels, words: str, group: Sequence[str], candidate: str) -> JudgeRequest:
    exemplars = tuple(image_id for image_id in group if image_id != candidate)[:EXEMPLARS]
    return group_request(lessons.interest, lessons.spoken[words], exemplars, candidate)


def group_request(interest: str, name: str, exemplars: tuple[str, ...], candidate: str) -> JudgeRequest:
    """The question of the walk, about a group that is known by one description."""
    return JudgeRequest(interest, name, define_cluster(name, interest), exemplars, candidate)


# What training draws


def draw_batch(lessons: Sequence[PseudoLabels], step: int, rows: int, views: int, seed: int) -> Batch:
    """The batch of one step: interests take turns. Five eighths of the rows describe images, each once before any comes
    again; an eighth are judged pairs, to be described as well; a quarter judge membership."""
    one = lessons[step % len(lessons)]
    turn = step // len(lessons)
    random = np.random.default_rng([seed, 3, step])
    ids = list(one.soft_labels)
    many = rows - rows // 4 - rows // 8
    drawn = [_endless(ids, at, seed) for at in range(turn * many, turn * many + many)]
    judged = {pair: p for pair, p in one.pairs.items() if not one.held_out & set(pair)}
    together = [pair for pair in judged if set(pair) <= set(ids)]
    drawn += [i for k in random.permutation(len(together))[: rows // 16] for i in together[k]]
    looks = [
        _look(one, image_id, one.soft_labels[image_id], int(random.integers(views)))
        for image_id in dict.fromkeys(drawn)
    ]
    asked = [(request, p) for request, p in one.members if request.candidate_id not in one.held_out]
    likely = {image_id: soft_label[0][0] for image_id, soft_label in one.soft_labels.items()}
    judgements = [
        _judge(*_implied_of_any(one, likely, random), int(random.integers(views)))
        if k % 4 or not asked
        else _judge(*asked[int(random.integers(len(asked)))], int(random.integers(views)))
        for k in range(rows // 4)
    ]
    return Batch((*looks, *judgements), _pairs([(i.image_id, one.soft_labels[i.image_id]) for i in looks], judged))


def held_out_batches(lessons: Sequence[PseudoLabels], rows: int, seed: int) -> list[Batch]:
    """All that is held out, in batches of at most `rows` images: descriptions, their pairs, what the teacher judged of
    them, and what its descriptions imply."""
    batches: list[Batch] = []
    for one in lessons:
        random = np.random.default_rng([seed, 4])
        taken_back = one.contradicted
        said: dict[str, SoftLabel] = {
            image_id: ((one.words[image_id], 1.0),)
            for image_id in one.described
            if image_id in one.held_out and image_id not in taken_back
        }
        ids = list(said)
        for start in range(0, len(ids), rows):
            looks = [_look(one, image_id, said[image_id], 0) for image_id in ids[start : start + rows]]
            batches.append(Batch(tuple(looks), _pairs([(i.image_id, said[i.image_id]) for i in looks], one.pairs)))
        judged = [_judge(request, p, 0) for request, p in one.members if request.candidate_id in one.held_out]
        known = {image_id: one.words[image_id] for image_id in one.taught()}
        judged += [
            _judge(*_implied(one, image_id, said[image_id], known, random), 0) for image_id in ids for _ in range(2)
        ]
        batches += [Batch(tuple(judged[start : start + rows]), ()) for start in range(0, len(judged), rows)]
    return batches


def _endless(ids: Sequence[str], at: int, seed: int) -> str:
    """The image at a place of an endless row of shuffles of all of them."""
    epoch, place = divmod(at, len(ids))
    return ids[int(np.random.default_rng([seed, 5, epoch]).permutation(len(ids))[place])]


def _look(lessons: PseudoLabels, image_id: str, soft_label: SoftLabel, view: int) -> PseudoLabel:
    descriptions = tuple((lessons.spoken[words], p) for words, p in soft_label)
    return PseudoLabel(LookRequest(lessons.interest, image_id), descriptions, view=view)


def _judge(request: JudgeRequest, probability: float, view: int) -> PseudoLabel:
    return PseudoLabel(request, probability=probability, view=view)


def _implied(
    lessons: PseudoLabels, candidate: str, soft_label: SoftLabel, known: Mapping[str, str], random: np.random.Generator
) -> tuple[JudgeRequest, float]:
    """A membership that descriptions imply: an image in the group of what it most probably shows or, as often, in
    another one, with the probability of that. known: image id -> words, of the images that may be exemplars."""
    groups = _groups(known)
    shares = _firm(soft_label)
    words = soft_label[0][0]
    others = [name for name in sorted(groups) if name != words]
    if others and (random.random() < 0.5 or words not in groups):
        words = others[int(random.integers(len(others)))]
    return _member_request(lessons, words, groups.get(words, ()), candidate), shares.get(words, 0.0)


def _firm(soft_label: SoftLabel) -> dict[str, float]:
    powers = {words: p**FIRMNESS for words, p in soft_label}
    whole = sum(powers.values())
    return {words: power / whole for words, power in powers.items()}


def _implied_of_any(
    lessons: PseudoLabels, likely: Mapping[str, str], random: np.random.Generator
) -> tuple[JudgeRequest, float]:
    ids = list(likely)
    candidate = ids[int(random.integers(len(ids)))]
    return _implied(lessons, candidate, lessons.soft_labels[candidate], likely, random)


def _pairs(
    soft_labels: Sequence[tuple[str, SoftLabel]], judged: Mapping[tuple[str, str], float]
) -> tuple[tuple[int, int, float], ...]:
    """Every pair of these rows: as the teacher judged it, or the probability that their descriptions are equal."""
    found: list[tuple[int, int, float]] = []
    shares = [_firm(soft_label) for _, soft_label in soft_labels]
    for row, (first, _) in enumerate(soft_labels):
        for place, (second, _) in enumerate(soft_labels[:row]):
            implied = sum(p * shares[place].get(words, 0.0) for words, p in shares[row].items())
            found.append((row, place, judged.get((first, second), judged.get((second, first), implied))))
    return tuple(found)
