"""Stage 1, look: the model reads each image once through each interest.

In: image ids, interests, a model. Out: one `Looks` per interest. Promise: the work is ordered image by image (all
interests of one image one after the other), so that a server's prefix cache and nano's visual features serve them all;
a failing look never sinks the others, it ends in `Looks.failed` with its reason; where the budget ends before the
images do, the rest is in `Looks.not_looked`, through all interests alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import BudgetSpent, ModelError, ModelUnavailable, public_reason
from manylens.events import Event, StageAdvanced, StageFinished, StageStarted
from manylens.method.observations import Looks, normalise_description
from manylens.models.base import LookReply, LookRequest, Model, count_tokens, look_whole
from manylens.pipeline.budget import Budget
from manylens.text import counted
from manylens.types import NO_TOKENS, Interest

IMAGES_PER_BATCH = 64
"""Images per call of `model.look`. A wrapper may split it further; larger batches only delay the progress bar."""

_ROUNDS_PER_BATCH = 16
"""A model that is asked side by side gets at least this many requests a place at once: the last of a batch leave places
empty."""


async def look_at_images(
    image_ids: Sequence[str],
    interests: Sequence[Interest],
    model: Model,
    emit: Callable[[Event], None],
    budget: Budget | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> dict[Interest, Looks]:
    """Look at every image through every interest (the paper's description and H(u)); emits the events of stage `look`.

    Repeated image ids and interests are looked at once. stand_ins: image id -> the image whose look serves it.
    """
    every = sorted(set(image_ids))
    serves = {image_id: (stand_ins or {}).get(image_id, image_id) for image_id in every}
    ids = sorted(set(serves.values()))
    distinct = list(dict.fromkeys(interests))
    found = {interest: _Found(len(ids)) for interest in distinct}
    unsent: set[int] = set()
    for interest in distinct:
        emit(StageStarted("look", interest.text, len(ids)))
    known = model.capabilities
    at_once = known.concurrency * known.batch_size if known.concurrency > 1 else 1
    batch = max(IMAGES_PER_BATCH, known.batch_size, _ROUNDS_PER_BATCH * at_once)
    looked, is_spent = 0, False
    while looked < len(ids):
        images = ids[looked : looked + batch]
        requests = [LookRequest(interest.text, image_id) for image_id in images for interest in distinct]
        if budget is not None and not is_spent:
            # An image is looked at through all interests or none.
            admitted = budget.admit(requests, budget.part(1.0), len(distinct))
            is_spent = not admitted
            requests = requests[: admitted or len(requests)]
            if is_spent and not budget.is_kept:
                break
        # What an earlier run was answered is paid for, whatever the limit has been spent on since.
        with budget.closed() if budget is not None and is_spent else nullcontext():
            answers = await _look(model, requests)
        if budget is not None:
            for request, answer in zip(requests, answers, strict=True):
                budget.charge(request, answer)
        each = [answers[which :: len(distinct)] for which in range(len(distinct))]
        unsent |= {looked + at // len(distinct) for at, reply in enumerate(answers) if isinstance(reply, BudgetSpent)}
        for interest, replies in zip(distinct, each, strict=True):
            found[interest].add(looked, replies, unsent)
        looked += len(requests) // len(distinct)
        for interest in distinct if not is_spent else ():
            emit(StageAdvanced("look", interest.text, looked, len(ids)))
    at = {image_id: place for place, image_id in enumerate(ids[:looked]) if place not in unsent}
    served = [image_id for image_id in every if serves[image_id] in at]
    left_out = [image_id for image_id in every if serves[image_id] not in at]
    places = [at[serves[image_id]] for image_id in served]
    looks = {interest: found.pop(interest).looks(interest, served, places, left_out) for interest in distinct}
    for interest, seen in looks.items():
        described = counted(len(seen), "picture")
        failed = f", {len(seen.failed):,} failed" if seen.failed else ""
        left = f", {len(seen.not_looked):,} not reached: the budget was spent" if seen.not_looked else ""
        emit(StageFinished("look", interest.text, f"{described} described{failed}{left}"))
    return looks


async def _look(model: Model, requests: Sequence[LookRequest]) -> Sequence[LookReply | ModelError]:
    try:
        return await look_whole(model, requests)
    except ModelUnavailable:
        raise
    except ModelError as error:
        # The protocol puts errors in their place; a model that raises one has failed on the whole batch.
        return [error] * len(requests)


class _Found:
    """The looks of one interest as they come in, in arrays: a million replies are not kept."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._descriptions: list[str] = []
        self._words: list[str] = []
        self._known: dict[str, tuple[str, str]] = {}
        self._confidences = np.zeros(images)
        self._vectors = np.zeros((images, 0), dtype=np.float32)
        self._strays: dict[int, NDArray[np.float32]] = {}
        """Vectors of another length than the first one had: few, or none."""
        self._sizes: Counter[int] = Counter()
        self._size_of = np.zeros(images, dtype=np.int64)
        self._failed: dict[int, str] = {}
        self._tokens = NO_TOKENS

    def add(self, first: int, replies: Sequence[LookReply | ModelError], unsent: Collection[int]) -> None:
        """The replies to the looks at the images from place `first` on; those at places `unsent` are not used."""
        self._tokens += count_tokens([reply for at, reply in enumerate(replies, first) if at not in unsent])
        given: dict[int, tuple[list[int], list[NDArray[Any]]]] = {}
        for at, reply in enumerate(replies, first):
            if isinstance(reply, ModelError):
                self._failed[at] = public_reason(reply)
                shown, words = "", ""
            else:
                shown, words = self._read(reply.description)
                self._confidences[at] = reply.confidence
                vector = np.asarray(() if reply.embedding is None else reply.embedding).reshape(-1)
                places, vectors = given.setdefault(vector.size, ([], []))
                places.append(at)
                vectors.append(vector)
            self._descriptions.append(shown)
            self._words.append(words)
        for size, (places, vectors) in given.items():
            self._take(size, np.array(places), np.array(vectors, dtype=np.float32))

    def _read(self, description: str) -> tuple[str, str]:
        """Equal texts are one object: most are said of many images."""
        if description not in self._known:
            self._known[description] = " ".join(description.split()), normalise_description(description)
        return self._known[description]

    def _take(self, size: int, places: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Vectors of one length, a row for each place."""
        self._sizes[size] += len(places)
        self._size_of[places] = size
        if not self._vectors.shape[1]:
            self._vectors = np.empty((self._images, size), dtype=np.float32)
        norms = np.sqrt(np.array([row.dot(row) for row in rows], dtype=np.float32))
        usable = np.isfinite(norms) & (norms > 0)
        self._failed |= dict.fromkeys(places[~usable].tolist(), "the embedding is zero or not finite")
        unit: NDArray[np.float32] = np.divide(rows[usable], norms[usable, None], dtype=np.float32)
        if size == self._vectors.shape[1]:
            self._vectors[places[usable]] = unit
        else:
            self._strays |= dict(zip(places[usable].tolist(), unit, strict=True))

    def looks(
        self, interest: Interest, image_ids: Sequence[str], places: Sequence[int], not_looked: Sequence[str]
    ) -> Looks:
        """places: of the look that serves each image. A reply whose embedding is not finite, is zero, or has another
        length than most is unusable: it counts as failed."""
        dimensions = max(sorted(self._sizes), key=self._sizes.__getitem__, default=0)
        for at in np.flatnonzero((self._size_of != dimensions) & (self._size_of > 0)).tolist():
            self._failed[at] = f"the embedding has {self._size_of[at]} numbers where others have {dimensions}"
        seen = [(image_id, at) for image_id, at in zip(image_ids, places, strict=True) if at not in self._failed]
        rows = np.array([at for _, at in seen], dtype=np.int64)
        vectors = self._vectors
        if vectors.shape[1] != dimensions:
            vectors = np.zeros((self._images, dimensions), dtype=np.float32)
            for at in rows.tolist():
                vectors[at] = self._strays[at]
        return Looks(
            interest=interest,
            image_ids=tuple(image_id for image_id, _ in seen),
            descriptions=tuple(self._descriptions[at] for _, at in seen),
            words=tuple(self._words[at] for _, at in seen),
            confidences=np.clip(np.nan_to_num(self._confidences[rows]), 0, 1).astype(np.float32),
            embeddings=vectors if np.array_equal(rows, np.arange(self._images)) else vectors[rows],
            failed=tuple(
                (image_id, self._failed[at])
                for image_id, at in zip(image_ids, places, strict=True)
                if at in self._failed
            ),
            not_looked=tuple(not_looked),
            tokens=self._tokens,
        )


def gather_looks(
    interest: Interest,
    image_ids: Sequence[str],
    replies: Sequence[LookReply | ModelError],
    not_looked: Sequence[str] = (),
) -> Looks:
    """Put the replies (in the order of `image_ids`, which are sorted) into arrays."""
    found = _Found(len(replies))
    found.add(0, replies, ())
    return found.looks(interest, image_ids, range(len(replies)), not_looked)
