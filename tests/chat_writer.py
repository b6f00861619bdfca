"""What the server of `chat_server` writes where it is asked to: a writer that knows some synonyms and no picture.

In: the words of a chat request. Out: the reply as JSON. Promise: it goes by what stands in the prompt alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

WRITES = {"vocabulary": '"no_answer"', "reconcile": '"groups"', "names": '"clusters"'}
"""Kind of a request -> what its instruction says of the reply."""

SILENT = ("n/a", "not visible", "unknown", "unclear", "cannot tell", "i cannot tell", "i cannot tell from this picture")

_QUOTED = r'"(?:[^"\\]|\\.)*"'


def write(kind: str, text: str, synonyms: Mapping[str, str]) -> str:
    """synonyms: folded description -> its category. What has none is a category of its own, whatever the level."""
    reply = {"vocabulary": _vocabulary, "reconcile": _reconcile, "names": _names}[kind](text, synonyms)
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


def _numbered(text: str, heading: str) -> list[tuple[int, str]]:
    """The lines `1: "words"` that follow a heading."""
    after = text[text.rindex(f"\n{heading}\n") :]
    return [(int(number), json.loads(words)) for number, words in re.findall(rf"^(\d+): ({_QUOTED})", after, re.M)]
