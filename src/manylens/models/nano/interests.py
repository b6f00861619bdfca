"""Interests that nano was taught, in words that a person would type, and of which pictures each is worth trying.

In: what kinds of picture there are, and what is seen on them. Out: interests, the general ones first. Promise: pure;
each text is read as the task of the bank that it stands for (`tests/test_nano_interests.py`). What a person looks like
to others (gender, age) is never suggested, though nano reads it where it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

GENERAL = (
    "kind of picture",
    "what the picture shows",
    "place",
    "indoors or outdoors",
    "activity",
    "number of people",
    "time of day",
    "weather",
    "animal",
    "food",
    "facial expression",
    "color of the object",
    "quality of the photo",
)
"""Every collection may be sorted by these."""

OF_DOMAINS: Mapping[str, tuple[str, ...]] = {
    "suit": ("card",),
    "rank of the card": ("card",),
    "color of the card": ("card",),
    "kind of fruit": ("fruit",),
    "color of the fruit": ("fruit",),
    "species of the flower": ("flowers",),
    "color of the flower": ("flowers",),
    "kind of clothing": ("clothing_kind", "fashion"),
    "color of the clothing": ("fashion",),
    "kind of vehicle": ("vehicle_kind", "cars_make_type", "vehicle_color9"),
    "color of the vehicle": ("vehicle_color9", "cars_make_type"),
    "body type of the car": ("cars_make_type",),
    "make of the car": ("cars_make_type",),
    "artistic medium": ("art_medium", "kind_of_image"),
    "dog breed": ("dog_breeds",),
    "big cat": ("big_cats",),
    "kind of blood cell": ("blood_cells",),
    "glasses": ("face_attributes", "cmuface"),
    "smile": ("face_attributes",),
    "hair color": ("face_attributes",),
    "hat or no hat": ("face_attributes",),
    "head pose": ("cmuface",),
    "dish": ("food_dishes",),
    "sweet or savory": ("food_dishes",),
    "piece of furniture": ("furniture_kind",),
    "room": ("rooms_places365",),
    "grocery item": ("grocery_items",),
    "kind of grocery": ("grocery_items",),
    "land use": ("ucm_aerial_captions",),
    "texture": ("textures",),
    "emoji category": ("emoji_category",),
    "traffic sign": ("road_signs",),
    "kind of road sign": ("road_signs",),
    "writing system": ("writing_system",),
    "alphabet of the handwritten character": ("handwritten_alphabet",),
    "good or defective": ("magnetic_tile_defects",),
    "magnetic tile defect": ("magnetic_tile_defects",),
    "steel surface defect": ("steel_defects",),
    "printed circuit board defect": ("pcb_defects",),
    "tomato leaf disease": ("tomato_leaf_disease",),
    "object": ("objects1000", "cifar10"),
}
"""Interests of some kinds of picture, by the sets on which nano was taught them."""

LEAST_DOMAIN = 0.08
"""Share of the pictures that must be of a kind for its own interests to be tried: with less, most get no answer."""

FEWEST_SEEN, LEAST_SEEN = 2, 0.1
"""A kind of thing ("kind of bird") is tried where at least two of its words were seen, on a tenth of the pictures."""


def taught(kinds: Sequence[str]) -> tuple[str, ...]:
    """All of them. kinds: the bank's tasks "kind of bird", ..., which are interests as they stand."""
    return tuple(dict.fromkeys([*GENERAL, *OF_DOMAINS, *kinds]))


def worth_trying(
    domains: Mapping[str, float], seen: Mapping[str, int], kinds: Mapping[str, frozenset[str]]
) -> tuple[str, ...]:
    """Interests for a collection. domains: kind of picture -> its share. seen: what the picture shows -> on how many.
    kinds: "kind of bird" -> the words that answer it."""
    own = [text for text, of in OF_DOMAINS.items() if sum(domains.get(kind, 0.0) for kind in of) >= LEAST_DOMAIN]
    pictures = sum(seen.values())
    there = []
    for text, words in kinds.items():
        found = [seen[word] for word in words if word in seen]
        if len(found) >= FEWEST_SEEN and sum(found) >= LEAST_SEEN * pictures:
            there.append((-sum(found), text))
    return tuple(dict.fromkeys([*own, *GENERAL, *(text for _, text in sorted(there))]))
