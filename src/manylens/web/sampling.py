"""Routes about a sample of the pictures: what they could be sorted by, and what an interest would make of them.

In: nothing, or an interest. Out: suggestions, a preview. Promise: both are jobs, for they ask a model; what they found
is kept with the job, and the answers in the run folder, where a run by that interest finds them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query

from manylens.text import shown_name
from manylens.web.jobs import KeeperDep
from manylens.web.routing import PROBLEMS, RunDep
from manylens.web.schemas import (
    Job,
    PreviewOut,
    PreviewPart,
    SampleGroup,
    SuggestionOut,
    SuggestionsOut,
    VerdictOut,
    WordingOut,
)
from manylens.web.shown import ShownRun

router = APIRouter(prefix="/api", tags=["sampling"], responses=PROBLEMS)


@router.get("/suggest")
def get_suggestions(run: RunDep, jobs: KeeperDep) -> SuggestionsOut:
    """The latest suggestions; none where nobody asked for any (POST /api/jobs with kind `suggest`)."""
    job, result = _latest(run, jobs, "suggest")
    return SuggestionsOut(
        job=job,
        found=result.get("found", 0),
        sample=len(result.get("pictures", ())),
        suggestions=[
            SuggestionOut(
                interest=shown_name(one["interest"]),
                answered=one["answered"],
                groups=_groups(one["groups"]),
            )
            for one in result.get("suggestions", ())
        ],
    )


@router.get("/preview")
def get_preview(
    run: RunDep, jobs: KeeperDep, by: Annotated[str, Query(min_length=1, max_length=500, description="An interest.")]
) -> PreviewOut:
    """The latest preview of an interest; nothing where nobody asked for one (POST /api/jobs with kind `preview`)."""
    job, result = _latest(run, jobs, "preview", " ".join(by.split()))
    parts = []
    for part in result.get("parts", ()):
        verdict = part.get("verdict")
        parts.append(
            PreviewPart(
                interest=shown_name(part["interest"]),
                groups=_groups(part["groups"]),
                unanswered=len(part["unanswered"]),
                doubt=shown_name(part["doubt"]),
                wordings=[
                    WordingOut(interest=shown_name(one["interest"]), verdict=one["verdict"], why=shown_name(one["why"]))
                    for one in part["wordings"]
                ],
                verdict=None
                if verdict is None
                else VerdictOut(
                    word=verdict["word"], reason=shown_name(verdict["reason"]), advice=shown_name(verdict["advice"])
                ),
            )
        )
    return PreviewOut(
        job=job,
        found=result.get("found", 0),
        parts=parts,
        combinations=_groups(result.get("combinations", ())),
        hints=[shown_name(hint) for hint in result.get("hints", ())],
    )


def _latest(run: ShownRun, jobs: KeeperDep, kind: str, by: str = "") -> tuple[Job | None, dict[str, Any]]:
    for row in run.store.jobs():
        if row.request["kind"] == kind and (not by or [" ".join(text.split()) for text in row.request["by"]] == [by]):
            return jobs.shown(row), dict(row.progress.get("result") or {})
    return None, {}


def _groups(groups: Iterable[dict[str, Any]]) -> list[SampleGroup]:
    return [
        SampleGroup(
            name=shown_name(group["name"]),
            size=len(group["pictures"]),
            pictures=[shown_name(path) for path in group["pictures"]],
        )
        for group in groups
    ]
