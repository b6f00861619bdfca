"""Replies as tests look at them, and writing tasks in the form of prompts, which is short to write down."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import ModelError
from manylens.models.base import CompleteReply, CompleteRequest, LookReply
from manylens.writing import (
    DescribedGroup,
    GroupDescriptions,
    MergeCategories,
    NameClusters,
    ShownCategory,
    SuggestInterests,
    WordOtherwise,
    WritingTask,
    Written,
    written_from_json,
    written_to_json,
)


def payload_of(task: object) -> Any:
    payload = json.loads(json.dumps(dataclasses.asdict(task)))  # type: ignore[call-overload]
    for cluster in payload.get("clusters", ()):
        cluster["descriptions"] = dict(cluster["descriptions"])
    return payload


def task_of(name: str, payload: Mapping[str, Any]) -> WritingTask:
    """What is not said is empty, but the interest and the level."""
    interest = payload.get("interest", "color")
    if name == "name_clusters":
        groups = (
            DescribedGroup(c["id"], c.get("size", 0), tuple(c["descriptions"].items())) for c in payload["clusters"]
        )
        return NameClusters(interest, tuple(groups), tuple(payload.get("taken", ())))
    if name == "suggest":
        return SuggestInterests(interest, tuple(map(tuple, payload["pictures"])), payload.get("most", 10))
    if name == "reword":
        return WordOtherwise(interest, tuple(map(tuple, payload["seen"])))
    level = payload.get("level", "medium")
    if name == "reconcile":
        shown = (ShownCategory(c["id"], c["name"], tuple(c.get("examples", ()))) for c in payload["categories"])
        return MergeCategories(interest, level, tuple(shown))
    categories, descriptions = payload.get("categories", ()), payload.get("descriptions", ())
    return GroupDescriptions(interest, level, payload.get("closed", False), tuple(categories), tuple(descriptions))


def request_of(name: str, payload: Mapping[str, Any]) -> CompleteRequest:
    task = task_of(name, payload)
    return CompleteRequest(task.interest, task)


def values_of(reply: CompleteReply | ModelError | Written) -> Any:
    """An answer, which must be one, as JSON values."""
    assert not isinstance(reply, ModelError), reply
    return json.loads(written_to_json(reply.written if isinstance(reply, CompleteReply) else reply))


def written_of(text: str | None) -> Written | None:
    """None where a text is no answer to any task."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return written_from_json(text)  # type: ignore[arg-type]
    return None


def embedding_of(look: LookReply) -> NDArray[np.float16]:
    """Of a look that must have one."""
    assert look.embedding is not None
    return look.embedding
