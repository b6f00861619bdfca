"""Tune a student on one collection by what a teacher says of a sample of it (the paper's pseudo supervision).

In: the images of a run folder, interests, a teacher, a student checkpoint. Out: an adapter for the student. Promises: a
teacher's answer is stored before it is used and never asked again; nothing is selected by labels: training stops where
the teacher's held-out answers are fitted best; a kill at any moment loses the steps since the last examination only,
and on the CPU the result has the same bytes all the same.

    OUT/run.sqlite      the teacher's answers, a run folder like any other
    OUT/adapter/        for --model hf:STUDENT --adapter OUT/adapter
    OUT/tuning.json     the account: calls, losses, beta and b
    OUT/progress.pt     where to go on from, until the adapter is written
"""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from manylens.collection.pictures import ImageSource
from manylens.events import StageAdvanced, StageFinished, StageStarted
from manylens.files import MOST_TABLE, read_regular, write_atomically
from manylens.models.base import Model, ModelOptions
from manylens.settings import TuneSettings
from manylens.tuning.label_classifier import spread_answers
from manylens.tuning.pseudo_labels import Emit, PseudoLabels, draw_batch, held_out_batches, take_lessons
from manylens.tuning.student import VIEWS, Losses, Student
from manylens.types import Interest

ADAPTER_NAME = "adapter"
ACCOUNT_NAME, PROGRESS_NAME = "tuning.json", "progress.pt"
WARM_UP_STEPS = 10
VERSION = 2
"""Of the recipe: part of what tells one tuning from another."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """adapter: its folder. student: `hf:...` that it belongs to.

    calls: the teacher's, over all interests; failed: those without an answer. losses: (step, held-out loss) at each
    examination, step 0 before any: the mean cross-entropy of a token of the held-out descriptions. best_step: whose
    weights were kept. learned: the training loss of each step, of all three kinds.
    """

    student: str
    adapter: Path
    calls: int
    failed: int
    losses: tuple[tuple[int, float], ...]
    best_step: int
    learned: tuple[float, ...]
    edge_scale: float
    edge_offset: float


async def tune_student(
    image_ids: Sequence[str],
    interests: Sequence[Interest],
    teacher: Model,
    teacher_calls: int,
    images: ImageSource,
    out: Path,
    *,
    student: str,
    options: ModelOptions,
    settings: TuneSettings,
    emit: Emit,
) -> Tuned:
    """Ask the teacher, train, write. teacher: recorded in the run folder `out` by the caller. teacher_calls: hard bound
    on its calls, divided equally among the interests. options: `device` and `image_px` of the student."""
    calls = teacher_calls // len(interests)
    lessons = [
        await take_lessons(image_ids, interest.text, teacher, calls, settings.seed, emit) for interest in interests
    ]
    learner = Student(student, images, options, settings.seed)
    account_file = out / ACCOUNT_NAME
    fingerprint = _fingerprint(lessons, learner.identity, settings)
    account = _read_account(account_file, fingerprint)
    if account is None:
        wider = [_spread(learner, one, image_ids, settings.seed, emit) for one in lessons]
        account = {
            "fingerprint": fingerprint,
            **_train(learner, wider, out / PROGRESS_NAME, fingerprint, settings, emit),
        }
        learner.write_adapter(out / ADAPTER_NAME, student)
        account |= {"edge_scale": round(learner.edge_scale, 4), "edge_offset": round(learner.edge_offset, 4)}
        account |= {"teacher": teacher.identity, "interests": [interest.text for interest in interests]}
        account["calls"] = sum(one.calls for one in lessons)
        write_atomically(account_file, json.dumps(account, indent=1) + "\n")
        (out / PROGRESS_NAME).unlink(missing_ok=True)
    return Tuned(
        student,
        out / ADAPTER_NAME,
        sum(one.calls for one in lessons),
        sum(one.failed for one in lessons),
        tuple((step, loss) for step, loss in account["losses"]),
        account["best_step"],
        tuple(account["learned"]),
        account["edge_scale"],
        account["edge_offset"],
    )


def _spread(learner: Student, lessons: PseudoLabels, image_ids: Sequence[str], seed: int, emit: Emit) -> PseudoLabels:
    """The lessons, and what the images that teach nothing of their own probably show by the student's own eyes."""
    emit(StageStarted("tune", lessons.interest, None))
    taught = lessons.taught()
    others = sorted(set(image_ids) - set(taught))
    said = [lessons.words[image_id] for image_id in taught]
    features = learner.features([*taught, *others], lessons.interest)
    found = spread_answers(features[: len(taught)], said, features[len(taught) :], seed)
    if found is None:
        return lessons
    return lessons.with_spread(dict(zip(others, found, strict=True)))


def _fingerprint(lessons: Sequence[PseudoLabels], student: str, settings: TuneSettings) -> str:
    """What tells one tuning from another: a file of progress, or a finished adapter, of another one is of no use."""
    said = [
        [one.interest, one.described, sorted((*pair, p) for pair, p in one.pairs.items())]
        + [[asdict(request), p] for request, p in one.members]
        for one in lessons
    ]
    content = json.dumps([VERSION, said, student, asdict(settings)])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _read_account(file: Path, fingerprint: str) -> dict[str, Any] | None:
    try:
        account: dict[str, Any] = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError):
        return None
    return account if account.get("fingerprint") == fingerprint else None


def _train(
    learner: Student,
    lessons: Sequence[PseudoLabels],
    progress: Path,
    fingerprint: str,
    settings: TuneSettings,
    emit: Emit,
) -> dict[str, Any]:
    """Leaves the best weights in `learner`; returns losses and the best step."""
    subject = ", ".join(one.interest for one in lessons)
    emit(StageStarted("tune", subject, settings.steps))
    held_out = held_out_batches(lessons, settings.batch, settings.seed)
    state: dict[str, Any] = {"fingerprint": fingerprint, "step": 0, "losses": [], "learned": [], "best_step": 0}
    if (before := _resume(learner, progress, fingerprint)) is not None:
        state = before
    else:
        state["losses"].append([0, _held_out_loss(learner.examine(held_out))])
        state["best"] = learner.averaged()
    while state["step"] < settings.steps and not _is_over(state, settings):
        step = state["step"]
        batch = draw_batch(lessons, step, settings.batch, VIEWS, settings.seed)
        state["learned"].append(round(learner.learn(batch, _rate(step, settings.steps)).total, 6))
        state["step"] = step = step + 1
        emit(StageAdvanced("tune", subject, step, settings.steps))
        if step % settings.examine_every == 0 or step == settings.steps:
            loss = _held_out_loss(learner.examine(held_out))
            if loss < min(earlier for _, earlier in state["losses"]):
                state["best_step"], state["best"] = step, learner.averaged()
            state["losses"].append([step, loss])
            write_atomically(progress, learner.dump(state))
    learner.put_weights(state["best"])
    first, best = state["losses"][0][1], min(loss for _, loss in state["losses"])
    detail = f"{state['step']:,} steps, held-out loss {first:.3f} to {best:.3f} at step {state['best_step']:,}"
    emit(StageFinished("tune", subject, detail))
    return {name: state[name] for name in ("losses", "learned", "best_step")}


def _resume(learner: Student, progress: Path, fingerprint: str) -> dict[str, Any] | None:
    if not progress.is_file():
        return None
    fresh = learner.dump({})
    try:
        state = learner.restore(read_regular(progress, most=MOST_TABLE))
        if state["fingerprint"] == fingerprint:
            return state
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, pickle.UnpicklingError):
        pass  # of another student, or damaged
    learner.restore(fresh)
    return None


def _is_over(state: dict[str, Any], settings: TuneSettings) -> bool:
    best_examination = min(range(len(state["losses"])), key=lambda k: (state["losses"][k][1], k))
    return len(state["losses"]) - 1 - best_examination >= settings.patience


def _rate(step: int, steps: int) -> float:
    """The share of the peak learning rates: a short rise, then half a cosine down to 2%."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _held_out_loss(losses: Losses) -> float:
    """That on descriptions, nine in ten of the answers: what descriptions imply of judgements is no further evidence,
    and the student, which is to say yes or no, is taught to be surer of them than it can be right."""
    return round(losses.describe / max(losses.rows, 1), 6)
