"""What nano says of its own understanding, and which tasks of its bank an interest asks for: no picture is seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

import manylens
from manylens.models.nano.bank import ANY_DOMAIN, LEAST_DOMAIN, SAME_KIND, Bank, Candidates, options_of
from manylens.models.nano.verdict import Signals, agreement, decide, foreseen
from manylens.models.text_embedder import TextEmbedder
from manylens.types import CANNOT_TELL, NOT_APPLICABLE

WEIGHTS = Path(manylens.__file__).parent / "models" / "nano"


GOOD = Signals(closeness=0.95, confidence=0.9, refused=0.0, agreement=0.95, far=1.0, spread=0.5)


def test_the_verdict_follows_from_the_signals_and_names_the_worst_of_them() -> None:
    assert decide(GOOD).word == "good"
    assert decide(GOOD).advice == ""
    refuses = decide(replace(GOOD, refused=1.0))
    assert refuses.word == "not understood"
    assert "100% of the pictures" in refuses.reason
    lost = decide(replace(GOOD, agreement=0.0, confidence=0.2, spread=0.1))
    assert lost.word == "not understood"
    assert "other words" in lost.reason
    assert "larger model" in lost.advice
    assert decide(Signals.nothing(0.9)).word == "not understood"


def test_what_is_known_to_be_hard_is_never_called_good() -> None:
    """Emotions of grey faces look like any other interest to all signals: only what was measured tells."""
    hard = decide(replace(GOOD, measured=0.2, right=0.62))
    assert hard.word == "check"
    assert "62% right" in hard.reason
    assert decide(replace(GOOD, measured=0.7, right=0.9)).word == "good"
    assert "another kind of picture (face)" in decide(replace(GOOD, measured=0.2, right=0.62, elsewhere="face")).reason
    lost = replace(GOOD, agreement=0.0, confidence=0.2, spread=0.1)
    assert decide(replace(lost, measured=0.2)).word == "not understood"
    assert "another kind of picture (face)" in decide(replace(lost, elsewhere="face")).reason


def test_answers_that_tell_little_are_never_called_good() -> None:
    """Smiles of foreign faces: two answers, right in 82% by its own account, of which no other signal warns."""
    unsure = decide(replace(GOOD, confidence=0.82, told=0.32))
    assert unsure.word == "check"
    assert "only a part" in unsure.reason
    assert decide(replace(GOOD, confidence=0.82, told=0.6)).word == "good"
    assert "most of them are wrong" in decide(replace(GOOD, confidence=0.45, told=0.6)).reason


def test_an_interest_that_is_taken_for_another_one_is_told() -> None:
    """Asked for countries, it answers with places: streets and kitchens."""
    taken = decide(replace(GOOD, read_as="place"))
    assert taken.word == "good"
    assert 'as "place"' in taken.reason
    assert "other words" in taken.advice


def test_how_much_answers_tell_is_measured_against_what_they_leave_open() -> None:
    halves = np.repeat([[0.8, 0.2], [0.2, 0.8]], 50, axis=0)
    assert foreseen(halves) == pytest.approx(1 + 0.8 * np.log2(0.8) + 0.2 * np.log2(0.2))
    assert foreseen(np.eye(4)) == 1
    tenths = np.full((10, 10), 0.2 / 9) + np.eye(10) * (0.8 - 0.2 / 9)
    assert foreseen(tenths) > 0.55 > foreseen(halves), "ten answers that are right in 80% tell more than two"
    assert foreseen(np.repeat([[0.99, 0.01]], 50, axis=0)) > 0.9, "pictures that are all alike leave nothing open"


def test_the_bank_says_what_is_hard() -> None:
    bank, embedder = Bank(WEIGHTS), TextEmbedder()
    for interest in ("decade of the car", "good or defective", "age impression"):
        may = bank.candidates(interest, embedder.embed([interest])[0], embedder.embed)
        assert np.nanmin(may.measured[:, 0]) < 0.45, interest
    for interest in ("suit", "weather", "writing system"):
        may = bank.candidates(interest, embedder.embed([interest])[0], embedder.embed)
        assert may.measured[may.weight[:, -1].argmax(), 0] > 0.6, interest


@pytest.mark.parametrize(
    ("wording", "task"),
    [
        ("who built the automobile", "make"),
        ("blossom color", "flowers.color"),
        ("camera mistakes", "photo_quality"),
        ("would inspection reject it", "defective"),
        ("recipe name", "food"),
        ("what is down there", "land_use"),
    ],
)
def test_a_wording_that_was_never_taught_asks_for_its_task(wording: str, task: str) -> None:
    """These are kept out of training, and the nearest wording of the bank is one of another task."""
    bank, vector = Bank(WEIGHTS), TextEmbedder().embed([wording])[0]
    assert bank.tasks[int(bank.nearness(vector).argmax())]["name"] != task
    assert bank.tasks[int(bank.asked(vector).argmax())]["name"] == task


def test_the_kind_of_picture_decides_between_tasks_and_the_refusals_compete_with_one_of_them() -> None:
    """Two sets of faces (0, 1), one of cards (2): a face of one set fits the other's task better than that of cards."""
    alike = np.zeros((3, 3), np.float32)
    alike[:2, :2] = SAME_KIND
    alike[2, 2] = SAME_KIND
    words = ("happy", "smiling", "red", "anything", NOT_APPLICABLE, CANNOT_TELL)
    weight = np.array(
        [[1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 1], [0, 0, 1, 0, 1, 1], [0, 0, 0, 1, 1, 1]], np.float32
    )  # fmt: skip
    may = Candidates(
        words, np.zeros((6, 384), np.float32), weight, np.array([0, 1, 2, -1]), alike,
        np.full((4, 2), np.nan, np.float32), ("face", "face", "card", ""), 1.0, "", np.zeros(384, np.float32),
    )  # fmt: skip
    domains = np.array([[1, 0, 0], [0, 0, 1]], np.float32)
    face, card = np.exp(may.prior(domains))
    assert may.fits(domains).tolist() == pytest.approx(
        np.array([[1, SAME_KIND, LEAST_DOMAIN, ANY_DOMAIN], [LEAST_DOMAIN, LEAST_DOMAIN, 1, ANY_DOMAIN]])
    )
    assert face == pytest.approx([1, SAME_KIND, 0, 0, 1, 1], abs=1e-6)  # words of tasks that fit hardly at all are out
    assert card == pytest.approx([0, 0, 1, 0, 1, 1], abs=1e-6)
    assert may.likeliest(domains[:1]) == (0, 1.0)


def test_agreement_is_the_adjusted_rand_index() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        one, two = random.integers(0, 4, (2, 30))
        assert agreement(one, two) == pytest.approx(max(0.0, adjusted_rand_score(one, two)))
    assert agreement(np.zeros(5, np.int64), np.zeros(5, np.int64)) == 1


def test_a_list_of_answers_that_were_never_taught_is_never_called_good() -> None:
    bank, embedder = Bank(WEIGHTS), TextEmbedder()
    for interest in ("a glorp, a frindle or a mubbet?", "full or empty", "letter or invoice"):
        may = bank.candidates(interest, embedder.embed([interest])[0], embedder.embed)
        assert not may.is_known, interest
        assert np.allclose(may.vectors[:-2], embedder.embed(options_of(interest)))
    unheard = decide(replace(GOOD, closeness=1.0, is_known=False))
    assert unheard.word == "check"
    assert "none that the model was taught" in unheard.reason
