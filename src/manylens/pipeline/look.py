"""Stage 1, look: the model reads each image once through each interest.

In: image ids, interests, a model. Out: one `Looks` per interest. Promise: the work is ordered image by image (all
interests of one image one after the other), so that a server's prefix cache and nano's visual features serve them all;
a failing look never sinks the others, it ends in `Looks.failed` with its reason; where the budget ends before the
images do, the rest is in `Looks.not_looked`, through all interests alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from manylens.errors import BudgetSpent, ModelError, ModelUnavailable, public_reason
from manylens.events import Event, StageAdvanced, StageFinished, StageStarted
from manylens.method.observations import Looks, normalise_description
from manylens.models.base import LookReply, LookRequest, Model, count_tokens, look_whole
from manylens.pipeline.budget import Budget
from manylens.text import counted
from manylens.types import Interest

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
    replies: dict[Interest, list[LookReply | ModelError]] = {interest: [] for interest in distinct}
    for interest in distinct:
        emit(StageStarted("look", interest.text, len(ids)))
    known = model.capabilities
    at_once = known.concurrency * known.batch_size if known.concurrency > 1 else 1
    batch = max(IMAGES_PER_BATCH, _ROUNDS_PER_BATCH * at_once)
    looked = 0
    while looked < len(ids):
        images = ids[looked : looked + batch]
        requests = [LookRequest(interest.text, image_id) for image_id in images for interest in distinct]
        if budget is not None:
            # An image is looked at through all interests or none.
            requests = requests[: budget.admit(requests, budget.part(1.0), len(distinct))]
        if not requests:
            break
        answers = await _look(model, requests)
        for position, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            replies[distinct[position % len(distinct)]].append(answer)
            if budget is not None:
                budget.charge(request, answer)
        looked += len(requests) // len(distinct)
        for interest in distinct:
            emit(StageAdvanced("look", interest.text, looked, len(ids)))
    at = {
        image_id: place
        for place, image_id in enumerate(ids[:looked])
        if not any(isinstance(replies[interest][place], BudgetSpent) for interest in distinct)
    }
    served = [image_id for image_id in every if serves[image_id] in at]
    left_out = [image_id for image_id in every if serves[image_id] not in at]
    looks = {
        interest: gather_looks(interest, served, [replies[interest][at[serves[i]]] for i in served], left_out)
        for interest in distinct
    }
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


def gather_looks(
    interest: Interest,
    image_ids: Sequence[str],
    replies: Sequence[LookReply | ModelError],
    not_looked: Sequence[str] = (),
) -> Looks:
    """Put the replies (in the order of `image_ids`, which are sorted) into arrays.

    A reply whose embedding is not finite, is zero, or has another length than most is unusable: it counts as failed.
    """
    vectors = [None if isinstance(reply, ModelError) else reply.embedding for reply in replies]
    lengths = [vector.size for vector in vectors if vector is not None]
    dimensions = max(sorted(set(lengths)), key=lengths.count, default=0)
    seen: list[tuple[str, LookReply, NDArray[np.float32]]] = []
    failed: list[tuple[str, str]] = []
    for image_id, reply, given in zip(image_ids, replies, vectors, strict=True):
        if isinstance(reply, ModelError):
            failed.append((image_id, public_reason(reply)))
            continue
        vector = np.asarray([] if given is None else given, dtype=np.float32).reshape(-1)
        norm = float(np.linalg.norm(vector))
        if vector.size != dimensions:
            failed.append((image_id, f"the embedding has {vector.size} numbers where others have {dimensions}"))
        elif not np.isfinite(norm) or norm == 0:
            failed.append((image_id, "the embedding is zero or not finite"))
        else:
            seen.append((image_id, reply, vector / np.float32(norm)))
    return Looks(
        interest=interest,
        image_ids=tuple(image_id for image_id, _, _ in seen),
        descriptions=tuple(" ".join(reply.description.split()) for _, reply, _ in seen),
        words=tuple(normalise_description(reply.description) for _, reply, _ in seen),
        confidences=np.clip(np.nan_to_num([reply.confidence for _, reply, _ in seen]), 0, 1).astype(np.float32),
        embeddings=np.array([row for _, _, row in seen], dtype=np.float32).reshape(len(seen), dimensions),
        failed=tuple(failed),
        not_looked=tuple(not_looked),
        tokens=count_tokens(list({id(reply): reply for reply in replies}.values())),  # a shared look costs once
    )
