"""Words for people: numbers with the noun they count, plurals, names that may be shown. Pure."""

from __future__ import annotations

import re
import unicodedata


def counted(number: int, one: str, many: str | None = None) -> str:
    """many: the plural where it is not `one` with an s; either may go on with a verb, "image has" and "images have"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def spoken_seconds(low: float, high: float) -> str:
    """ "about 2 minutes", "20 to 45 seconds": as exact as a forecast is."""
    if high < 2:
        return "a moment"
    unit, length = next((unit, length) for unit, length in _UNITS if high < 99 * length or length == 3600)
    few, many = (_rounded(seconds / length) for seconds in (low, high))
    if few == many:
        return f"about {many:,} {unit if many == 1 else unit + 's'}"
    return f"{few:,} to {many:,} {unit}s"


_UNITS = (("second", 1), ("minute", 60), ("hour", 3600))


def _rounded(number: float) -> int:
    """At least 1; from 20 on a multiple of 5, from 200 on of 50."""
    step = 1 if number < 20 else 5 if number < 200 else 50
    return max(1, round(number / step) * step)


def spoken_dollars(low: float, high: float) -> str:
    """ "about $0.40", "$0.40 to $0.60", "less than a cent"."""
    if high < 0.01:
        return "less than a cent"
    few, many = f"${low:,.2f}", f"${high:,.2f}"
    return f"about {many}" if few == many else f"{few} to {many}"


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "5 h 12 min", "2 days 3 h": as long as matters for a wait."""
    minutes, hours, days = round(seconds / 60), int(seconds / 3600 + 1e-9), int(seconds / 86_400 + 1e-9)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    if days < 2:
        return f"{hours} h {minutes - 60 * hours} min"
    return f"{days} days {round((seconds - 86_400 * days) / 3600)} h"


_NO_PLURALS = {"atlas", "canvas", "christmas", "lens", "news", "series", "species"}
_NO_PLURALS |= {"eyeglasses", "glasses", "sunglasses", "shorts"}
"""Words that end like a plural and are none, or mean something else in the singular."""

_IRREGULAR = {"men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth", "mice": "mouse"}

_PLURALS = tuple(
    (re.compile(plural), singular)
    for plural, singular in (
        (r"(?:ss|us|is)$", None),
        # Singulars in -ie, -oe and -che, then those in -y, -o and -ch, which are more.
        (r"((?:cook|mov|zomb|self|hood|brown|smooth|calor|prair|rook|magp|neckt|bowt|^.)ie)s$", r"\1"),
        (r"ies$", "y"),
        (r"(shoe|canoe|oboe|mistletoe|^..?oe)s$", r"\1"),
        (r"((?<![aeo])ache|avalanche|niche|quiche|^axe)s$", r"\1"),
        (r"(ss|x|ch|sh|[^aeiou]o|[bcimnprt]us|gas|lens|iris|atlas|canvas)es$", r"\1"),
        (r"(lea|loa|thie|el|wol|hal|cal|scar|dwar|hoo)ves$", r"\1f"),
        (r"(kni|wi|(?<!o)li)ves$", r"\1fe"),
        (r"s$", ""),
    )
)


def singular(word: str) -> str:
    """An English noun's singular, to compare words by; a word that is no plural as it is. Lower case.

    A stemmer would not do: it takes "painter" and "paint", "glasses" and "glass" for one.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word in _NO_PLURALS:
        return word
    for plural, one in _PLURALS:
        if plural.search(word):
            return word if one is None else plural.sub(one, word)
    return word


def printable(path: str) -> str:
    """A path that can be written as UTF-8: bytes of a file name that are no UTF-8 become `\\udcXX`, all else stays."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


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


def slug_of(text: str) -> str:
    """The text in lower case, every character that is not a letter or digit replaced by `-`, trimmed of `-`."""
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")


def sure_share(confidence: float) -> str:
    """A confidence as a whole percentage; what is not certain is never called 100% sure."""
    return f"{confidence if confidence >= 1 else min(confidence, 0.99):.0%}"
