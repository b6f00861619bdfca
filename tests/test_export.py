"""The result files against their contract."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from manylens.collection.find import Collection
from manylens.results.files import (
    ASSIGNMENT_COLUMNS,
    cluster_values,
    summary_values,
    write_results,
    write_unreadable,
)
from manylens.results.links import folder_name
from manylens.results.table import join
from manylens.settings import Settings
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Image, Interest, Misplaced, Tokens, Unreadable

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def collection(root: Path = Path("pictures"), *, first: tuple[str, ...] = ("a.png",)) -> Collection:
    images = (
        Image(A, first, 10, 10),
        Image(B, ("b.png", "copy/b.png"), 10, 10),
        Image(C, ("c.png",), 10, 10),
        Image(D, ("d.png",), 10, 10),
    )
    unreadable = (Unreadable("broken.jpg", "truncated"),)
    return Collection(root, images, unreadable, 0, sum(len(i.paths) for i in images) + 1)


def clustering(name: str = "hearts", reason: str = "judged to belong") -> Clustering:
    return Clustering(
        interest=Interest("suit of the card"),
        model="scripted",
        clusters=(Cluster(1, name, "Cards of hearts.", 2, (B, A), "red suits", Misplaced(0.02, 0.0, 0.1)),),
        assignments=(
            Assignment(A, 1, 0.9, reason, "choice"),
            Assignment(B, 1, 0.8, "by its description", "description"),
            Assignment(C, None, 0.0, "no cluster fits it well enough", ""),
        ),
        failed=((D, "time-out"),),
        calls=CallCounts(look=4, choose=5, complete=1, failed=1),
        density=0.25,
        estimate=Misplaced(0.03, 0.01, 0.08),
        vocabulary={"heart": "hearts", "red heart": "hearts"},
        notes=("one note",),
    )


def write(out: Path, one: Clustering, of: Collection, *, links: bool = False, seconds: float = 1.0) -> Path:
    return write_results(out, join(one, of), settings=Settings(), seconds=seconds, version="1.2.3", links=links)


def rows_of(folder: Path) -> list[dict[str, str]]:
    text = (folder / "assignments.csv").read_bytes().decode("utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_assignments_have_one_row_per_readable_file(tmp_path: Path) -> None:
    rows = rows_of(write(tmp_path, clustering(), collection()))
    assert [row["image"] for row in rows] == ["a.png", "b.png", "c.png", "copy/b.png", "d.png"]


def test_assignments_have_the_contracted_columns(tmp_path: Path) -> None:
    folder = write(tmp_path, clustering(), collection())
    assert (folder / "assignments.csv").read_text("utf-8").splitlines()[0] == ",".join(ASSIGNMENT_COLUMNS)
    assert ASSIGNMENT_COLUMNS == ("image", "cluster", "name", "confidence", "reason", "decided_by")


def test_results_lie_in_the_folder_of_the_slug(tmp_path: Path) -> None:
    assert write(tmp_path, clustering(), collection()) == tmp_path / "suit-of-the-card"


def test_cluster_is_empty_where_an_image_is_unassigned_or_failed(tmp_path: Path) -> None:
    rows = {row["image"]: row for row in rows_of(write(tmp_path, clustering(), collection()))}
    assert (rows["c.png"]["cluster"], rows["c.png"]["name"]) == ("", "")
    assert (rows["d.png"]["cluster"], rows["d.png"]["reason"]) == ("", "the look failed: time-out")


def test_files_add_up(tmp_path: Path) -> None:
    counts = join(clustering(), collection()).counts
    assert (counts.assigned, counts.unassigned, counts.failed) == (3, 1, 2)
    assert counts.assigned + counts.unassigned + counts.failed == counts.found == collection().files_found


def test_what_the_budget_did_not_reach_is_counted_apart(tmp_path: Path) -> None:
    one = clustering()
    one = replace(one, assignments=one.assignments[:2], not_looked=(C,), is_partial=True)
    counts = join(one, collection()).counts
    assert (counts.assigned, counts.unassigned, counts.failed, counts.not_looked, counts.found) == (3, 0, 2, 1, 6)
    folder = write(tmp_path, one, collection())
    row = {row["image"]: row for row in rows_of(folder)}["c.png"]
    assert (row["cluster"], row["reason"]) == ("", "not looked at: the budget was spent")
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert (summary["partial"], summary["not_looked"]) == (True, 1)


def test_a_summary_states_tokens_and_money() -> None:
    calls = CallCounts(look=4, tokens=Tokens(2_000_000, 100_000, 1))
    values = summary_values(
        join(replace(clustering(), calls=calls), collection()),
        settings=Settings(price_in=0.5, price_out=2.0),
        seconds=1.0,
        version="1",
    )
    assert (values["tokens_in"], values["tokens_out"], values["answers_without_tokens"]) == (2_000_000, 100_000, 1)
    assert values["usd"] == pytest.approx(1.2)
    free = summary_values(join(clustering(), collection()), settings=Settings(), seconds=1.0, version="1")
    assert free["usd"] is None


def test_summary_holds_the_contracted_keys_and_adds_up(tmp_path: Path) -> None:
    summary = json.loads((write(tmp_path, clustering(), collection()) / "summary.json").read_text("utf-8"))
    contracted = "interest model images clusters unassigned failed calls calls_per_image look_calls judge_calls seconds"
    assert set(contracted.split()) <= set(summary)
    assert summary["assigned"] + summary["unassigned"] + summary["failed"] == summary["files_found"]
    assert (summary["partial"], summary["not_looked"]) == (False, 0)
    kinds = ("look_calls", "judge_calls", "choose_calls", "complete_calls")
    assert [summary[kind] for kind in kinds] == [4, 5, 5, 1]
    assert summary["calls"] == 10
    assert summary["calls_per_image"] == pytest.approx(10 / 5, abs=1e-4)
    assert Settings.from_dict(summary["settings"]) == Settings()
    assert summary["misplaced"] == {"share": 0.03, "low": 0.01, "high": 0.08, "basis": "answers"}


def test_what_is_not_known_of_misplaced_images_is_null(tmp_path: Path) -> None:
    unknown = replace(clustering(), estimate=None, clusters=(replace(clustering().clusters[0], misplaced=None),))
    folder = write(tmp_path, unknown, collection())
    assert json.loads((folder / "summary.json").read_text("utf-8"))["misplaced"] is None
    assert json.loads((folder / "clusters.json").read_text("utf-8"))[0]["misplaced"] is None


def test_the_vocabulary_says_which_category_each_description_is_in(tmp_path: Path) -> None:
    folder = write(tmp_path, clustering(), collection())
    assert json.loads((folder / "vocabulary.json").read_text("utf-8")) == {"heart": "hearts", "red heart": "hearts"}


def test_settings_come_back_from_a_summary_with_their_list_of_clusters(tmp_path: Path) -> None:
    settings = Settings(into=("good", "defective"), effort="high", budget_calls=7)
    folder = write_results(
        tmp_path, join(clustering(), collection()), settings=settings, seconds=1.0, version="1", links=False
    )
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert Settings.from_dict(summary["settings"]) == settings


def test_sizes_in_clusters_json_count_files_and_exemplars_are_paths() -> None:
    (values,) = cluster_values(join(clustering(), collection()))
    assert values == {
        "id": 1,
        "name": "hearts",
        "definition": "Cards of hearts.",
        "size": 3,
        "exemplars": ["b.png", "a.png"],
        "parent": "red suits",
        "misplaced": {"share": 0.02, "low": 0.0, "high": 0.1, "basis": "answers"},
    }


def test_only_seconds_differ_between_two_runs(tmp_path: Path) -> None:
    one = write(tmp_path / "one", clustering(), collection(), seconds=1.0)
    two = write(tmp_path / "two", clustering(), collection(), seconds=2.0)
    for name in ("assignments.csv", "clusters.json", "vocabulary.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (one, two))
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second


@pytest.mark.parametrize("path", ["new\nline.png", "carriage\rreturn.png", 'quo"te,.png', "שלום.png", "🃏.png"])
def test_any_file_name_comes_back_from_the_table(tmp_path: Path, path: str) -> None:
    assert path in {row["image"] for row in rows_of(write(tmp_path, clustering(), collection(first=(path,))))}


def test_a_file_name_that_is_not_utf8_is_escaped_in_the_table_and_exact_in_json(tmp_path: Path) -> None:
    folder = write(tmp_path, clustering(), collection(first=("caf\udce9.png",)))
    assert "caf\\udce9.png" in {row["image"] for row in rows_of(folder)}
    assert json.loads((folder / "clusters.json").read_text("utf-8"))[0]["exemplars"][1] == "caf\udce9.png"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula_to_a_spreadsheet(tmp_path: Path, start: str) -> None:
    danger = f"{start}1+1"
    rows = rows_of(write(tmp_path, clustering(name=danger, reason=danger), collection(first=(danger,))))
    assert not [cell for row in rows for cell in row.values() if cell.startswith(start)]
    assert f"./{danger}" in {row["image"] for row in rows}


def test_unreadable_files_are_listed_with_reasons(tmp_path: Path) -> None:
    text = write_unreadable(tmp_path, collection()).read_text("utf-8")
    assert text.splitlines() == ["image,reason", "broken.jpg,truncated"]


def test_links_lead_to_every_assigned_file(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    (root / "copy").mkdir(parents=True)
    for name in ("a.png", "b.png", "copy/b.png"):
        (root / name).write_text(name)
    folder = write(tmp_path / "out", clustering(), collection(root), links=True) / "clusters" / "1 hearts"
    assert {link.name: link.read_text() for link in folder.iterdir()} == {
        "a.png": "a.png",
        "b.png": "b.png",
        "copy__b.png": "copy/b.png",
    }


def test_links_hold_where_the_run_lies_behind_a_link_and_where_paths_are_long(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    long = "/".join(["d" * 200, "e" * 200, "b.png"])
    (root / long).parent.mkdir(parents=True)
    (root / "copy").mkdir()
    (root / long).write_text("long")
    for name in ("a.png", "b.png", "copy/b.png"):
        (root / name).write_text(name)
    (tmp_path / "data" / "deep" / "place").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "data" / "deep" / "place")
    of = collection(root)
    of = replace(of, images=tuple(replace(i, paths=(*i.paths, long)) if "a.png" in i.paths else i for i in of.images))
    folder = write(tmp_path / "short" / "out", clustering(), of, links=True) / "clusters" / "1 hearts"
    assert sorted(link.read_text() for link in folder.iterdir()) == ["a.png", "b.png", "copy/b.png", "long"]
    write(tmp_path / "short" / "out", clustering(), of)
    assert not list(folder.parent.iterdir()), "links of a former clustering"


def test_links_of_an_earlier_run_go_and_other_files_stay(tmp_path: Path) -> None:
    of = collection(tmp_path)
    old = write(tmp_path / "out", clustering("spades"), of, links=True) / "clusters" / "1 spades"
    (old / "my notes.txt").write_text("keep me")
    write(tmp_path / "out", clustering("hearts"), of, links=True)
    assert [entry.name for entry in old.iterdir()] == ["my notes.txt"]
    assert len(list((old.parent / "1 hearts").iterdir())) == 3


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "con:", "x\ny", "\u202ereversed", "", "." * 5, "n" * 999])
def test_a_cluster_name_makes_a_harmless_folder_name(name: str) -> None:
    made = folder_name(name)
    assert 0 < len(made) <= 80
    assert not set(made) & set("/\\\n:\u202e")
    assert made not in (".", "..")
