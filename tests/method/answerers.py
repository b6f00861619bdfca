"""Worlds whose truth is known, and judges of known faults, for the tests of the method's pure stages.

A judge depends on image ids and on the question alone, never on indices or on the order of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from replies import written_of

from manylens.method.check import Check
from manylens.method.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE
from manylens.method.observations import Looks, normalise_description, seeded_share
from manylens.method.questions import Answer, Choice, Question, Steps
from manylens.method.sorting import NONE, Cluster, Sorting
from manylens.method.trial import Trial, try_judge
from manylens.method.walk import EdgeScale, Units, walk
from manylens.settings import Settings
from manylens.types import Interest
from manylens.writing import WritingTask

T = TypeVar("T")
Judge = Callable[[Question], Answer]

EDGE = EdgeScale(DEFAULT_EDGE_SCALE, DEFAULT_EDGE_OFFSET)
SURE = 0.97
FAILED = Answer()
SPENT = Answer(spent=True)


def looks_of(
    descriptions: Sequence[str],
    embeddings: np.ndarray | None = None,
    confidences: Sequence[float] | None = None,
    ids: Sequence[str] | None = None,
) -> Looks:
    """Image k has the id `kkkk`; without embeddings, equal descriptions get equal ones, different ones orthogonal."""
    words = [normalise_description(description) for description in descriptions]
    if embeddings is None:
        kinds = sorted(set(words))
        embeddings = np.eye(max(2, len(kinds)))[[kinds.index(said) for said in words]]
    rows = np.asarray(embeddings, dtype=np.float64)
    return Looks(
        interest=Interest("suit"),
        image_ids=tuple(ids) if ids is not None else tuple(f"{number:04d}" for number in range(len(words))),
        descriptions=tuple(descriptions),
        words=tuple(words),
        confidences=np.asarray([0.9] * len(words) if confidences is None else confidences, dtype=np.float32),
        embeddings=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
    )


@dataclass(frozen=True)
class World:
    """truth: the kind of each image, by image id."""

    looks: Looks
    truth: dict[str, str]

    def kinds(self) -> list[str]:
        return [self.truth[image_id] for image_id in self.looks.image_ids]

    def renamed(self, order: Sequence[int]) -> World:
        """The same images in another order: the image at `order[k]` gets the id of place k."""
        old, ids = self.looks, self.looks.image_ids
        looks = looks_of(
            [old.descriptions[i] for i in order], old.embeddings[list(order)], old.confidences[list(order)].tolist()
        )
        return World(looks, {ids[place]: self.truth[ids[i]] for place, i in enumerate(order)})


def make_world(
    kinds: int,
    images: int,
    *,
    wordings: int = 1,
    spread: float = 0.35,
    misdescribed: float = 0.0,
    seed: int = 0,
) -> World:
    """Images of equally many of each kind. A kind has several wordings, whose directions have `spread` of noise about
    the kind's; a share of the images, mostly the less sure ones, has a wording of another kind."""
    random = np.random.default_rng([seed, 3])
    centres = np.linalg.qr(random.standard_normal((48, 48)))[0][:kinds]
    noise = random.standard_normal((kinds, wordings, 48))
    vectors = centres[:, None, :] + spread * noise / np.linalg.norm(noise, axis=2, keepdims=True)
    truth, said, rows, confidences = [], [], [], []
    for image in range(images):
        kind = image % kinds
        wrong = random.random() < misdescribed
        seen = (kind + 1 + int(random.integers(kinds - 1))) % kinds if wrong else kind
        wording = int(random.integers(wordings))
        truth.append(f"kind{kind}")
        said.append(f"kind{seen} word{wording}")
        rows.append(vectors[seen, wording])
        confidences.append(0.6 if wrong and random.random() < 0.7 else 0.9)
    looks = looks_of(said, np.array(rows), confidences)
    return World(looks, dict(zip(looks.image_ids, truth, strict=True)))


class Truthful:
    """Chooses the option of the image's kind, or none. `wrong`: the share of questions, by seeded hash, that it answers
    otherwise. An option is of the kind that most of its exemplars have; without exemplars, of its name."""

    def __init__(self, world: World, wrong: float = 0.0, seed: int = 0) -> None:
        self.world, self.wrong, self.seed = world, wrong, seed
        self.asked: list[Choice] = []

    def __call__(self, question: Question) -> Answer:
        assert isinstance(question, Choice)
        self.asked.append(question)
        ids, truth = self.world.looks.image_ids, self.world.truth
        kind = truth[ids[question.image]]
        right = len(question.options)
        for at, option in enumerate(question.options):
            kinds = [truth[ids[i]] for i in option.exemplars] or [option.name]
            if max(kinds, key=kinds.count) == kind:
                right = at
                break
        key = identity(self.world.looks, question)
        if seeded_share(self.seed, "slip", key) < self.wrong:
            others = [at for at in range(len(question.options) + 1) if at != right]
            right = others[int(seeded_share(self.seed, "which", key) * len(others))]
        return choose(right, len(question.options))


def identity(looks: Looks, question: Choice) -> str:
    """What tells a question from all others, in image ids."""
    shown = [(option.name, [looks.image_ids[i] for i in option.exemplars]) for option in question.options]
    return f"{looks.image_ids[question.image]} {shown}"


def choose(at: int, options: int, sure: float = SURE) -> Answer:
    """An answer that is `sure` of one option; `at` = options is none of them."""
    rest = (1 - sure) / options
    return Answer(tuple(sure if k == at else rest for k in range(options + 1)))


def always_first(question: Question) -> Answer:
    assert isinstance(question, Choice)
    return choose(0, len(question.options))


def always_none(question: Question) -> Answer:
    assert isinstance(question, Choice)
    return choose(len(question.options), len(question.options))


class AtRandom:
    """Any option or none, by seeded hash of the question."""

    def __init__(self, world: World, seed: int = 0) -> None:
        self.world, self.seed = world, seed

    def __call__(self, question: Question) -> Answer:
        assert isinstance(question, Choice)
        share = seeded_share(self.seed, "random", identity(self.world.looks, question))
        return choose(int(share * (len(question.options) + 1)), len(question.options))


class SameForAll:
    """The same kind whatever the image, wherever it stands among the options."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, question: Question) -> Answer:
        assert isinstance(question, Choice)
        at = min(range(len(question.options)), key=lambda k: question.options[k].name)
        return choose(at, len(question.options))


def within(judge: Judge, calls: int) -> Judge:
    """A judge with a budget."""
    left = [calls]

    def answer(question: Question) -> Answer:
        left[0] -= 1
        return judge(question) if left[0] >= 0 else SPENT

    return answer


def drive(steps: Steps[T], judge: Judge, rounds: list[list[Question]] | None = None) -> T:
    """Answer a stage's questions until it returns."""
    try:
        questions = next(steps)
        while True:
            if rounds is not None:
                rounds.append(list(questions))
            questions = steps.send([judge(question) for question in questions])
    except StopIteration as end:
        result: T = end.value
        return result


def write_with(reply: Callable[[WritingTask], str | None]) -> Judge:
    """A judge for tasks of writing."""

    def answer(question: Question) -> Answer:
        assert not isinstance(question, Choice)
        return Answer(written=written_of(reply(question)))

    return answer


def units_of(looks: Looks, settings: Settings | None = None) -> Units:
    return walk(looks, EDGE, settings or Settings())


def begin(
    looks: Looks,
    *,
    price: float = 1 / 7,
    categories: Sequence[int] | None = None,
    names: Sequence[str] = (),
    into: Sequence[str] = (),
    seed: int = 0,
    exemplars: int = 3,
) -> Check:
    """A check whose first clusters are founded, as the pipeline does it."""
    kinds = None if categories is None else np.array(categories, dtype=np.int64)
    sorting = Sorting(looks, units_of(looks, Settings(seed=seed)), EDGE, kinds, price=price, exemplars=exemplars)
    check = Check(sorting, seed, closed=bool(into))
    for number, name in enumerate(into):
        sorting.add(Cluster(NONE, name, category=number))
    if not into:
        check.seed_clusters(names)
    return check


def sort_all(check: Check, judge: Judge, rounds: list[list[Question]] | None = None) -> Trial:
    """Try the judge, then check or settle unasked, as the pipeline does it."""
    trial = drive(try_judge(check), judge, rounds)
    if trial.tells:
        drive(check.run(), judge, rounds)
    else:
        check.settle_unasked()
    return trial


def clusters_of(sorting: Sorting) -> list[int]:
    """The cluster of each image; images without one are each alone."""
    found = [sorting.cluster_of(image) for image in range(len(sorting.looks))]
    return [cluster if cluster != NONE else -2 - image for image, cluster in enumerate(found)]


def parts(labels: Sequence[object], ids: Sequence[str]) -> set[frozenset[str]]:
    """A partition as sets of image ids."""
    found: dict[object, set[str]] = {}
    for label, image_id in zip(labels, ids, strict=True):
        found.setdefault(label, set()).add(image_id)
    return {frozenset(part) for part in found.values()}
