"""Looks as they are put into arrays: whatever comes in a batch, each image has its own."""

import numpy as np
import pytest

from manylens.errors import ModelError
from manylens.models.base import LookReply
from manylens.pipeline.look import _Found, gather_looks
from manylens.types import Interest

KIND = Interest("kind")


def reply(*numbers: float) -> LookReply:
    return LookReply(f"said {len(numbers)}", 0.5, np.array(numbers, np.float16))


def test_a_vector_is_of_unit_length_and_one_that_cannot_be_used_fails_alone() -> None:
    replies: list[LookReply | ModelError] = [
        reply(3, 4),
        reply(0, 0),
        ModelError("no reply"),
        reply(np.nan, 1),
        reply(1, 0, 0),
        reply(0, 2),
        reply(),
    ]
    ids = [f"{number}" for number in range(len(replies))]
    looks = gather_looks(KIND, ids, replies)
    assert looks.image_ids == ("0", "5") and looks.descriptions == ("said 2", "said 2")
    assert looks.embeddings.dtype == np.float32
    assert looks.embeddings == pytest.approx(np.array([[0.6, 0.8], [0, 1]]))
    assert dict(looks.failed) == {
        "1": "the embedding is zero or not finite",
        "2": "no reply",
        "3": "the embedding is zero or not finite",
        "4": "the embedding has 3 numbers where others have 2",
        "6": "the embedding is zero or not finite",
    }


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_length_that_most_have_counts_though_others_came_first_and_batches_change_nothing(batch: int) -> None:
    random = np.random.default_rng(0)
    replies = [reply(1, 0), *(reply(*random.standard_normal(3)) for _ in range(4))]
    found = _Found(5)
    for start in range(0, 5, batch):
        found.add(start, replies[start : start + batch], ())
    ids = [f"{number}" for number in range(5)]
    looks = found.looks(KIND, ids, range(5), ())
    assert looks.image_ids == ("1", "2", "3", "4")
    assert dict(looks.failed) == {"0": "the embedding has 2 numbers where others have 3"}
    one_by_one = gather_looks(KIND, ids, replies).embeddings
    assert looks.embeddings.tobytes() == one_by_one.tobytes()
    assert np.linalg.norm(looks.embeddings, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
