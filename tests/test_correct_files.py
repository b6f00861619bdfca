"""Corrections from files: rows that a person writes, an edited `assignments.csv`, and the command line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from test_add import model, put
from test_correct import GREEN, RED, names, rows

import manylens
from manylens.cli import main as cli
from manylens.cli import render
from manylens.errors import UsageError
from manylens.results.result import Result
from manylens.settings import Settings


@pytest.fixture
def begun(tmp_path: Path) -> Result:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(3))
    return manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(begun: Result, capsys: pytest.CaptureFixture[str]) -> Run:
    def work(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["correct", str(begun.out), *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return work


def file(tmp_path: Path, text: str, encoding: str = "utf-8") -> str:
    place = tmp_path / "corrections.csv"
    place.write_bytes(text.encode(encoding))
    return str(place)


EVERY = (
    "red-wide-0.png,green\nred-wide-1.png,in,#1\nred-wide-2.png,not,red\nred-tall-0.png,new,odd\n"
    "red-tall-1.png,NEW,odd\nred-tall-2.png,none,\ngreen-tall-0.png,yes,\nblue,rename,Blau\n"
)


@pytest.mark.parametrize("head", ["", "image,cluster\n", "Image,not,cluster\n\n"])
@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_a_file_of_rows_is_one_step(
    tmp_path: Path, begun: Result, run: Run, head: str, delimiter: str, encoding: str
) -> None:
    first = {cluster.id: cluster.name for cluster in begun["color"].clusters}[1]
    before = names(begun.out)
    code, out, _ = run(file(tmp_path, (head + EVERY).replace(",", delimiter), encoding))
    assert (code, out.splitlines()[0]) == (
        0,
        f"Taken step 1: {6 - (first == 'red')} pictures are elsewhere now, 1 cluster is called otherwise.",
    )
    expected = {
        **{image: "Blau" if name == "blue" else name for image, name in before.items()},
        "red-wide-0.png": "green",
        "red-wide-1.png": "Blau" if first == "blue" else first,
        "red-wide-2.png": "",
        "red-tall-0.png": "odd",
        "red-tall-1.png": "odd",
        "red-tall-2.png": "",
    }
    assert names(begun.out) == expected
    assert rows(begun.out)["green-tall-0.png"]["decided_by"] == "person"
    assert run("--list")[1].count("\n") == 8
    assert run("--undo")[0] == 0
    assert names(begun.out) == before
    assert "(undone)" in run("--list")[1]
    assert "Said again step 1" in run("--redo")[1]
    assert names(begun.out) == expected
    assert "Nothing to redo" in run("--redo")[1]


def test_merge_rows_and_dry_run(tmp_path: Path, begun: Result, run: Run) -> None:
    before = rows(begun.out)
    said = file(tmp_path, "red,merge,green\n")
    code, out, _ = run(said, "--dry-run")
    assert (code, '6 from "red" to "green"' in out) == (0, True)
    assert rows(begun.out) == before
    run(said)
    assert set(names(begun.out).values()) == {"green", "blue"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,cluster\nred-wide-0.png,green\nred-wide-9.png,green\n", "line 3: a correction is about a picture"),
        ("red-wide-0.png,green\n\nred-wide-1.png,gren\n", "line 3: a correction names a cluster that is there, got"),
        ("red-wide-0.png,put,green\n", "line 1: the middle of a row is one of in, not, new, yes, none, rename, merge"),
        ("red-wide-0.png,\n", "write image,none,"),
        ("red-wide-0.png\n", "line 1: a row is image,cluster or image,not,cluster"),
        ("image,cluster,name,confidence\na,b,c,d\n", "taken with --from-edited"),
        ("image,cluster\n", "has none"),
        ('"red-wide-0.png,green\n', "a row is CSV"),
        ("red,rename,green\n", 'line 1: clusters have different names, "green" is there'),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_taken(
    tmp_path: Path, begun: Result, run: Run, text: str, message: str
) -> None:
    before = rows(begun.out)
    code, _, error = run(file(tmp_path, text))
    assert (code, message in error) == (1, True), error
    assert rows(begun.out) == before
    assert run("--list")[1] == "Nothing was said.\n"


def test_a_file_of_other_bytes_and_one_that_is_not_there_are_said(tmp_path: Path, run: Run) -> None:
    assert "line 2 of corrections.csv is not" in run(file(tmp_path, "image,cluster\nrot-ü.png,red\n", "latin-1"))[2]
    assert "cannot be read" in run(str(tmp_path / "nothing.csv"))[2]


def test_one_thing_at_a_time(tmp_path: Path, run: Run) -> None:
    assert run()[0] == run("--undo", "--list")[0] == run("--undo", "--dry-run")[0] == 2


def edit(out: Path, change: Callable[[dict[str, str]], None]) -> None:
    place = out / "color" / "assignments.csv"
    with open(place, newline="", encoding="utf-8") as table:
        reader = csv.DictReader(table)
        found, columns = list(reader), list(reader.fieldnames or ())
    for row in found:
        change(row)
    with open(place, "w", newline="", encoding="utf-8-sig") as table:
        writer = csv.DictWriter(table, columns, delimiter=";")
        writer.writeheader()
        writer.writerows(found)


def by_hand(row: dict[str, str]) -> None:
    if row["image"] == RED:
        row["name"] = "green"
    elif row["image"] == "red-wide-1.png":
        row["name"] = "odd"
    elif row["image"] == "red-wide-2.png":
        row["cluster"] = row["name"] = ""
    elif row["name"] == "blue":
        row["name"] = "Blau"


def expected_of(before: dict[str, str]) -> dict[str, str]:
    renamed = {image: "Blau" if name == "blue" else name for image, name in before.items()}
    return {**renamed, RED: "green", "red-wide-1.png": "odd", "red-wide-2.png": ""}


def test_an_edited_table_becomes_corrections_when_the_person_says_so(begun: Result, run: Run) -> None:
    before = names(begun.out)
    edit(begun.out, by_hand)
    assert "Would be taken: 3 pictures" in run("--from-edited", "--dry-run")[1]
    code, out, _ = run("--from-edited")
    assert (code, "Taken step 1: 3 pictures" in out) == (0, True)
    assert names(begun.out) == expected_of(before)
    assert "is as it was written" in run("--from-edited")[2]
    assert run("--undo")[0] == 0
    assert names(begun.out) == before


def test_an_edited_table_is_kept_when_a_run_writes_it_anew(tmp_path: Path, begun: Result, run: Run) -> None:
    before = names(begun.out)
    edit(begun.out, by_hand)
    edited = (begun.out / "color" / "assignments.csv").read_bytes()
    said: list[str] = []
    manylens.cluster(
        tmp_path / "pictures",
        "color",
        model=model(),
        out=begun.out,
        on_event=lambda event: said.append(getattr(event, "text", "")),
    )
    assert any("--from-edited" in text for text in said)
    assert (begun.out / "color" / "assignments.edited.csv").read_bytes() == edited
    assert names(begun.out) == before
    edit(begun.out, lambda row: row.update(name="grün") if row["name"] == "green" else None)
    _, _, error = run(file(tmp_path, f"{GREEN.replace('3', '2')},yes,\n"))
    assert "assignments.edited-2.csv" in error
    code, out, _ = run("--from-edited")
    assert (code, out.count("Taken step")) == (0, 2)
    assert names(begun.out) == {
        image: "grün" if name == "green" else name for image, name in expected_of(before).items()
    }
    assert "is as it was written" in run("--from-edited")[2]


def test_a_cluster_of_which_some_pictures_left_is_renamed_by_the_rest(begun: Result, run: Run) -> None:
    """As is each that joins it by its new name."""
    before = names(begun.out)

    def by_hand(row: dict[str, str]) -> None:
        if row["image"] in (RED, "blue-wide-0.png"):
            row["name"] = {RED: "green"}.get(row["image"], "Rot")
        elif row["name"] == "red":
            row["name"] = "Rot"

    edit(begun.out, by_hand)
    out = run("--from-edited")[1]
    assert "Taken step 1: 2 pictures are elsewhere now, 1 cluster is called otherwise." in out
    assert '"red" is called "Rot"' in out and "(new)" not in out
    renamed = {image: "Rot" if name == "red" else name for image, name in before.items()}
    assert names(begun.out) == {**renamed, RED: "green", "blue-wide-0.png": "Rot"}


def test_what_a_step_does_beside_moving_pictures_is_told(tmp_path: Path, begun: Result, run: Run) -> None:
    rows = file(tmp_path, f"blue,rename,Blau\n{RED},yes,\ngreen-tall-2.png,new,odd\n")
    told = [
        '"blue" is called "Blau"',
        '1 from "green" to "odd" (new)',
        '1 said to be right in "red"',
    ]
    assert [line.strip() for line in run(rows, "--dry-run")[1].splitlines()[1:4]] == told
    assert [line.strip() for line in run(rows)[1].splitlines()[1:4]] == told
    assert '"Blau" is called "blue"' in run("--undo")[1]
    assert 'no more: "green"' in run(file(tmp_path, "green,merge,red\n"))[1]


def test_edits_that_were_kept_aside_are_offered_until_they_are_taken(
    tmp_path: Path, begun: Result, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(begun.out, by_hand)
    repeated = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=begun.out)
    render.print_end(render.open_console(), repeated, Settings())
    offer = f"manylens correct {begun.out} --from-edited --by color"
    assert offer in capsys.readouterr().out
    assert "Would be taken: 3 pictures" in run("--from-edited", "--dry-run")[1]
    assert run("--from-edited")[0] == 0
    render.print_end(render.open_console(), repeated, Settings())
    assert offer not in capsys.readouterr().out


def test_a_table_saved_anew_without_changes_moves_nothing(begun: Result, run: Run) -> None:
    before = names(begun.out)
    edit(begun.out, lambda row: None)
    assert "moves no picture" in run("--from-edited", "--dry-run")[1]
    assert "moves no picture" in run("--from-edited")[2]
    assert run("--undo")[0] == 0
    manylens.correct(begun, "color", [{"kind": "confirm", "images": [RED]}])
    assert names(begun.out) == before


def test_an_edit_that_cannot_be_read_is_said_and_stays(begun: Result, run: Run) -> None:
    edit(begun.out, lambda row: row.update(cluster="77") if row["image"] == RED else None)
    place = begun.out / "color" / "assignments.csv"
    edited = place.read_bytes()
    code, _, error = run("--from-edited")
    assert (code, "a cluster's number is one that is there, got 77" in error) == (1, True)
    assert place.read_bytes() == edited
    with pytest.raises(UsageError):
        manylens.correct(begun, "color", [{"kind": "unassign", "images": ["nothing.png"]}])


def test_where_a_later_file_is_refused_the_files_show_the_earlier_one(begun: Result, run: Run) -> None:
    before = names(begun.out)
    aside = begun.out / "color" / "assignments.edited.corrections.csv"
    aside.write_text(f"{RED},green\n", encoding="utf-8")
    refused = aside.with_name("assignments.edited-2.corrections.csv")
    refused.write_text(f"{RED},in,#77\n", encoding="utf-8")
    code, _, error = run("--from-edited")
    assert (code, "77" in error) == (1, True)
    assert names(begun.out) == {**before, RED: "green"}
    assert refused.exists() and not aside.exists()


def test_the_review_is_a_file_to_edit(tmp_path: Path, begun: Result, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "review.csv"
    assert cli.run(["review", str(begun.out), "--limit", "4"]) == 0
    assert "least certain first" in capsys.readouterr().out
    assert cli.run(["review", str(begun.out), "--limit", "4", "--to", str(place)]) == 0
    lines = place.read_text().splitlines()
    assert (lines[0], len(lines)) == ("image,not,cluster", 5)
    first = lines[1].split(",")
    other = next(name for name in ("red", "green") if name != first[2])
    place.write_text("\n".join([lines[0], f"{first[0]},,{other}", *lines[2:]]))
    assert cli.run(["correct", str(begun.out), str(place)]) == 0
    assert names(begun.out)[first[0]] == other
    assert sum(row["decided_by"] == "person" for row in rows(begun.out).values()) == 4
    assert cli.run(["review", str(begun.out), "--to", str(place)]) == 1
    assert "nothing is overwritten" in capsys.readouterr().err


def test_the_command_line_sorts_again(
    begun: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manylens.engine.base.load_model", lambda *_, **__: model())
    monkeypatch.setattr("manylens.session.check_model_name", lambda *_: None)
    monkeypatch.setattr("manylens.engine.base.probe_model", lambda *_: None)
    assert cli.run(["resort", str(begun.out)]) == 0
    assert "Nothing to sort again" in capsys.readouterr().out
    manylens.correct(begun, "color", [{"kind": "move", "images": [RED], "cluster": "green"}])
    manylens.correct(begun, "color", [{"kind": "not", "images": [RED]}])
    assert cli.run(["resort", str(begun.out)]) == 0
    assert "Expected to move: 1 picture" in capsys.readouterr().out
    assert cli.run(["resort", str(begun.out), "--ask"]) == 0
    assert "Would move: 1 picture" in capsys.readouterr().out
    assert names(begun.out)[RED] == ""
    assert cli.run(["resort", str(begun.out), "--apply"]) == 0
    assert '1 from no cluster to "red"' in capsys.readouterr().out
    assert names(begun.out)[RED] == "red"
