"""What nano says of interests before it reads a picture through them: which it was taught, and whose words it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Image as Picture

from manylens.models.nano.interests import GENERAL, OF_DOMAINS, worth_trying
from manylens.models.nano.model import Nano


class Plain:
    """Pictures of one color each."""

    def thumbnail(self, image_id: str) -> Picture:
        shade = int(image_id)
        return Image.fromarray(np.full((64, 64, 3), shade, np.uint8))

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        raise NotImplementedError


@pytest.fixture(scope="module")
def nano() -> Nano:
    return Nano(Plain())


def test_every_interest_that_is_suggested_is_one_that_nano_was_taught(nano: Nano) -> None:
    for text in [*GENERAL, *OF_DOMAINS, *nano._bank.kinds]:
        assert nano._bank.nearness(nano._embedding(text)).max() > 0.9, text
    assert {kind for kinds in OF_DOMAINS.values() for kind in kinds} <= set(nano._bank.domains)


@pytest.mark.parametrize(
    "text",
    ["mood of the person", "color", "kind of place", "which kind of pip does the card show?", "café or restaurant",
     "eyewear", "what's for dinner", "landscape orientation", "who is in it", "suit"],
)  # fmt: skip
def test_english_is_not_doubted(nano: Nano, text: str) -> None:
    assert nano.doubt(text) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Farbe des Autos", "English"),
        ("Stimmung", "English"),
        ("couleur de la voiture", "English"),
        ("estado de ánimo", "English"),
        ("rodzaj zwierzęcia", "English"),
        ("цвет машины", "letters"),
        ("果物の種類", "letters"),
        ("اللون", "letters"),
    ],
)
def test_other_languages_are_doubted(nano: Nano, text: str, why: str) -> None:
    assert why in nano.doubt(text)


def test_a_collection_of_faces_is_not_sorted_by_suit() -> None:
    kinds = {"kind of bird": frozenset({"robin", "swan", "hen"})}
    found = worth_trying({"face_attributes": 0.9, "card": 0.01}, {"robin": 1, "person": 30}, kinds)
    assert found[: found.index(GENERAL[0])] == ("glasses", "smile", "hair color", "hat or no hat")
    assert "suit" not in found
    assert "kind of bird" not in found  # one of them, once
    assert "kind of bird" in worth_trying({}, {"robin": 3, "swan": 2, "person": 9}, kinds)


def test_nano_names_what_is_near_an_interest(nano: Nano) -> None:
    assert nano.wordings("what the dog breed is")[0] == "dog breed"
    assert nano.wordings("hat")[0] == "hat or no hat"
    assert "dog breed" not in nano.wordings("Dog breed")


def test_of_no_pictures_nothing_is_worth_trying(nano: Nano, tmp_path: Path) -> None:
    assert nano.interests([]) == ()
    assert set(GENERAL) <= set(nano.interests(["3", "90", "200"]))
