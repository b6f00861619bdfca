"""What the server of `chat_server` writes where it is asked to: a writer that knows some synonyms and no picture.

In: the words of a chat request. Out: the reply as JSON. Promise: it goes by what stands in the prompt alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

WRITES = {
    "suggest": '"interests"',
    "reword": '"wordings"',
    "vocabulary": '"no_answer"',
    "reconcile": '"groups"',
    "names": '"clusters"',
}
"""Kind of a request -> what its instruction says of the reply."""

SILENT = ("n/a", "not visible", "unknown", "unclear", "cannot tell", "i cannot tell", "i cannot tell from this picture")

_QUOTED = r'"(?:[^"\\]|\\.)*"'


def write(kind: str, text: str, synonyms: Mapping[str, str]) -> str:
    """synonyms: folded description -> its category. What has none is a category of its own, whatever the level."""
    reply = {
        "vocabulary": _vocabulary,
        "reconcile": _reconcile,
        "names": _names,
        "suggest": _suggest,
        "reword": _reword,
    }[kind](text, synonyms)
    return json.dumps(reply, ensure_ascii=False)


def folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")


def _vocabulary(text: str, synonyms: Mapping[str, str]) -> Any:
    shown, listed = re.findall(
        r"^(Categories there are|The only categories there are, a closed list): (\[.*\])$", text, re.M
    )[-1]
    spelled = {folded(name): name for name in json.loads(listed)}
    found: dict[str, list[int]] = {}
    silent: list[int] = []
    for number, description in _numbered(text, "Descriptions:"):
        category = synonyms.get(folded(description), description)
        if folded(description) in SILENT:
            silent.append(number)
        elif "closed" not in shown or folded(category) in spelled:
            found.setdefault(spelled.setdefault(folded(category), category), []).append(number)
    categories = [{"name": name, "descriptions": numbers} for name, numbers in found.items()]
    return {"categories": categories, "no_answer": silent}


def _reconcile(text: str, synonyms: Mapping[str, str]) -> Any:
    groups: dict[str, dict[str, Any]] = {}
    for number, name in _numbered(text, "Categories:"):
        category = synonyms.get(folded(name), name)
        groups.setdefault(folded(category), {"name": category, "ids": []})["ids"].append(number)
    return {"groups": list(groups.values())}


def _names(text: str, synonyms: Mapping[str, str]) -> Any:
    payload, _ = json.JSONDecoder().raw_decode(text, text.index('{"interest"'))
    tops = [(cluster["id"], next(iter(cluster["descriptions"]), "unclear")) for cluster in payload["clusters"]]
    named = [{"id": id_, "name": f"{top} things", "definition": f"Pictures of {top} things."} for id_, top in tops]
    return {"clusters": named}


def _suggest(text: str, synonyms: Mapping[str, str]) -> Any:
    """By what the first side says of each picture, and by whether anything is said of a second one."""
    lines = re.findall(rf"^(\d+): ({_QUOTED})(; )?", text[text.rindex("\nPictures:\n") :], re.M)
    kinds: dict[str, list[int]] = {}
    sides: dict[str, list[int]] = {}
    for number, said, more in lines:
        words = folded(json.loads(said))
        kinds.setdefault(synonyms.get(words, words), []).append(int(number))
        sides.setdefault("told more" if more else "told less", []).append(int(number))
    asked = [("kind of thing", kinds), ("how much is told", sides)]
    return {
        "interests": [
            {"interest": name, "groups": [{"name": k, "pictures": v} for k, v in groups.items()]}
            for name, groups in asked
            if len(groups) > 1
        ]
        or [{"interest": "none", "groups": [{"name": "a", "pictures": [1]}, {"name": "b", "pictures": [2]}]}]
    }


def _reword(text: str, synonyms: Mapping[str, str]) -> Any:
    (interest,) = re.findall(rf"^Interest: ({_QUOTED})$", text, re.M)[-1:]
    return {"wordings": [{"interest": f"finer {json.loads(interest)}", "why": "Smaller groups."}]}


def _numbered(text: str, heading: str) -> list[tuple[int, str]]:
    """The lines `1: "words"` that follow a heading."""
    after = text[text.rindex(f"\n{heading}\n") :]
    return [(int(number), json.loads(words)) for number, words in re.findall(rf"^(\d+): ({_QUOTED})", after, re.M)]
