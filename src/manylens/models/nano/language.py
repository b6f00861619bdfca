"""Whether an interest is in words that nano reads: English. Said before anything runs.

In: an interest, how near it is to what nano was taught, and a tokenizer's pieces. Out: what is wrong with the words, or
nothing. Promise: pure, without a list of any language's words but the few that bind a sentence together.

Foreign letters are certain. In Latin letters a text is doubtful where it has words that bind sentences of another
language and none that bind English ones, or where most of it falls apart in the pieces of an English vocabulary and it
is near nothing that nano was taught. On 615 English wordings kept out of nano's training 2% are doubted, of interests
in other languages 9 of 10 (docs/explanation/nano.md).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection

_LATIN_ENDS = 0x250
_WORD = re.compile(r"[^\W\d_]+")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ENGLISH = _set(
    "the of a an is are was were be been what which who whom how where when why does do did in on at to from "
    "with by and or not no it its this that these those there their they he she his her for as vs into "
)
_OTHERS = _set(
    # German and Dutch, French, Spanish and Portuguese, Italian, Polish, Turkish, Swedish; then what several share
    "der die das dem den und oder ein eine einer eines im vom zum ist sind wie wo wer welche welcher welches "
    "für mit bei auf nach ob het een van wat waar met op voor le les du des une et ou où est sont ce cette que "
    "qui quel quelle quels quelles dans sur pour avec el los las del al uno con por qué cuál il lo gli dei "
    "della dello delle dell di è che nel nella da dos das um uma são na jest gdzie ve bir och eller av på vad "
    "som la un es en i y e o de l d z w "
)
_ALSO_ENGLISH = _set("die la un es en i y e o l d z w al na da op me das ")
"""Of those, what may stand in English, too, as a letter or a name: alone it proves nothing."""

MOSTLY = 0.5
"""From this share of its letters on, in words that fall apart, a text is doubtful."""
NEAR = 0.55
"""What is as near as this, by cosine, to something that nano was taught is not doubted for its spelling."""


def problem(interest: str, nearness: float, known: Collection[str], falls_apart: Callable[[str], bool]) -> str:
    """Why nano may not read the interest, as the end of a sentence about it; empty where it does.

    nearness: cosine to the nearest wording that nano was taught. known: words of its answers, which are English
    however rare they are. falls_apart: whether a word is no word of an English vocabulary.
    """
    letters = [c for c in interest if unicodedata.category(c).startswith("L")]
    if any(ord(c) >= _LATIN_ENDS for c in letters):
        return "is in letters that nano does not read"
    words = [word.casefold() for word in _WORD.findall(unicodedata.normalize("NFC", interest))]
    binds = [word for word in words if word in _OTHERS and word not in _ENGLISH]
    is_bound = any(word in _ENGLISH for word in words)
    accents = any(ord(c) > 127 for c in letters)
    odd = [word for word in words if word not in known and word not in _ENGLISH and falls_apart(word)]
    share = sum(map(len, odd)) / max(1, sum(map(len, words)))
    proven = any(word not in _ALSO_ENGLISH for word in binds)
    doubtful = (not is_bound and (proven or accents or (bool(binds) and (share > 0.2 or nearness < NEAR)))) or (
        share > MOSTLY and nearness < NEAR
    )
    return "does not look like English" if doubtful else ""
