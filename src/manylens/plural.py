"""Numbers with the noun they count: "1 image", "2,000 images". Pure."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """many: the plural where it is not `one` with an s; either may go on with a verb, "image has" and "images have"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
