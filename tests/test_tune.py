"""A student learns from what a teacher says: within its calls, none twice, and resumable.

Training runs on tiny checkpoints of random weights (`make test-models`); lessons are pure and need no torch.
"""

import asyncio
import dataclasses
import hashlib
import importlib.util
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from replies import embedding_of
from tiny_checkpoints import FAMILIES

import manylens.api
from manylens.cli import main as cli
from manylens.collection.find import find_images
from manylens.collection.pictures import StoredImages
from manylens.errors import ModelError, UsageError
from manylens.events import Event, StageAdvanced
from manylens.method.observations import normalise_description
from manylens.models.base import JudgeReply, JudgeRequest, LookReply, LookRequest, ModelOptions
from manylens.models.registry import load_model
from manylens.models.scripted import Noise, ScriptedModel
from manylens.settings import TuneSettings
from manylens.store.run_folder import RunFolder
from manylens.tuning.pseudo_labels import PseudoLabel, PseudoLabels, draw_batch, held_out_batches, take_lessons
from manylens.tuning.student import Student, targets_by_token
from manylens.tuning.tune import ADAPTER_NAME, PROGRESS_NAME, Tuned

COLORS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 50, 210), "yellow": (230, 220, 40)}
INTEREST = "color"
CALLS = 50
SHORT = TuneSettings(steps=60, batch=16, examine_every=10)

HAS_TUNE = all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers", "peft"))
needs_tune = pytest.mark.skipif(not HAS_TUNE, reason="needs the extra [tune]: make test-models")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of one color each, with noise."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(48):
        color = list(COLORS.values())[number % len(COLORS)]
        pixels = np.clip(np.array(color) + random.normal(0, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def labels_of(folder: Path) -> dict[str, str]:
    """Image id -> color, from the pixels."""
    found = {}
    for file in folder.iterdir():
        mean = np.asarray(Image.open(file)).mean((0, 1))
        nearest = min(COLORS, key=lambda name: float(np.abs(mean - COLORS[name]).sum()))
        found[hashlib.sha256(file.read_bytes()).hexdigest()] = nearest
    return found


class Counting(ScriptedModel):
    """Counts how often each request is put."""

    def __init__(self, labels: dict[str, str], *, interests: Sequence[str] = (INTEREST,), **more: Any) -> None:
        super().__init__(dict.fromkeys(interests, labels), sees_exemplars=False, **more)
        self.put: Counter[str] = Counter()

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        self.put.update(map(self.render, requests))
        return await super().look(requests)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        self.put.update(map(self.render, requests))
        return await super().judge(requests)


def teach(labels: dict[str, str], calls: int = CALLS, noise: Noise | None = None) -> PseudoLabels:
    teacher = Counting(labels, noise=noise)
    return asyncio.run(take_lessons(list(labels), INTEREST, teacher, calls, 0, lambda event: None))


MADE_UP = {f"image {number:03d}": ("hearts", "spades", "clubs")[number % 3] for number in range(200)}


# PseudoLabels


@pytest.mark.parametrize("calls", [20, 37, 50, 160, 333])
def test_the_teacher_is_asked_at_most_so_often_and_mostly_to_describe(calls: int) -> None:
    teacher = Counting(MADE_UP)
    lessons = asyncio.run(take_lessons(list(MADE_UP), INTEREST, teacher, calls, 0, lambda event: None))
    assert lessons.calls == sum(teacher.put.values()) == calls
    assert len(lessons.described) == min(round(calls * 0.9), len(MADE_UP))
    assert abs(len(lessons.pairs) - len(lessons.members)) <= 1


def test_where_images_are_few_calls_are_left_over_and_no_request_is_put_twice() -> None:
    few = dict(list(MADE_UP.items())[:30])
    teacher = Counting(few)
    lessons = asyncio.run(take_lessons(list(few), INTEREST, teacher, 10_000, 0, lambda event: None))
    assert lessons.calls == sum(teacher.put.values()) <= 5 * len(few)
    assert len(lessons.described) == len(few)


def test_too_few_calls_and_a_teacher_that_sees_one_kind_only_are_refused() -> None:
    with pytest.raises(UsageError, match="--teacher-calls 20"):
        teach(MADE_UP, 19)
    with pytest.raises(ModelError, match="two kinds"):
        teach(dict.fromkeys(MADE_UP, "hearts"))


def test_failed_calls_count_as_calls_and_teach_nothing() -> None:
    lessons = teach(MADE_UP, 100, Noise(failed_look=0.3, failed_judge=0.3))
    assert lessons.calls <= 100
    assert 15 < lessons.failed < 45
    assert len(lessons.described) + len(lessons.pairs) + len(lessons.members) == lessons.calls - lessons.failed


def test_what_is_held_out_never_trains_and_everything_else_does() -> None:
    lessons = teach(MADE_UP, 120, Noise(wrong_description=0.1, false_no=0.1, false_yes=0.1))
    batches = [draw_batch([lessons], step, 16, 3, seed=0) for step in range(60)]
    trained = {lesson.image_id for batch in batches for lesson in batch.lessons}
    examined = {lesson.image_id for batch in held_out_batches([lessons], 16, 0) for lesson in batch.lessons}
    assert trained == set(lessons.taught()) | (trained & lessons.contradicted)
    assert not trained & lessons.held_out
    assert examined <= lessons.held_out
    assert len(examined) >= 0.9 * len(lessons.held_out)


def test_what_is_spread_trains_as_far_as_it_is_probable_and_held_out_answers_still_never_do() -> None:
    """The answers that are held out say `hearts`; what is spread to the same images says otherwise."""
    described = {f"image {number:03d}": ("hearts", "spades")[number % 2] for number in range(40)}
    held_out = frozenset(list(described)[:6:2])
    soft_label = (("club", 0.7), ("spade", 0.3))
    spread = {**dict.fromkeys(held_out, soft_label), "image 900": soft_label}
    pairs = {(first, second): 1.0 for first in held_out for second in described if first != second}
    described["image 800"] = "clubs"
    lessons = PseudoLabels(INTEREST, described, pairs, (), held_out).with_spread(spread)
    batches = [draw_batch([lessons], step, 16, 1, seed=0) for step in range(40)]
    rows = [lesson for batch in batches for lesson in batch.lessons]
    taught = {lesson.descriptions for lesson in rows if lesson.image_id in spread and lesson.descriptions}
    assert taught == {(("clubs", 0.7), ("spades", 0.3))}
    judged = {
        (normalise_description(lesson.request.cluster_name), round(lesson.probability, 4))
        for lesson in rows
        if isinstance(lesson.request, JudgeRequest) and lesson.image_id in spread
    }
    # Surer than the soft label: .49 and .09 of .58.
    assert judged == {("club", 0.8448), ("spade", 0.1552), ("heart", 0.0)}
    weights = set()
    for batch in batches:
        ids = [lesson.image_id for lesson in batch.lessons]
        weights |= {round(same, 4) for i, j, same in batch.pairs if {ids[i], ids[j]} & held_out}
    # As probable as that both descriptions are equal, though the teacher judged every such pair a sure yes.
    assert weights <= {0.0, 0.1552, 0.8448, 0.7377, 0.7378} and {0.0, 0.1552} < weights
    examined = [lesson for batch in held_out_batches([lessons], 16, 0) for lesson in batch.lessons]
    assert {lesson.image_id for lesson in examined} == held_out
    assert {lesson.descriptions for lesson in examined if lesson.descriptions} == {(("hearts", 1.0),)}


def test_where_answers_part_each_way_gets_its_share() -> None:
    choices = [[([5, 6, 2], 0.5), ([5, 7, 2], 0.3), ([8, 2], 0.2)], [([9, 2], 1.0)]]
    assert [(row, place, token, round(share, 4)) for row, place, token, share in targets_by_token(choices)] == [
        (0, 0, 5, 0.8), (0, 0, 8, 0.2),
        (0, 1, 6, 0.625), (0, 1, 7, 0.375),
        (0, 2, 2, 1.0),
        (1, 0, 9, 1.0), (1, 1, 2, 1.0),
    ]  # fmt: skip


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    lessons = teach(MADE_UP)
    once = [draw_batch([lessons], step, 16, 3, seed=0) for step in range(8)]
    assert draw_batch([lessons], 5, 16, 3, seed=0) == once[5]
    assert draw_batch([lessons], 5, 16, 3, seed=1) != once[5]
    assert len(set(once)) == len(once)


def test_pairs_follow_descriptions_unless_the_teacher_judged_them() -> None:
    described = {"a": "Hearts", "b": "a heart", "c": "spades"}
    lessons = PseudoLabels(INTEREST, described, {("a", "c"): 0.9}, (), frozenset())
    (batch,) = {draw_batch([lessons], 0, 8, 1, seed=0)}
    ids = [lesson.image_id for lesson in batch.lessons if isinstance(lesson.request, LookRequest)]
    same = {frozenset((ids[i], ids[j])): value for i, j, value in batch.pairs}
    assert same == {frozenset("ab"): 1.0, frozenset("ac"): 0.9, frozenset("bc"): 0.0}


def test_an_image_refused_in_its_own_group_teaches_no_description() -> None:
    described = {"a": "hearts", "b": "hearts", "c": "spades", "d": "spades"}
    own = JudgeRequest(INTEREST, "hearts", "", ("b",), "a")
    other = JudgeRequest(INTEREST, "spades", "", ("c",), "b")
    lessons = PseudoLabels(INTEREST, described, {}, ((own, 0.1), (other, 0.1)), frozenset())
    assert lessons.taught() == ["b", "c", "d"]


def test_one_wording_is_learned_for_one_kind() -> None:
    described = {"a": "a heart", "b": "hearts", "c": "hearts", "d": "spades", "e": "spades"}
    lessons = PseudoLabels(INTEREST, described, {}, (), frozenset())
    batches = [draw_batch([lessons], step, 8, 1, seed=0) for step in range(4)]
    said = {text for batch in batches for lesson in batch.lessons for text, _ in lesson.descriptions}
    assert said == {"hearts", "spades"}


def test_judgements_of_membership_are_half_yes_and_agree_with_the_descriptions() -> None:
    lessons = teach(MADE_UP, 160)
    judged = [
        lesson
        for step in range(40)
        for lesson in draw_batch([lessons], step, 32, 1, seed=0).lessons
        if isinstance(lesson.request, JudgeRequest)
    ]
    assert len(judged) == 40 * 8
    assert 0.4 < np.mean([lesson.probability > 0.5 for lesson in judged]) < 0.6
    for lesson in judged:
        assert isinstance(lesson.request, JudgeRequest)
        own = normalise_description(lesson.request.cluster_name) == normalise_description(MADE_UP[lesson.image_id])
        assert (lesson.probability > 0.5) == own


# Tuning a tiny checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import torch

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("students")
    return {family: f"hf:{make(root / family)}" for family, make in FAMILIES.items()}


def tune(
    pictures: Path,
    out: Path,
    student: str,
    *,
    teacher: ScriptedModel | None = None,
    on_event: Callable[[Event], None] | None = None,
    settings: TuneSettings = SHORT,
    calls: int = CALLS,
) -> Tuned:
    return manylens.api.tune(
        pictures,
        INTEREST,
        teacher=teacher or Counting(labels_of(pictures)),
        teacher_calls=calls,
        out=out,
        student=student,
        options=ModelOptions(device="cpu"),
        settings=settings,
        on_event=on_event,
    )


def adapter_bytes(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((out / ADAPTER_NAME).iterdir())}


@pytest.fixture(scope="module")
def tuned(pictures: Path, tiny: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tune(pictures, tmp_path_factory.mktemp("tuned") / "out", tiny["llava"])


def test_what_is_excluded_is_neither_shown_to_the_teacher_nor_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.png", "b.jpg", "old/c.png")):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 8)).save(tmp_path / "p" / name)
    seen: list[int] = []

    async def learn(ids: list[str], *_: object, **__: object) -> None:
        seen.append(len(ids))

    monkeypatch.setattr(manylens.api, "find_checkpoint", lambda *_: None)
    monkeypatch.setattr(manylens.api, "tune_student", learn)
    different: tuple[dict[str, Any], ...] = ({}, {"exclude": ["old/"]}, {"include": ["*.png"], "exclude": ["old/"]})
    for chosen in different:
        manylens.api.tune(
            tmp_path / "p", "color", teacher=ScriptedModel({"color": {}}), teacher_calls=1, out=tmp_path / "out",
            student="hf:x", **chosen,
        )  # fmt: skip
    assert seen == [3, 2, 1]


@needs_tune
@pytest.mark.models
def test_the_loss_falls_on_what_is_learned_and_on_what_is_held_out(tuned: Tuned) -> None:
    assert len(tuned.learned) == SHORT.steps
    assert np.mean(tuned.learned[-4:]) < 0.6 * np.mean(tuned.learned[:4])
    losses = dict(tuned.losses)
    assert losses[tuned.best_step] < 0.7 * losses[0]
    assert losses[tuned.best_step] == min(losses.values())


@needs_tune
@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_sees_in_training_what_it_sees_when_it_is_used(
    pictures: Path, tiny: dict[str, str], tmp_path: Path, family: str
) -> None:
    """Before it learns, it judges as the model does that never trains, whatever stands beside it in the batch."""
    ids = sorted(labels_of(pictures))[:4]
    requests = [
        JudgeRequest(INTEREST, name, "", (), image_id) for image_id in ids for name in ("red", "a much longer name")
    ]
    with RunFolder.open(tmp_path / "run") as run:
        collection = find_images(pictures, keep=run.put_thumbnails)
        images = StoredImages(pictures, collection.images, run.thumbnail)
        model = load_model(tiny[family], images, options=ModelOptions(device="cpu"))
        replies = asyncio.run(model.judge(requests))
        looks = [LookRequest(INTEREST, image_id) for image_id in ids]
        described = asyncio.run(model.look(looks))
        student = Student(tiny[family], images, ModelOptions(device="cpu"), seed=0)
        lessons = [PseudoLabel(request) for request in requests]
        lessons += [PseudoLabel(request, (("a description of several words", 1.0),)) for request in looks]
        _, verdicts, embeddings = student._read(lessons)
    judged = [reply.probability for reply in replies if isinstance(reply, JudgeReply)]
    odds = verdicts.detach().numpy()[: len(requests)]
    assert 1 / (1 + np.exp(-odds)) == pytest.approx(np.array(judged), abs=1e-4)
    assert len(set(judged)) == len(requests)
    vectors = embeddings.detach().numpy()[len(requests) :]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(ids)), abs=1e-4)
    assert vectors.shape[1] == next(embedding_of(r).size for r in described if isinstance(r, LookReply))


@needs_tune
@pytest.mark.models
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_the_adapter_is_used_and_changes_what_is_said(
    pictures: Path, tiny: dict[str, str], tuned: Tuned, tmp_path: Path, family: str
) -> None:
    """It answers in the teacher's words; beta and b come with it; and the vision tower is as it was."""
    from safetensors.numpy import load_file

    found = tuned if family == "llava" else tune(pictures, tmp_path / "out", tiny[family])
    ids = sorted(labels_of(pictures))[:12]
    said = {}
    with RunFolder.open(found.adapter.parent) as run:
        images = StoredImages(pictures, run.images(), run.thumbnail)
        for adapter in (None, str(found.adapter)):
            model = load_model(tiny[family], images, options=ModelOptions(device="cpu", adapter=adapter))
            replies = asyncio.run(model.look([LookRequest(INTEREST, image_id) for image_id in ids]))
            said[adapter] = [reply.description for reply in replies if isinstance(reply, LookReply)]
    before, after = said.values()
    assert before != after
    assert not set(before) & set(COLORS)
    assert any(said.split()[0] in COLORS for said in after)
    assert (model.capabilities.edge_scale, model.capabilities.edge_offset) == (found.edge_scale, found.edge_offset)
    assert (found.edge_scale, found.edge_offset) != (8.0, -4.0)
    names = list(load_file(found.adapter / "adapter_model.safetensors"))
    assert any("language_model" in name for name in names)
    assert any("multi_modal_projector" in name for name in names) == (family == "llava")
    assert not [name for name in names if "vision" in name or "visual" in name]


@needs_tune
@pytest.mark.models
def test_pictures_that_the_teacher_never_saw_are_described_rightly_after_tuning_and_not_before(
    pictures: Path, tiny: dict[str, str], tmp_path: Path
) -> None:
    """A fifth of the pictures is never described. The teacher is right nine times in ten."""
    labels = labels_of(pictures)
    teacher = Counting(labels, noise=Noise(wrong_description=0.1, false_no=0.1, false_yes=0.1))
    out = tmp_path / "out"
    settings = dataclasses.replace(SHORT, steps=100, examine_every=20)
    found = tune(pictures, out, tiny["llava"], teacher=teacher, settings=settings, calls=42)
    seen = {json.loads(request)[1]["image_id"] for request in teacher.put if json.loads(request)[0] == "LookRequest"}
    unseen = sorted(set(labels) - seen)
    assert len(unseen) == len(labels) - round(42 * 0.9)
    right = {}
    with RunFolder.open(out) as run:
        images = StoredImages(pictures, run.images(), run.thumbnail)
        for adapter in (None, str(found.adapter)):
            model = load_model(tiny["llava"], images, options=ModelOptions(device="cpu", adapter=adapter))
            replies = asyncio.run(model.look([LookRequest(INTEREST, image_id) for image_id in unseen]))
            said = [reply.description if isinstance(reply, LookReply) else "" for reply in replies]
            right[adapter] = sum(text == labels[image_id] for text, image_id in zip(said, unseen, strict=True))
    before, after = right.values()
    assert before == 0
    assert after >= 0.8 * len(unseen)


@needs_tune
@pytest.mark.models
def test_an_interrupted_tuning_goes_on_and_ends_with_the_same_bytes(
    pictures: Path, tiny: dict[str, str], tuned: Tuned, tmp_path: Path
) -> None:
    """Stopped in the middle of training, two steps after it last wrote where it is. No request is put twice."""
    teacher = Counting(labels_of(pictures))

    def interrupt(event: Event) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "tune" and event.done == 42:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(pictures, tmp_path / "out", tiny["llava"], teacher=teacher, on_event=interrupt)
    assert (tmp_path / "out" / PROGRESS_NAME).is_file()
    steps: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "tune":
            steps.append(event.done)

    resumed = tune(pictures, tmp_path / "out", tiny["llava"], teacher=teacher, on_event=note)
    assert steps == list(range(41, SHORT.steps + 1))
    assert (resumed.learned, resumed.losses) == (tuned.learned, tuned.losses)
    assert adapter_bytes(tmp_path / "out") == adapter_bytes(tuned.adapter.parent)
    assert max(teacher.put.values()) == 1
    assert sum(teacher.put.values()) == resumed.calls <= CALLS
    assert not (tmp_path / "out" / PROGRESS_NAME).exists()


@needs_tune
@pytest.mark.models
def test_a_finished_tuning_is_not_done_again_and_another_recipe_is(
    pictures: Path, tiny: dict[str, str], tuned: Tuned
) -> None:
    seen: list[Event] = []
    teacher = Counting(labels_of(pictures))
    again = tune(pictures, tuned.adapter.parent, tiny["llava"], teacher=teacher, on_event=seen.append)
    assert again == tuned
    assert not teacher.put
    assert not [event for event in seen if isinstance(event, StageAdvanced) and event.stage == "tune"]
    before = adapter_bytes(tuned.adapter.parent)
    other = dataclasses.replace(SHORT, steps=5)
    assert len(tune(pictures, tuned.adapter.parent, tiny["llava"], teacher=teacher, settings=other).learned) == 5
    assert not teacher.put
    assert adapter_bytes(tuned.adapter.parent) != before


@needs_tune
@pytest.mark.models
def test_training_stops_where_the_held_out_answers_get_no_better(
    pictures: Path, tiny: dict[str, str], tmp_path: Path
) -> None:
    """Of a teacher that says anything there is nothing to learn but how often it says what."""
    labels = labels_of(pictures)
    random = dict(zip(labels, np.random.default_rng(1).permutation(list(labels.values())), strict=True))
    settings = TuneSettings(steps=400, batch=16, examine_every=5, patience=2)
    found = tune(pictures, tmp_path / "out", tiny["llava"], teacher=Counting(random), settings=settings)
    assert len(found.learned) < settings.steps
    assert found.best_step == found.losses[-3][0]


@needs_tune
@pytest.mark.models
def test_the_command_tunes_by_several_interests_within_the_calls(
    pictures: Path, tiny: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    teacher = Counting(labels_of(pictures), interests=("color", "hue"))
    asked: list[str] = []

    def load(spec: str, *rest: Any, **more: Any) -> ScriptedModel:
        asked.append(spec)
        return teacher

    monkeypatch.setattr("manylens.engine.base.load_model", load)
    monkeypatch.setattr("manylens.session.check_model_name", lambda *given: None)
    monkeypatch.setattr("manylens.engine.base.probe_model", lambda *given: None)
    words = ["tune", str(pictures), "--by", "color", "--by", "hue", "--teacher", "someone", "--teacher-calls", "61"]
    words += ["--out", str(tmp_path / "out"), "--student", tiny["llava"], "--device", "cpu", "--steps", "4"]
    assert cli.run(words) == 0
    assert asked == ["someone"]
    assert sum(teacher.put.values()) <= 60
    said = capsys.readouterr().out
    assert f"--model {tiny['llava']} --adapter {tmp_path / 'out' / 'adapter'}" in said
    account = json.loads((tmp_path / "out" / "tuning.json").read_text("utf-8"))
    assert account["calls"] == sum(teacher.put.values())
