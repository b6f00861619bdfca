"""What placed an image: the stored questions about it, as the page shows them.

In: the run's answers. Out: who asked what, the answers it could have, their probabilities. Promise: a request that this
manylens cannot read (an older model's, another package's) is shown with its answer and without its options.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, cast, get_args

from manylens.store.answers import StoredReply
from manylens.store.run_folder import RunFolder
from manylens.text import shown_name
from manylens.web.schemas import Asked, Option

Kind: TypeAlias = Literal["look", "choose", "judge"]

_LISTED = re.compile(r'^([A-T]): ("(?:[^"\\]|\\.)*")', re.MULTILINE)
"""How a choice states an option to a model behind a server (`prompts.choose_opening`)."""


def questions_about(run: RunFolder, image_id: str) -> dict[str, list[Asked]]:
    """By interest, in the order in which they were answered."""
    found: dict[str, list[Asked]] = {}
    for interest, kind, _, request, reply, seconds in run.asked_about(image_id):
        if kind in get_args(Kind):
            asked = _asked(cast(Kind, kind), request, reply, seconds)
            found.setdefault(interest, []).append(asked)
    return found


def _asked(kind: Kind, request: str, reply: StoredReply, seconds: float) -> Asked:
    fields = reply.fields
    options: list[Option] = []
    if kind == "look":
        answer, probability = str(fields["description"]), float(fields["confidence"])
    elif kind == "judge":
        yes = float(fields["probability"])
        answer, probability = ("yes", yes) if yes >= 0.5 else ("no", 1 - yes)
    else:
        shares = [float(share) for share in fields["probabilities"]]
        names = options_of(request)
        if len(names) != len(shares) - 1:
            names = [f"option {number}" for number in range(1, len(shares))]
        options = [
            Option(name=shown_name(name), probability=share) for name, share in zip([*names, ""], shares, strict=True)
        ]
        options.sort(key=lambda option: -option.probability)
        answer, probability = options[0].name, options[0].probability
    reason = shown_name(str(fields.get("reason", "")))
    return Asked(
        kind=kind, model="", answer=shown_name(answer), probability=probability, options=options, reason=reason,
        seconds=seconds,
    )  # fmt: skip


def options_of(request: str) -> list[str]:
    """The names that a choice was among, in its order; empty where they cannot be read from the rendered request."""
    try:
        values = json.loads(request)
    except (ValueError, RecursionError):
        return []
    if isinstance(values, list) and values and isinstance(values[-1], list) and _are_texts(values[-1]):
        return values[-1]  # nano's
    if isinstance(values, list) and len(values) == 2 and isinstance(values[1], dict):
        listed = values[1].get("options")
        if isinstance(listed, list):  # the scripted model's
            return [str(option.get("name", "")) for option in listed if isinstance(option, dict)]
    names: list[str] = []
    for text in _texts(values):
        for label, name in _LISTED.findall(text):
            if ord(label) - ord("A") == len(names):
                names.append(str(json.loads(name)))
    return names


def _are_texts(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _texts(value: Any) -> list[str]:
    """Every text within, in order."""
    if isinstance(value, str):
        return [value]
    within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in within for text in _texts(part)]
