"""What a person should know of a clustering, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from manylens.method.assignment import NO_ANSWER_REASON
from manylens.method.observations import REFUSALS, Looks
from manylens.method.trial import Trial
from manylens.pipeline.judge_session import JudgeSession
from manylens.settings import Settings
from manylens.text import counted
from manylens.types import Assignment, Verdict

# Mean confidence of the looks below which the person is warned. nano on held-out images: .90 to .95 for cards and faces
# (right 98 times in 100), .72 for the color of kinds of object it was not taught on (50), .30 for small vehicles (33).
UNSURE_LOOKS = 0.5


def write_notes(
    looks: Looks,
    session: JudgeSession,
    trial: Trial,
    settings: Settings,
    verdict: Verdict | None = None,
    recall: float = 1.0,
) -> list[str]:
    """Those that hold however many images join; `count_notes` has the others. recall: of the graph's edges."""
    notes = [verdict.advice] if verdict is not None and verdict.advice else []
    if recall < 1:
        notes.append(
            f"Which of the {len(set(looks.words)):,} descriptions are alike was searched approximately (faiss): on a "
            f"sample {recall:.1%} of the edges were found."
        )
    if settings.into and settings.into == looks.interest.options:
        notes.append(f"The interest lists its clusters itself, so there are no others: {', '.join(settings.into)}.")
    sure = float(np.mean(looks.confidences)) if len(looks) else 1.0
    if sure < UNSURE_LOOKS and verdict is None:
        notes.append(
            f"The model is unsure of what it sees for this interest (mean confidence of its descriptions {sure:.2f}): "
            "it may not know this kind of image or the word. Look at the exemplars, or use a larger model."
        )
    if session.spent or looks.not_looked:
        notes.append(_budget_note(looks, settings))
    if over := session.passed_usd:
        notes.append(f"The limit was passed by ${over:,.4f}: answers cost more than any that came before them.")
    if not trial.tells and (trial.same_for_all or trial.differing):  # else the budget ended before it could tell
        why = (
            "gave every image the same answer"
            if trial.same_for_all
            else f"agreed with itself no better than a guesser might, in {trial.pairs} questions that were put twice"
        )
        notes.append(
            f"The model's answers about which cluster an image belongs to tell nothing for this interest: it {why}. "
            "The clusters rest on descriptions alone, and how many images are misplaced is not known."
        )
    if session.failures:
        notes.append(
            f"{counted(len(session.failures), 'model call')} failed, and the clustering does without "
            f"{'it' if len(session.failures) == 1 else 'them'}. {_most_often(session.failures)}"
        )
    return notes


def count_notes(
    assignments: Sequence[Assignment], failed: Sequence[tuple[str, str]], settings: Settings, is_spent: bool
) -> list[str]:
    """The notes that count images: made anew whenever images join or leave. failed: as in `Clustering`. is_spent:
    whether the budget left a question unasked."""
    notes = _failed_note(failed)
    reasons = Counter(assignment.reason for assignment in assignments if assignment.cluster is None)
    silent = sum(count for reason, count in reasons.items() if reason.endswith(NO_ANSWER_REASON))
    if silent:
        say = "The description of 1 image does" if silent == 1 else f"The descriptions of {silent:,} images do"
        notes.append(f"{say} not answer the interest.")
    for reason in [reason for reason in REFUSALS.values() if reasons[reason]]:
        notes.append(f'{counted(reasons[reason], "image is", "images are")} unassigned: "{reason}".')
    unassigned = sum(count for reason, count in reasons.items() if reason not in REFUSALS.values())
    if unassigned:
        if is_spent:
            why = "the budget was spent before a cluster was found"
        elif settings.into:
            why = "none of the given clusters fits, or the model does not know these words"
        else:
            why = "no cluster fits, or nothing else is of the same kind"
        notes.append(f"{counted(unassigned, 'image is', 'images are')} unassigned: {why}.")
    return notes


def look_notes(looks: Looks, verdict: Verdict, settings: Settings) -> list[str]:
    """Of a clustering by look."""
    notes = [f"The groups are of pictures that look alike, and do not answer the interest. {verdict.advice}".rstrip()]
    return [*notes, *([_budget_note(looks, settings)] if looks.not_looked else [])]


def _failed_note(failed: Sequence[tuple[str, str]]) -> list[str]:
    if not failed:
        return []
    reason = _most_often(reason for _, reason in failed)
    images = counted(len(failed), "image could not be described and is", "images could not be described and are")
    return [f"{images} in no cluster. {reason}"]


def _most_often(reasons: Iterable[str]) -> str:
    """A sentence with the most frequent of some reasons, the first in the alphabet among equals."""
    found = Counter(reasons)
    return f"Most often: {min(found, key=lambda reason: (-found[reason], reason))}"


def _budget_note(looks: Looks, settings: Settings) -> str:
    limits = [] if settings.budget_calls is None else [counted(settings.budget_calls, "call")]
    limits += [] if settings.budget_usd is None else [f"${settings.budget_usd:,.2f}"]
    left = (
        counted(len(looks.not_looked), "image was", "images were") + " not looked at, and " if looks.not_looked else ""
    )
    return (
        f"Partial: the budget of {' and '.join(limits)} did not cover every question: {left}what was not asked rests "
        "on descriptions alone. The same command with a larger budget goes on from here and repeats no call."
    )
