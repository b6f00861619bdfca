"""What a person should know of a clustering, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from manylens.method.observations import Looks
from manylens.method.trial import Trial
from manylens.method.vocabulary import Vocabulary
from manylens.pipeline.judge_session import JudgeSession
from manylens.records import Assignment, Settings

# Mean confidence of the looks below which the person is warned. nano on held-out images: .90 to .95 for cards and faces
# (right 98 times in 100), .72 for the color of kinds of object it was not taught on (50), .30 for small vehicles (33).
UNSURE_LOOKS = 0.5


def write_notes(
    looks: Looks,
    assignments: Sequence[Assignment],
    session: JudgeSession,
    trial: Trial,
    vocabulary: Vocabulary,
    settings: Settings,
) -> list[str]:
    notes = []
    sure = float(np.mean(looks.confidences)) if len(looks) else 1.0
    if sure < UNSURE_LOOKS:
        notes.append(
            f"The model is unsure of what it sees for this interest (mean confidence of its descriptions {sure:.2f}): "
            "it may not know this kind of image or the word. Look at the exemplars, or use a larger model."
        )
    if session.spent or looks.not_looked:
        notes.append(_budget_note(looks, settings))
    if not trial.tells:
        why = (
            "gave every image the same answer"
            if trial.same_for_all
            else f"contradicted itself in {trial.differing} of {trial.pairs} questions put twice"
        )
        notes.append(
            f"The model's answers about membership tell nothing for this interest: it {why}. The clusters rest on "
            "descriptions, and nothing is known of how many images are misplaced."
        )
    if session.failures:
        notes.append(
            f"{len(session.failures):,} model calls failed; what they were about was not asked. "
            f"{_most_often(session.failures)}"
        )
    if looks.failed:
        reason = _most_often(reason for _, reason in looks.failed)
        notes.append(f"{len(looks.failed):,} images could not be described and are in no cluster. {reason}")
    silent = sum(words in vocabulary.no_answer for words in looks.words)
    if silent:
        notes.append(f"The descriptions of {counted(silent, 'image')} do not answer the interest.")
    unassigned = sum(assignment.cluster is None for assignment in assignments)
    if unassigned:
        if session.spent:
            why = "the budget was spent before a cluster was found"
        elif settings.into:
            why = "they are none of these"
        else:
            why = "no cluster fits, or nothing else is of the same kind"
        notes.append(f"{counted(unassigned, 'image')} unassigned: {why}.")
    return notes


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _most_often(reasons: Iterable[str]) -> str:
    """A sentence with the most frequent of some reasons, the first in the alphabet among equals."""
    found = Counter(reasons)
    return f"Most often: {min(found, key=lambda reason: (-found[reason], reason))}"


def _budget_note(looks: Looks, settings: Settings) -> str:
    limits = [] if settings.budget_calls is None else [f"{settings.budget_calls:,} calls"]
    limits += [] if settings.budget_usd is None else [f"${settings.budget_usd:,.2f}"]
    left = f"{len(looks.not_looked):,} images were not looked at, and " if looks.not_looked else ""
    return (
        f"Partial: the budget of {' and '.join(limits)} did not cover every question: {left}what was not asked rests "
        "on descriptions alone. The same command with a larger budget goes on from here and repeats no call."
    )
