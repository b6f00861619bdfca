"""From a folder to a finished run: Python's door and the estimator, with the scripted model on real files."""

import asyncio
import csv
import hashlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from sklearn.base import clone

import manylens
from manylens.api import default_out
from manylens.errors import ModelError, UsageError
from manylens.estimator import InterestClustering
from manylens.events import Event, StageFinished, StageStarted
from manylens.models.scripted import DESIGN_NOISE, Noise, ScriptedModel
from manylens.store.run_folder import RunFolder
from manylens.types import parse_interests

COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}
SIZES = {"wide": (40, 20), "tall": (20, 40)}


def picture(color: str, shape: str, number: int) -> bytes:
    """A PNG whose bytes differ by `number`, and whose labels can be read off its pixels."""
    image = PillowImage.new("RGB", SIZES[shape], COLORS[color])
    image.putpixel((number % 20, number // 20), (255, 255, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, each: int = 10) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for color in COLORS:
        for shape in SIZES:
            for number in range(each):
                (folder / f"{color}-{shape}-{number:02d}.png").write_bytes(picture(color, shape, number))
    return folder


def model_for(files: Iterable[Path], noise: Noise | None = None) -> ScriptedModel:
    """A model that knows the pictures of `fill` by their content; its labels come from their names here alone."""
    color: dict[str, str] = {}
    shape: dict[str, str] = {}
    for file in files:
        image_id = hashlib.sha256(file.read_bytes()).hexdigest()
        color[image_id], shape[image_id], _ = file.name.split("-")
    return ScriptedModel({"color": color, "shape": shape}, noise=noise or Noise())


def test_labels_name_each_file_s_cluster(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    result = manylens.cluster(folder, by=["color", "shape"], model=model_for(folder.iterdir()), out=tmp_path / "out")
    assert list(result) == ["color", "shape"]
    assert result["color"].labels == {file.name: file.name.split("-")[0] for file in folder.iterdir()}
    assert result["shape"].labels == {file.name: file.name.split("-")[1] for file in folder.iterdir()}


def test_the_table_counts_files_and_lists_exemplars(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    one = manylens.cluster(folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / "out")["color"]
    assert sorted((row.name, row.size) for row in one.table) == [("blue", 20), ("green", 20), ("red", 20)]
    assert all(path.startswith(row.name) for row in one.table for path in row.exemplars)
    assert all(0.5 < row.confidence <= 1 for row in one.table)


def test_a_run_leaves_the_contracted_files(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    result = manylens.cluster(folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / "out", links=True)
    assert result.report == tmp_path / "out" / "report.html"
    assert result.report.is_file()
    assert {path.name for path in result["color"].folder.iterdir()} == {
        "assignments.csv",
        "clusters",
        "clusters.json",
        "summary.json",
        "vocabulary.json",
    }
    assert (tmp_path / "out" / "unreadable.csv").is_file()


def test_the_same_call_again_asks_nothing_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    first = model_for(folder.iterdir())
    manylens.cluster(folder, by="color", model=first, out=tmp_path / "out")
    files = ("report.html", "color/assignments.csv", "color/clusters.json", "color/vocabulary.json")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files}
    second = model_for(folder.iterdir())
    manylens.cluster(folder, by="color", model=second, out=tmp_path / "out")
    assert sum(first.calls.values()) >= 60
    assert sum(second.calls.values()) == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == before


def test_a_result_says_how_many_answers_were_kept_from_an_earlier_run(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    runs = [
        manylens.cluster(folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / "out") for _ in range(2)
    ]
    assert runs[0].calls_asked >= 60
    assert runs[0].calls_kept == 0
    assert runs[1].calls_asked == 0
    assert runs[1].calls_kept >= runs[0].calls_asked


def test_two_runs_end_with_the_same_bytes(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    for out in ("one", "two"):
        manylens.cluster(folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / out)
    for name in ("report.html", "unreadable.csv", "color/assignments.csv", "color/clusters.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, two = (json.loads((tmp_path / out / "color" / "summary.json").read_text()) for out in ("one", "two"))
    assert {name for name in one if one[name] != two[name]} <= {"seconds"}


def test_unreadable_files_and_copies_are_counted(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    model = model_for(folder.iterdir())
    (folder / "copy.png").write_bytes((folder / "red-wide-00.png").read_bytes())
    (folder / "empty.jpg").touch()
    result = manylens.cluster(folder, by="color", model=model, out=tmp_path / "out")
    summary = json.loads((result["color"].folder / "summary.json").read_text())
    assert (summary["files_found"], summary["images"], summary["distinct_images"]) == (62, 61, 60)
    assert (summary["assigned"], summary["unassigned"], summary["failed"]) == (61, 0, 1)
    assert result["color"].labels["copy.png"] == "red"
    assert [file.path for file in result.unreadable] == ["empty.jpg"]


def test_every_stage_reports(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", each=4)
    events: list[Event] = []
    manylens.cluster(
        folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / "out", on_event=events.append
    )
    stages = ["read", "look", "walk", "check", "name"]
    assert [event.stage for event in events if isinstance(event, StageStarted)] == stages
    assert [event.stage for event in events if isinstance(event, StageFinished)] == stages


def test_level_groups_and_into_may_be_said_beside_the_settings(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures")
    ask = {"by": "color", "out": tmp_path / "out"}
    manylens.cluster(folder, model=model_for(folder.iterdir()), **ask)  # type: ignore[arg-type]
    said: list[tuple[dict[str, Any], int | None]] = [
        ({"n_clusters": 2}, 2),
        ({"n_clusters": 1}, 1),
        ({"level": "coarse"}, None),
        ({"level": "fine"}, None),
        ({"settings": manylens.Settings(n_clusters=2), "level": "medium"}, 2),
    ]
    for more, count in said:
        model = model_for(folder.iterdir())
        result = manylens.cluster(folder, model=model, **ask, **more)  # type: ignore[arg-type]
        assert count in (None, len(result["color"].clusters))
        assert model.calls.total() == 0, "a level of a finished run asks nothing"
    result = manylens.cluster(folder, model=model_for(folder.iterdir()), into="red, blue", **ask)  # type: ignore[arg-type]
    expected = {"red": "red", "blue": "blue", "green": None}
    assert result["color"].labels == {f.name: expected[f.name.split("-")[0]] for f in folder.iterdir()}
    again = manylens.cluster(folder, model=model_for(folder.iterdir()), into=["red", "blue"], **ask)  # type: ignore[arg-type]
    assert again["color"].labels == result["color"].labels
    for wrong in ("red", [], ["red", 3], {"into": "a, b", "n_clusters": 2}):
        given = wrong if isinstance(wrong, dict) else {"into": wrong}
        if wrong == []:
            continue
        with pytest.raises(UsageError):
            manylens.cluster(folder, model=model_for(folder.iterdir()), **ask, **given)  # type: ignore[arg-type]


def test_settings_of_before_are_refused() -> None:
    """CHANGELOG says what replaced them."""
    for name in ("trust_weight", "audit_share", "second_looks", "judgements_per_image"):
        with pytest.raises(TypeError, match=name):
            manylens.Settings(**{name: 0.5})  # type: ignore[arg-type]


def test_it_works_inside_a_running_loop(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", each=4)

    async def notebook() -> int:
        result = manylens.cluster(folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / "out")
        return len(result["color"].clusters)

    assert asyncio.run(notebook()) == 3


def test_an_interrupt_inside_a_running_loop_ends_the_work() -> None:
    """As a person stops a notebook's cell: a real signal, in a process of its own."""
    script = (
        "import asyncio, signal\n"
        "from manylens.sync import run_until_done\n"
        "async def work():\n"
        "    print('begun', flush=True)\n"
        "    try: await asyncio.sleep(60)\n"
        "    except asyncio.CancelledError: print('cancelled', flush=True); raise\n"
        "async def cell():\n"
        # asyncio.run takes SIGINT for itself; a notebook's kernel raises KeyboardInterrupt where it waits.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try: run_until_done(work())\n"
        "    except KeyboardInterrupt: print('stopped', flush=True)\n"
        "asyncio.run(cell())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "cancelled\nstopped\n"


def test_a_result_knows_its_interests_and_nothing_else(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", each=4)
    result = manylens.cluster(folder, by="color", model=model_for(folder.iterdir()), out=tmp_path / "out")
    assert "color" in result
    assert 0 not in result  # type: ignore[comparison-overlap]


def test_an_error_is_shown_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        manylens.cluster(tmp_path / "nowhere", by="color", model=model_for([]))
    assert caught.value.__context__ is None


def test_an_error_leaves_no_empty_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(UsageError):
            manylens.cluster(tmp_path / folder, by="color", model=ScriptedModel({}), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plan_asks_and_writes_nothing(tmp_path: Path) -> None:
    folder = fill(tmp_path / "pictures", each=2)
    found = manylens.plan(folder, by=["color", "shape"])
    assert (found.images, found.looks, found.files_found) == (12, 24, 12)
    assert found.beside == (0, 0), "nano's answers repeat its looks"
    assert found.calls == (24, 24)
    given = manylens.plan(folder, by=["color", "shape"], settings=manylens.Settings(into=("red", "blue")))
    assert given.beside[0] == 0 < given.beside[1], "but it may be asked of names that are given"
    assert found.minutes is not None
    assert 0 < found.minutes[0] <= found.minutes[1]
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


@pytest.mark.parametrize("by", [[], None, 3, ["suit", 3], [""], ["x" * 501], ["suit", "Suit!"], ["字" * 100]])
def test_interests_that_cannot_be_are_refused(by: Any) -> None:
    with pytest.raises(UsageError):
        parse_interests(by)


def test_a_continued_run_takes_the_seed_it_is_given(tmp_path: Path) -> None:
    """The answers of another seed are used where they are the same, and change nothing. Of a closed list, whose
    clusters have the same numbers whatever the seed."""
    folder = fill(tmp_path / "pictures")

    def sort(out: str, seed: int) -> tuple[dict[str, bytes], dict[str, str]]:
        model = model_for(folder.iterdir(), DESIGN_NOISE)
        settings = manylens.Settings(seed=seed, effort="high", into=tuple(COLORS))
        manylens.cluster(folder, by="color", model=model, out=tmp_path / out, settings=settings)
        files = {name: (tmp_path / out / "color" / name).read_bytes() for name in ("assignments.csv", "clusters.json")}
        summary = json.loads((tmp_path / out / "color" / "summary.json").read_bytes())
        del summary["seconds"]
        with RunFolder.open(tmp_path / out) as run:
            asked = dict(run.requests())
        return {**files, "summary": json.dumps(summary).encode()}, asked

    def drawn(asked: dict[str, str]) -> dict[str, set[tuple[str, ...]]]:
        """Picture -> the orders in which it was offered clusters to choose from."""
        orders: dict[str, set[tuple[str, ...]]] = {}
        for kind, request in map(json.loads, asked.values()):
            if kind == "ChooseRequest":
                names = tuple(option["name"] for option in request["options"])
                orders.setdefault(request["candidate_id"], set()).add(names)
        return orders

    _, asked = sort("continued", 0)
    fresh, afresh = sort("fresh", 1)
    one, other = drawn(asked), drawn(afresh)
    assert one.keys() != other.keys(), "another seed asks about other pictures"
    assert any(not one[image] & other[image] for image in one.keys() & other.keys()), "and in another order"
    continued, held = sort("continued", 1)
    assert continued == fresh
    assert held == asked | afresh


def test_the_default_run_folder_is_named_after_the_images(tmp_path: Path) -> None:
    assert default_out(tmp_path / "holiday") == Path("holiday-manylens")
    (tmp_path / "photos").symlink_to(tmp_path / "2026-11-26", target_is_directory=True)
    assert default_out(tmp_path / "photos") == Path("photos-manylens")


def test_estimator_labels_files_in_their_order(tmp_path: Path) -> None:
    files = sorted(fill(tmp_path / "pictures").iterdir())
    model = model_for(files)
    found = InterestClustering("color", model=model).fit(files)
    names = [found.cluster_names_[label] for label in found.labels_]
    assert names == [file.name.split("-")[0] for file in files]
    assert found.labels_.dtype == np.int64
    assert len(found.definitions_) == 3
    assert found.confidence_.min() > 0.5


def test_estimator_takes_levels_counts_and_lists(tmp_path: Path) -> None:
    files = sorted(fill(tmp_path / "pictures").iterdir())
    two = InterestClustering("color", model=model_for(files), n_clusters=2).fit(files)
    assert len(two.cluster_names_) == 2
    listed = InterestClustering("color", model=model_for(files), into=["red", "blue"]).fit(files)
    assert sorted(listed.cluster_names_) == ["blue", "red"]
    assert [file.name.split("-")[0] for file, label in zip(files, listed.labels_, strict=True) if label < 0] == [
        "green"
    ] * 20


def test_estimator_marks_what_it_cannot_use_with_minus_one(tmp_path: Path) -> None:
    files = sorted(fill(tmp_path / "pictures", each=4).iterdir())
    model = model_for(files)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "notes.txt").write_text("no picture")
    odd = [tmp_path / "broken.jpg", *files, files[0], tmp_path / "missing.png", tmp_path / "notes.txt"]
    odd.append(tmp_path / "pictures")
    found = InterestClustering("color", model=model).fit(odd)
    labels = found.labels_
    assert [index for index, label in enumerate(labels) if label == -1] == [0, *range(len(odd) - 3, len(odd))]
    assert labels[1] == labels[-4]
    reasons = [found.unreadable_[len(odd) - back] for back in (3, 2, 1)]
    assert reasons == ["no such file", "not an image", "a folder, not a file"]
    with pytest.raises(UsageError, match="the first: no such file"):
        InterestClustering("color", model=model).fit([tmp_path / "missing.png"])
    with pytest.raises(UsageError, match=r"none of the 1 files is one, the first: .*notes\.txt"):
        InterestClustering("color", model=model).fit([tmp_path / "notes.txt"])


def test_estimator_follows_scikit_learn(tmp_path: Path) -> None:
    estimator = InterestClustering("color", settings=manylens.Settings(seed=3))
    copy = clone(estimator).set_params(by="shape")
    assert copy.get_params() == {
        "by": "shape",
        "model": "nano",
        "options": None,
        "settings": manylens.Settings(seed=3),
        "level": None,
        "n_clusters": None,
        "into": None,
        "out": None,
        "progress": None,
    }
    assert estimator.by == "color"
    with pytest.raises(UsageError):
        estimator.fit("a folder, not a list")
    with pytest.raises(UsageError, match="one interest, a string"):
        InterestClustering(["color", "shape"]).fit(["a.png"])  # type: ignore[arg-type]


def test_estimator_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = sorted(fill(tmp_path / "pictures", each=4).iterdir())
    InterestClustering("color", model=model_for(files)).fit([file.relative_to(tmp_path) for file in files])
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_an_estimators_kept_run_names_the_persons_own_files(tmp_path: Path) -> None:
    """Files of several folders, one of them hidden and one given twice."""
    files = sorted(fill(tmp_path / "pictures", each=2).iterdir())
    hidden = tmp_path / ".more" / files[0].name
    hidden.parent.mkdir()
    files[0] = files[0].rename(hidden)
    found = InterestClustering("color", model=model_for(files), out=tmp_path / "out").fit([*files, files[1]])
    assert len(found.labels_) == len(files) + 1
    assert found.labels_[1] == found.labels_[-1] >= 0
    with open(tmp_path / "out" / "color" / "assignments.csv", encoding="utf-8", newline="") as table:
        named = {row["image"] for row in csv.DictReader(table)}
    assert named == {file.relative_to(tmp_path).as_posix() for file in files}
    with RunFolder.open(tmp_path / "out") as run:
        assert {path for image in run.images() for path in image.paths} == named
    assert f".more/{hidden.name}" in (tmp_path / "out" / "report.html").read_text("utf-8")
    with pytest.raises(UsageError, match="none of the 1 files is one"):
        InterestClustering("color").fit([tmp_path / "nowhere" / "a.png"])


def test_estimator_works_without_scikit_learn(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from manylens import InterestClustering\n"
        "found = InterestClustering('color').set_params(by='shape')\n"
        "print(found.get_params(), 'sklearn.base' in sys.modules, callable(found.fit_predict))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == "{'by': 'shape', 'model': 'nano', 'options': None, 'settings': None, 'level': None, 'n_clusters': None, "
        "'into': None, 'out': None, 'progress': None} False True"
    )


def test_the_report_shows_every_interest_of_the_folder(tmp_path: Path) -> None:
    files = sorted(fill(tmp_path / "pictures", each=4).iterdir())
    out = tmp_path / "out"
    for by in ("color", "shape", "color"):
        result = manylens.cluster(tmp_path / "pictures", by, model=model_for(files), out=out)
    page = result.report.read_text("utf-8")
    assert page.index('"text":"color"') < page.index('"text":"shape"')
    assert list(result) == ["color"]
    with RunFolder.open(out) as run:
        assert [clustering.interest.text for clustering, _ in run.clusterings()] == ["color", "shape"]


def test_too_many_failed_calls_are_a_problem_in_python_too(tmp_path: Path) -> None:
    files = sorted(fill(tmp_path / "pictures", each=4).iterdir())
    model = model_for(files)

    async def fails(requests: object) -> list[ModelError]:
        return [ModelError("no answer")] * len(requests)  # type: ignore[arg-type]

    model.look = fails  # type: ignore[method-assign, assignment]
    for allowed, is_problem in ((0.5, True), (1.0, False)):
        result = manylens.cluster(
            tmp_path / "pictures",
            "color",
            model=model,
            out=tmp_path / str(allowed),
            settings=manylens.Settings(max_failed=allowed),
        )
        assert isinstance(result.problem, ModelError) == is_problem
        assert result.report.is_file()
