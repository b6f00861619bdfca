"""Numbers with the noun they count: "1 image", "2,000 images". Pure."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath


def counted(number: int, one: str, many: str | None = None) -> str:
    """many: the plural where it is not `one` with an s; either may go on with a verb, "image has" and "images have"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def printable(path: str) -> str:
    """A path that can be written as UTF-8: bytes of a file name that are no UTF-8 become `\\udcXX`, all else stays."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def public_name(model: str) -> str:
    """A model's name as files that are passed on have it: of an absolute path (`nano:/home/me/tuned/nano`) the end."""
    kind, colon, place = model.partition(":")
    is_path = PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute() or place.startswith("~")
    return f"{kind}{colon}{PureWindowsPath(place).name}" if is_path else model


_JOINERS = "\u200c\u200d"


def shown_name(text: str) -> str:
    """The text as it may be shown to a person: control, line-breaking, direction-changing, invisible and undecodable
    characters are written as escapes, so that no name can forge a line of a table or hide its ending."""
    return "".join(_shown_character(c) for c in text)


def _shown_character(c: str) -> str:
    # Cf other than the joiners, which emoji and several scripts need, is invisible or changes direction.
    hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in _JOINERS
    if not hidden:
        return c
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c) or (
        f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}"
    )
