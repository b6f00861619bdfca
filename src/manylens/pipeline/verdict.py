"""What a model thinks of its own understanding, and the groups by look where it does not understand.

In: looks, a model that may have a `verdict`. Out: the verdict; a `Clustering` of pictures that look alike. Promise: no
model is called, and nothing it said of the interest becomes a cluster's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from manylens.method.by_look import group_by_look, nearest, usual_groups
from manylens.method.observations import Looks
from manylens.models.base import Model, ask_verdict
from manylens.pipeline.judge_session import JudgeSession
from manylens.pipeline.notes import count_notes, look_notes
from manylens.settings import Settings
from manylens.sync import in_thread
from manylens.text import counted
from manylens.types import Assignment, Cluster, Clustering, Verdict

BY_LOOK = "alike to the eye"
_ALL_THE_SAME = "; the names are yours, so the pictures are sorted into them all the same"


async def judge_interest(looks: Looks, model: Model, settings: Settings) -> Verdict | None:
    """The model's verdict on this interest, None where it gives none. The names of a closed list are the person's, so
    with one the pictures are sorted into it however little the model understands."""
    if not len(looks):
        return None
    verdict = await in_thread(lambda: ask_verdict(model, looks.interest.text, looks.image_ids))
    if verdict is not None and verdict.word == "not understood" and settings.into:
        return replace(verdict, word="check", reason=f"{verdict.reason}{_ALL_THE_SAME}")
    return verdict


async def sort_by_look(looks: Looks, verdict: Verdict, settings: Settings, session: JudgeSession) -> Clustering:
    """Groups named "look 1", "look 2", ..., the largest first. Confidence: how much nearer a picture is to the middle
    of its group than to that of the next."""
    session.start("name")
    seen = await in_thread(lambda: session.model.appearance(looks.image_ids))  # type: ignore[attr-defined]
    ids = [image_id for image_id in looks.image_ids if image_id in seen]
    rows = np.array([seen[image_id] for image_id in ids], dtype=np.float32).reshape(len(ids), -1)
    group, clear = group_by_look(rows, settings.n_clusters or usual_groups(len(ids)), settings.seed)
    place = {image_id: (int(g) + 1, round(float(c), 4)) for image_id, g, c in zip(ids, group, clear, strict=True)}
    clusters = []
    for number in range(1, int(group.max(initial=-1)) + 2):
        members = sorted((i for i in ids if place[i][0] == number), key=lambda i: (-place[i][1], i))
        clusters.append(Cluster(number, f"look {number}", BY_LOOK, len(members), tuple(members[: settings.exemplars])))
    assignments = [
        Assignment(image_id, *place[image_id], BY_LOOK, "look")
        if image_id in place
        else Assignment(image_id, None, 0.0, "could not be seen again", "")
        for image_id in looks.image_ids
    ]
    session.finish("name", f"{counted(len(clusters), 'group')} by look")
    counts = tuple(count_notes((), looks.failed, settings, is_spent=False))
    return Clustering(
        interest=looks.interest,
        model=session.model.name,
        identity=session.model.identity,
        clusters=tuple(clusters),
        assignments=tuple(assignments),
        failed=looks.failed,
        calls=session.counts(),
        density=0.0,
        notes=(*look_notes(looks, verdict, settings), *counts),
        counting_notes=counts,
        not_looked=looks.not_looked,
        is_partial=bool(looks.not_looked),
        verdict=verdict,
    )


async def place_by_look(clustering: Clustering, image_ids: Sequence[str], model: Model) -> dict[str, Assignment]:
    """Images that came later, each in the group by look to whose middle it is nearest."""
    members = {a.image_id: a.cluster for a in clustering.assignments if a.cluster is not None}
    seen = await in_thread(lambda: model.appearance([*members, *image_ids]))  # type: ignore[attr-defined]
    numbers = sorted({number for image_id, number in members.items() if image_id in seen})
    fresh = [image_id for image_id in image_ids if image_id in seen and numbers]
    if not fresh:
        return {}
    middles = [np.mean([seen[i] for i, own in members.items() if own == number and i in seen], 0) for number in numbers]
    group, clear = nearest(np.stack([seen[i] for i in fresh]), np.stack(middles))
    return {
        image_id: Assignment(image_id, numbers[int(g)], round(float(c), 4), BY_LOOK, "look")
        for image_id, g, c in zip(fresh, group, clear, strict=True)
    }
