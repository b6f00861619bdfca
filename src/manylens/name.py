"""Stage 5, name: every cluster gets a name unlike its siblings', a definition that fits, and every image a reason.

In: final drafts. Out: `Cluster`s and `Assignment`s. Promise: works from the descriptions alone; where the model writes
text its names are used if the reply is valid JSON, complete, and free of duplicates, else the descriptions' stand. A
definition says what share of the members it fits, and hedges where that is low.

The exchange with `complete`, task "name_clusters", is JSON both ways. Payload: {"interest": "suit", "clusters":
[{"id": 1, "size": 40, "descriptions": {"hearts": 38, ...}}, ...], "taken": [names of earlier batches]}. Reply:
{"clusters": [{"id": 1, "name": "...", "definition": "..."}, ...]}.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from manylens.evidence import (
    WELL_DESCRIBED,
    Draft,
    Looks,
    Profile,
    Standing,
    draw_profile,
    normalise_description,
    spoken,
    token_overlap,
)
from manylens.models.base import CompleteRequest
from manylens.records import Assignment, Cluster, Settings

CLUSTERS_PER_CALL = 40
"""Clusters named by one call: with more, models drop ids or repeat names."""

_MAX_NAME_CHARACTERS = 60
_DESCRIPTIONS_SHOWN = 5
_CHECKED = 200
"""A definition is checked on at most this many members, spread evenly over the image ids."""

Complete = Callable[[CompleteRequest], Awaitable[str | None]]
"""Asks the model for text; None where it failed or the budget is spent."""


@dataclass(frozen=True, slots=True)
class Named:
    name: str
    definition: str


async def name_clusters(
    looks: Looks, drafts: Sequence[Draft], settings: Settings, complete: Complete | None
) -> list[Cluster]:
    """Name the drafts, in final order (ids 1..K follow it). `complete` is None where the model writes no text."""
    profiles = [draw_profile(looks, draft.members, settings.exemplars) for draft in drafts]
    named = name_by_descriptions(looks, drafts, profiles)
    if complete is not None:
        named = await _name_by_model(looks, drafts, named, complete)
    return [
        Cluster(
            id=number,
            name=label.name,
            definition=label.definition,
            size=draft.size,
            exemplars=tuple(looks.image_ids[image] for image in profile.exemplars),
        )
        for number, (draft, profile, label) in enumerate(zip(drafts, profiles, named, strict=True), start=1)
    ]


def name_by_descriptions(looks: Looks, drafts: Sequence[Draft], profiles: Sequence[Profile]) -> list[Named]:
    """The majority description; where siblings share it, with the next description that tells them apart
    ("hearts", "hearts, pale"), as a last resort with a number ("hearts (2)")."""
    taken: set[str] = set()
    result: list[Named] = []
    for draft, profile in zip(drafts, profiles, strict=True):
        name = profile.name or "not described"
        if normalise_description(name) in taken:
            name = _told_apart(looks, draft, name, profile.words, taken)
        taken.add(normalise_description(name))
        result.append(Named(name, define(looks, draft, profile)))
    return result


def _told_apart(looks: Looks, draft: Draft, name: str, words: str, taken: set[str]) -> str:
    others = Counter(looks.words[image] for image in sorted(draft.members) if looks.words[image] not in (words, ""))
    for second, _ in sorted(others.items(), key=lambda entry: (-entry[1], entry[0])):
        candidate = f"{name}, {spoken(looks, draft.members, second)}"
        if normalise_description(candidate) not in taken:
            return candidate
    number = 2
    while normalise_description(f"{name} ({number})") in taken:
        number += 1
    return f"{name} ({number})"


def define(looks: Looks, draft: Draft, profile: Profile) -> str:
    """One sentence true of the members: their descriptions, with the share it fits."""
    interest = looks.interest.text
    if not profile.words:
        return f'Images that belong together when looked at for "{interest}"; the model gave no description.'
    share = f"{profile.share:.0%} of the members"
    if profile.share >= WELL_DESCRIBED:
        return f'Images described as "{profile.name}" when looked at for "{interest}" ({share}).'
    counted = Counter(looks.words[image] for image in draft.members if looks.words[image] not in (profile.words, ""))
    second = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:2]
    also = ", ".join(f'"{spoken(looks, draft.members, words)}"' for words, _ in second)
    also = f", also as {also}" if also else ""
    hedge = "Mostly images" if profile.share > 0.5 else "A mixed group: images"
    return f'{hedge} described as "{profile.name}" ({share}){also}, when looked at for "{interest}".'


async def _name_by_model(
    looks: Looks, drafts: Sequence[Draft], fallback: Sequence[Named], complete: Complete
) -> list[Named]:
    result = list(fallback)
    taken = {normalise_description(label.name): position for position, label in enumerate(result)}
    for start in range(0, len(drafts), CLUSTERS_PER_CALL):
        numbers = range(start + 1, min(start + CLUSTERS_PER_CALL, len(drafts)) + 1)
        earlier = [label.name for label in result[:start]]
        payload = naming_payload(looks, {number: drafts[number - 1] for number in numbers}, earlier)
        text = await complete(CompleteRequest(looks.interest.text, "name_clusters", payload))
        replies = parse_names(text, numbers) if text is not None else None
        for number, label in (replies or {}).items():
            words = normalise_description(label.name)
            if taken.get(words, number - 1) != number - 1:
                continue  # a sibling has this name: keep the description's, which is distinct
            taken.pop(normalise_description(result[number - 1].name), None)
            taken[words] = number - 1
            result[number - 1] = Named(label.name, _checked(looks, drafts[number - 1], label))
    return result


def naming_payload(looks: Looks, drafts: Mapping[int, Draft], taken: Sequence[str]) -> str:
    """The JSON that `complete` gets; descriptions by falling count, at most five per cluster."""
    clusters = []
    for number, draft in drafts.items():
        counted = Counter(looks.words[image] for image in sorted(draft.members) if looks.words[image])
        top = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:_DESCRIPTIONS_SHOWN]
        shown = {spoken(looks, draft.members, words): count for words, count in top}
        clusters.append({"id": number, "size": draft.size, "descriptions": shown})
    return json.dumps({"interest": looks.interest.text, "clusters": clusters, "taken": list(taken)}, ensure_ascii=False)


def parse_names(text: str, numbers: Sequence[int]) -> dict[int, Named] | None:
    """Read a naming reply strictly: every id once, distinct names of 1 to 60 characters, definitions; else None."""
    body = text.strip()
    if body.startswith("```"):
        body = body.partition("\n")[2].rpartition("```")[0]
    try:
        entries = json.loads(body)["clusters"]
        found = {
            entry["id"]: Named(" ".join(entry["name"].split()), " ".join(entry["definition"].split()))
            for entry in entries
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    complete = len(entries) == len(found) and set(found) == set(numbers)
    sound = all(0 < len(label.name) <= _MAX_NAME_CHARACTERS and label.definition for label in found.values())
    distinct = len({normalise_description(label.name) for label in found.values()}) == len(found)
    return found if complete and sound and distinct else None


def _checked(looks: Looks, draft: Draft, label: Named) -> str:
    """The model's definition, with a hedge where few of a sample of the members are described in its words."""
    members = sorted(draft.members)
    sample = members[:: max(1, len(members) // _CHECKED)]
    said = set(normalise_description(f"{label.name} {label.definition}").split())
    fits = sum(1 for image in sample if set(looks.words[image].split()) & said) / len(sample)
    if fits >= 0.8:
        return label.definition
    return f"{label.definition.rstrip('.')} (the descriptions of {fits:.0%} of the members say so)."


def assign(
    looks: Looks, drafts: Sequence[Draft], unassigned: Sequence[int], trusted_share_right: float, spent: bool = False
) -> list[Assignment]:
    """One assignment per image, in image id order. spent: the budget ended before all questions were asked.

    Confidence = .4 judgement + .3 fit + .3 look. Judgement: the judge's probability; for an image that was not asked,
    `trusted_share_right`, what the audits found. Fit: 1 where the image's description is the cluster's, else the share
    of words in common. Look: the look's own confidence. An unassigned image has confidence 0.
    """
    result: dict[int, Assignment] = {}
    for number, draft in enumerate(drafts, start=1):
        profile = draw_profile(looks, draft.members, 1)
        for image, standing in draft.members.items():
            judgement = trusted_share_right if standing.probability is None else standing.probability
            words = looks.words[image]
            fit = 1.0 if words and words == profile.words else token_overlap(words, profile.words)
            confidence = 0.4 * judgement + 0.3 * fit + 0.3 * float(looks.confidences[image])
            result[image] = Assignment(
                looks.image_ids[image],
                number,
                round(min(max(confidence, 0.0), 1.0), 4),
                explain(looks, image, standing),
                standing.decided_by,
            )
    why = "the budget was spent before a cluster was found for it" if spent else "no cluster fits it well enough"
    for image in unassigned:
        reason = f"{_described(looks, image)}; {why}"
        result[image] = Assignment(looks.image_ids[image], None, 0.0, reason, "")
    return [result[image] for image in sorted(result)]


def explain(looks: Looks, image: int, standing: Standing) -> str:
    """Why an image is where it is, from the evidence: its description, how it was decided, the model's own words."""
    judged = "not judged" if standing.probability is None else f"yes at {standing.probability:.2f}"
    how = {
        "seed": "the cluster grew from it" if standing.probability is None else f"kept by judgement ({judged})",
        "judge": f"accepted by judgement ({judged})",
        "trust": "accepted unasked for its close resemblance"
        if standing.probability is None
        else f"accepted for its close resemblance ({judged})",
        "offer": f"taken up from the leftovers ({judged})",
        "second look": f"moved by a second look ({judged})",
        "person": "placed by a person",
        "": "not placed",
    }[standing.decided_by]
    own_words = f": {' '.join(standing.reason.split())}" if standing.reason else ""
    return f"{_described(looks, image)}; {how}{own_words}"


def _described(looks: Looks, image: int) -> str:
    return f'described as "{looks.descriptions[image]}"' if looks.descriptions[image] else "not described"
