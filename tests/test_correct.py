"""What a person says holds: in the files, through undo and redo, and in every later run."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_add import model, places, put

import manylens
from manylens import Correction
from manylens.cli import main as cli
from manylens.correcting import Corrector
from manylens.correcting.looks import looks_held
from manylens.errors import ModelError, UsageError
from manylens.models.base import LookReply, LookRequest
from manylens.models.scripted import ScriptedModel
from manylens.results.exports.run_table import read_run
from manylens.results.result import Result
from manylens.store.run_folder import RunFolder

RED, GREEN = "red-wide-0.png", "green-tall-3.png"


@pytest.fixture
def begun(tmp_path: Path) -> Result:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(4))
    return manylens.cluster(tmp_path / "pictures", ["color", "shape"], model=model(), out=tmp_path / "out")


def rows(out: Path, interest: str = "color") -> dict[str, dict[str, str]]:
    with open(out / interest / "assignments.csv", newline="", encoding="utf-8") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def names(out: Path, interest: str = "color") -> dict[str, str]:
    return {image: row["name"] for image, row in rows(out, interest).items()}


def test_a_moved_picture_is_where_the_person_put_it_and_nothing_else_moves(begun: Result) -> None:
    before = names(begun.out)
    change = manylens.correct(begun, "color", [Correction("move", (RED,), "green")])
    assert [len(change.moved), change.step is not None] == [1, True]
    row = rows(begun.out)[RED]
    assert (row["name"], row["confidence"], row["decided_by"]) == ("green", "1.0000", "person")
    assert row["reason"] == 'a person put it into "green"'
    assert names(begun.out) == {**before, RED: "green"}
    assert names(begun.out, "shape")[RED] == "wide", "another interest is not touched"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"kind": "new", "images": [RED, GREEN], "name": "odd"}, {RED: "odd", GREEN: "odd"}),
        ({"kind": "split", "images": [RED], "name": "first"}, {RED: "first"}),
        ({"kind": "split", "images": [RED]}, {RED: "red (4)"}),
        ({"kind": "unassign", "images": [RED]}, {RED: ""}),
        ({"kind": "not", "images": [RED]}, {RED: ""}),
        ({"kind": "not", "images": [RED], "cluster": "green"}, {}),
        ({"kind": "confirm", "images": [RED, GREEN]}, {}),
    ],
)
def test_each_kind_does_what_it_says_and_undo_takes_it_back(
    begun: Result, said: dict[str, object], expected: dict[str, str]
) -> None:
    before = rows(begun.out)
    manylens.correct(begun, "color", [said])
    after = {image: row["name"] for image, row in before.items()} | expected
    assert names(begun.out) == after
    assert manylens.undo(begun, "color") is not None
    assert rows(begun.out) == before
    assert manylens.undo(begun, "color") is None
    assert manylens.redo(begun, "color") is not None
    assert names(begun.out) == after
    assert manylens.redo(begun, "color") is None


def test_merge_and_rename_hold_through_another_run_and_level(tmp_path: Path, begun: Result) -> None:
    ids = {cluster.name: cluster.id for cluster in begun["color"].clusters}
    manylens.correct(
        begun,
        "color",
        [Correction("rename", cluster="blue", name="Blau"), Correction("merge", cluster="red", into="green")],
    )
    for settings in ({}, {"level": "fine"}, {"settings": manylens.Settings(seed=7)}):
        again = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=begun.out, **settings)
        assert {c.name: (c.id, c.size) for c in again["color"].clusters} == {
            "Blau": (ids["blue"], 8),
            "green": (ids["green"], 16),
        }
    manylens.undo(begun, "color")
    with RunFolder.open(begun.out) as run:
        assert {c.name: c.id for c in Corrector(run, "color").shown.clusters} == ids


def test_undo_is_without_limit_and_something_new_ends_what_could_be_redone(begun: Result) -> None:
    every = sorted(names(begun.out))
    first = rows(begun.out)
    for image in every:
        manylens.correct(begun, "color", [{"kind": "unassign", "images": [image]}])
    for _ in every:
        assert manylens.undo(begun, "color") is not None
    assert rows(begun.out) == first
    for _ in every[:3]:
        manylens.redo(begun, "color")
    assert [image for image, name in names(begun.out).items() if not name] == every[:3]
    manylens.correct(begun, "color", [{"kind": "confirm", "images": [every[5]]}])
    assert manylens.redo(begun, "color") is None


def test_a_new_cluster_keeps_its_id_and_no_id_is_used_twice(tmp_path: Path, begun: Result) -> None:
    manylens.correct(begun, "color", [{"kind": "new", "images": [RED], "name": "one"}])
    manylens.undo(begun, "color")
    manylens.correct(begun, "color", [{"kind": "new", "images": [RED], "name": "two"}])
    again = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=begun.out)
    assert {c.id: c.name for c in again["color"].clusters if c.size == 1} == {5: "two"}


def test_corrections_hold_when_pictures_come_later(tmp_path: Path, begun: Result) -> None:
    manylens.correct(
        begun,
        "color",
        [
            Correction("new", ("red-wide-0.png", "red-wide-1.png", "red-tall-1.png"), name="rouge"),
            Correction("merge", cluster="blue", into="green"),
        ],
    )
    before = names(begun.out)
    put(tmp_path / "pictures", ("blue", "red"), range(4, 6))
    grown = manylens.add(begun.out, tmp_path / "pictures", model=model())
    after = names(begun.out)
    assert {image: after[image] for image in before} == before
    assert {after[image] for image in after if image.startswith("blue")} == {"green"}
    assert grown["color"].counts.assigned == 32
    manylens.undo(begun, "color")
    undone = names(begun.out)
    assert all(undone[image] in image for image in before), "what came later was added to what the person had made"
    assert "" not in undone.values()


def test_composed_and_decomposed_names_are_one(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(3))
    (tmp_path / "pictures" / RED).rename(tmp_path / "pictures" / unicodedata.normalize("NFD", "röt.png"))
    result = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    change = manylens.correct(result, None, [{"kind": "move", "images": ["röt.png"], "cluster": "green"}])
    assert len(change.moved) == 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "move", "images": ["red-wide-0.pgn"], "cluster": "green"}, "did you mean 'red-wide-0.png'"),
        ({"kind": "move", "images": ["elsewhere/red-wide-0.png"], "cluster": "green"}, "did you mean 'red-wide-0.png'"),
        ({"kind": "move", "images": [RED], "cluster": "gren"}, 'did you mean "green"'),
        ({"kind": "move", "images": [RED], "cluster": 9}, "names a cluster that is there, got 9"),
        ({"kind": "move", "images": [], "cluster": "green"}, "at least one image"),
        ({"kind": "move", "images": [RED]}, "names a cluster that is there, got None"),
        ({"kind": "new", "images": [RED], "name": "Green"}, '"green" is there'),
        ({"kind": "new", "images": [RED], "name": " "}, "1 to 200 characters"),
        ({"kind": "split", "images": [RED, GREEN]}, "its own pictures"),
        ({"kind": "merge", "cluster": "red", "into": "red"}, "two clusters are merged"),
        ({"kind": "rename", "cluster": "red", "name": "blue"}, '"blue" is there'),
        ({"kind": "paint", "images": [RED]}, "a correction is one of move"),
        ({"kind": "move", "pictures": [RED]}, "a correction has a kind"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_kept(begun: Result, said: dict[str, object], message: str) -> None:
    before = rows(begun.out)
    with pytest.raises(UsageError) as error:
        manylens.correct(begun, "color", [{"kind": "unassign", "images": [GREEN]}, said])
    assert message in str(error.value)
    assert rows(begun.out) == before
    assert manylens.undo(begun, "color") is None


def test_a_preview_keeps_nothing(begun: Result) -> None:
    before = rows(begun.out)
    change = manylens.correct(begun, "color", [{"kind": "merge", "cluster": "red", "into": "blue"}], dry_run=True)
    assert (len(change.moved), change.step) == (8, None)
    assert rows(begun.out) == before


def test_the_interest_is_named_where_there_are_several(begun: Result) -> None:
    with pytest.raises(UsageError, match="say which: 'color', 'shape'"):
        manylens.undo(begun)


def test_files_that_were_not_written_yet_are_known_and_written_by_the_next(begun: Result) -> None:
    with RunFolder.open(begun.out) as run:
        Corrector(run, "color").say([Correction("move", (RED,), "green")])
        assert run.stale() == ("color",)
    assert names(begun.out)[RED] == "red"
    assert manylens.redo(begun, "color") is None
    assert names(begun.out)[RED] == "green"
    with RunFolder.open(begun.out) as run:
        assert run.stale() == ()
    assert places(begun, "shape")[RED][0] is not None


class Second(ScriptedModel):
    """Another model: it says everything in other words."""

    name = "second"

    @property
    def identity(self) -> str:
        return "second, with weights of its own"

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        replies = await super().look(requests)
        return [replace(r, description=f"some {r.description}") if isinstance(r, LookReply) else r for r in replies]


def test_the_looks_of_a_clustering_are_those_of_the_model_that_made_it(tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    put(folder, ("red", "green"), range(3))

    def begins(made: type[ScriptedModel]) -> tuple[bool, ...]:
        """Whether descriptions begin with "some", as the second model says them, wherever they are read."""
        manylens.cluster(folder, "color", model=model(made), out=out)
        with RunFolder.read(out) as run:
            ((shown, _),) = run.clusterings()
            (found,) = read_run(out).embeddings.values()
            own = run.looked("color", shown.identity)
            assert {image: tuple(vector) for image, vector in found.items()} == {
                image: tuple(look.embedding) for image, look in own.items()
            }
            looks = run.looks("color", shown.identity)
            every = (
                looks_held(run, shown).descriptions,
                list(looks.values()),
                [look.description for look in own.values()],
            )
        return tuple(all(text.startswith("some ") for text in texts) for texts in every)

    assert begins(ScriptedModel) == (False,) * 3
    assert begins(Second) == (True,) * 3, "as many looks as the first has"
    put(folder, ("blue",), range(3))
    assert begins(ScriptedModel) == (False,) * 3
    for file in folder.glob("blue-*.png"):
        file.unlink()
    assert begins(Second) == (True,) * 3, "fewer looks are its own than the first has"


def test_where_a_run_does_not_say_whose_looks_are_its_own_the_newest_are(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(3))
    for made in (ScriptedModel, Second):
        manylens.cluster(tmp_path / "pictures", "color", model=model(made), out=tmp_path / "out")
    with RunFolder.read(tmp_path / "out") as run:
        assert all(text.startswith("some ") for text in run.looks("color").values())


def test_what_was_said_of_every_interest_is_listed_under_its_words(
    begun: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    manylens.correct(begun, "color", [{"kind": "unassign", "images": [RED]}])
    manylens.correct(begun, "shape", [{"kind": "unassign", "images": [GREEN]}])
    assert cli.run(["correct", str(begun.out), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["color:", "shape:"]
    assert len(lines) == 4 and all("1 picture taken out" in lines[at] for at in (1, 3))
