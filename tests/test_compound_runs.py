"""Compound interests from the folder to the result files: by each part, and by both."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from test_add import model, put

import manylens
from manylens import Settings
from manylens.cli import main as cli
from manylens.models.base import CompleteReply, CompleteRequest
from manylens.models.scripted import ScriptedModel
from manylens.writing import Categories, GroupDescriptions, GroupName, NameClusters, Names

BOTH = "color and shape"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    put(tmp_path / "pictures", ("red", "green"), range(6))
    return tmp_path / "pictures"


def test_by_both_costs_no_look_that_the_parts_do_not(pictures: Path, tmp_path: Path) -> None:
    apart, together = model(), model()
    manylens.cluster(pictures, ["color", "shape"], model=apart, out=tmp_path / "apart")
    result = manylens.cluster(pictures, BOTH, model=together, out=tmp_path / "together")
    assert list(result) == ["color", "shape", BOTH]
    assert together.calls == apart.calls
    for path, name in result[BOTH].labels.items():
        assert name == f"{result['color'].labels[path]}, {result['shape'].labels[path]}"
    again = model()
    manylens.cluster(pictures, BOTH, model=again, out=tmp_path / "apart")
    assert again.calls.total() == 0


def test_its_files_are_those_of_any_interest(pictures: Path, tmp_path: Path) -> None:
    manylens.cluster(pictures, BOTH, model=model(), out=tmp_path / "out")
    folder = tmp_path / "out" / "color-and-shape"
    with (folder / "assignments.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(list(pictures.iterdir()))
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary["calls"] == 0
    assert "without another look" in summary["notes"][0]
    assert {c["name"] for c in json.loads((folder / "clusters.json").read_text("utf-8"))} == {r["name"] for r in rows}
    assert cli.run(["verify", str(tmp_path / "out")]) == 0


def test_as_one_it_is_one_question(pictures: Path, tmp_path: Path) -> None:
    both = {i: "x" for of in model()._classes for i in of}  # nobody asks for its parts
    asked: list[str] = []

    class One(ScriptedModel):
        async def look(self, requests: Any) -> Any:
            asked.extend(request.interest for request in requests)
            return await super().look(requests)

    one = One(lambda *_: "x", classes={BOTH: ["x"], "color": both})
    manylens.cluster(pictures, BOTH, model=one, out=tmp_path / "out", settings=Settings(compound=False))
    assert set(asked) == {BOTH}


def test_a_model_that_writes_names_the_combinations_and_what_it_names_badly_keeps_its_name(
    pictures: Path, tmp_path: Path
) -> None:
    known = model()

    class Writer(ScriptedModel):
        async def complete(self, requests: Any) -> Any:
            return [self._written(request) for request in requests]

        def _written(self, request: CompleteRequest) -> CompleteReply:
            task = request.task
            assert isinstance(task, NameClusters | GroupDescriptions)
            if isinstance(task, GroupDescriptions):
                return CompleteReply(Categories(()))
            named = (GroupName(c.id, f"{'-'.join(c.descriptions[0][0].split(', '))}s", "d") for c in task.clusters)
            return CompleteReply(Names(tuple(named)))

    writer = Writer(known._label, classes=known._classes, writes_text=True)
    result = manylens.cluster(pictures, BOTH, model=writer, out=tmp_path / "out")
    names = {row.name for row in result[BOTH].table}
    assert all("-" in name and name.endswith("s") for name in names)
    assert result[BOTH].clustering.calls.complete == 1


def test_pictures_that_are_added_join_the_combinations_of_their_parts(pictures: Path, tmp_path: Path) -> None:
    before = manylens.cluster(pictures, BOTH, model=model(), out=tmp_path / "out")[BOTH]
    put(pictures, ("red", "green"), range(6, 8))
    put(pictures, ("blue",), range(2))
    after = manylens.add(tmp_path / "out", pictures, model=model())[BOTH]
    for path, name in before.labels.items():
        assert after.labels[path] == name
    names = {row.id: row.name for row in before.table}
    assert names.items() <= {row.id: row.name for row in after.table}.items()
    fresh = {path: name for path, name in after.labels.items() if path not in before.labels}
    assert all(name == ", ".join(path.split("-")[:2]) for path, name in fresh.items())


def test_the_command_line_says_what_it_does_and_forecasts_the_parts(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["cluster", str(pictures), "--by", BOTH, "--dry-run"]) == 0
    count = len(list(pictures.iterdir()))
    assert f"describe:   {2 * count}" in capsys.readouterr().out
    assert cli.run(["cluster", str(pictures), "--by", BOTH, "--as-one", "--dry-run"]) == 0
    assert f"describe:   {count}" in capsys.readouterr().out


def test_what_a_person_said_of_a_part_holds_in_the_combinations(pictures: Path, tmp_path: Path) -> None:
    manylens.cluster(pictures, BOTH, model=model(), out=tmp_path / "out")
    moved = sorted(path.name for path in pictures.iterdir() if path.name.startswith("red-wide"))[:2]
    manylens.correct(tmp_path / "out", "color", [{"kind": "move", "images": moved, "cluster": "green"}])
    after = manylens.cluster(pictures, BOTH, model=model(), out=tmp_path / "out")
    assert {after["color"].labels[path] for path in moved} == {"green"}
    assert {after[BOTH].labels[path] for path in moved} == {"green, wide"}
    assert {row.decided_by for row in after[BOTH].files.rows if row.path in moved} == {"person"}


def test_what_a_person_said_of_a_combination_holds_in_a_later_run(pictures: Path, tmp_path: Path) -> None:
    manylens.cluster(pictures, BOTH, model=model(), out=tmp_path / "out")
    path = min(entry.name for entry in pictures.iterdir())
    manylens.correct(tmp_path / "out", BOTH, [{"kind": "unassign", "images": [path]}])
    again = manylens.cluster(pictures, BOTH, model=model(), out=tmp_path / "out")
    assert again[BOTH].labels[path] is None
