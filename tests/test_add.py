"""Pictures that come later: what was placed stays, what is alike needs no question, a new kind becomes a cluster."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_api import COLORS, SIZES, picture

import manylens
from manylens.cli import main as cli
from manylens.collection.changes import Changes, changes
from manylens.errors import StoreError, UsageError
from manylens.method.addition import (
    RELIABILITY,
    Known,
    evidence_for,
    joined,
    lessons_of,
    place,
    placed_by_words,
    sorting_with,
)
from manylens.method.likelihood import ChoiceModel
from manylens.method.observations import Looks, normalise_description
from manylens.method.questions import Answer, Choice
from manylens.method.sorting import NO_ANSWER, NONE
from manylens.method.walk import EdgeScale
from manylens.models.scripted import ScriptedModel
from manylens.results.result import Result
from manylens.store.books import Books, Spent
from manylens.store.run_folder import RunFolder
from manylens.types import NOT_APPLICABLE, Image, Interest


def put(folder: Path, kinds: Iterable[str], numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for color in kinds:
        for shape in SIZES:
            for number in numbers:
                (folder / f"{color}-{shape}-{number}.png").write_bytes(picture(color, shape, number))


def model(made: type[ScriptedModel] = ScriptedModel) -> ScriptedModel:
    """Knows every picture there may be."""
    color: dict[str, str] = {}
    shape: dict[str, str] = {}
    for kind in COLORS:
        for form in SIZES:
            for number in range(30):
                image_id = hashlib.sha256(picture(kind, form, number)).hexdigest()
                color[image_id], shape[image_id] = kind, form
    return made({"color": color, "shape": shape})


def places(result: Result, interest: str) -> dict[str, tuple[int | None, float, str]]:
    return {row.path: (row.cluster, row.confidence, row.reason) for row in result[interest].files.rows}


@pytest.fixture
def begun(tmp_path: Path) -> Result:
    put(tmp_path / "pictures", ("red", "green"), range(8))
    return manylens.cluster(tmp_path / "pictures", ["color", "shape"], model=model(), out=tmp_path / "out")


def test_what_was_placed_stays_and_what_is_alike_joins_it_without_a_question(tmp_path: Path, begun: Result) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(8, 12))
    result = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model())
    for interest in ("color", "shape"):
        before, after = places(begun, interest), places(result, interest)
        assert {path: after[path] for path in before} == before
        assert set(result[interest].labels.values()) == set(begun[interest].labels.values())
        assert all(name in path for path, name in result[interest].labels.items() if name)
        assert result[interest].counts.assigned == 48
        assert [(c.id, c.name) for c in result[interest].clusters] == [(c.id, c.name) for c in begun[interest].clusters]
        assert Counter(row.cluster for row in result[interest].files.rows) == {
            cluster.id: cluster.size for cluster in result[interest].clusters
        }
    assert result.calls_asked == 2 * (16 + 1), "a look each, and of each interest's random sample what is new: 5 - 4"
    again = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model())
    assert (again.calls_asked, places(again, "color")) == (0, places(result, "color"))


def test_a_new_kind_becomes_a_cluster_with_an_id_of_its_own(tmp_path: Path, begun: Result) -> None:
    put(tmp_path / "pictures", ("blue",), range(6))
    result = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model())
    added = [cluster for cluster in result["color"].clusters if cluster.name == "blue"]
    assert [(cluster.id, cluster.size) for cluster in added] == [(3, 12)]
    assert {row.name for row in result["color"].files.rows if row.path.startswith("blue")} == {"blue"}
    assert any("12 images added later: 12 placed, 1 new cluster" in note for note in result["color"].clustering.notes)
    assert {row.name for row in result["shape"].files.rows if "wide" in row.path} == {"wide"}


def test_pictures_that_are_gone_leave_their_clusters(tmp_path: Path, begun: Result) -> None:
    for file in (tmp_path / "pictures").glob("red-wide-*.png"):
        file.unlink()
    put(tmp_path / "pictures", ("green",), range(8, 9))
    result = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model())
    sizes = {cluster.name: cluster.size for cluster in result["color"].clusters}
    assert sizes == {"red": 8, "green": 18}


def test_a_closed_list_stays_closed_and_an_option_without_pictures_may_get_some(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(6))
    out = tmp_path / "out"
    manylens.cluster(tmp_path / "pictures", "color", model=model(), out=out, into=["red", "blue"])
    put(tmp_path / "pictures", ("blue", "green"), range(6, 9))
    result = manylens.add(out, tmp_path / "pictures", model=model())
    named = {row.path.split("-")[0]: row.name for row in result["color"].files.rows if row.path[-5] in "678"}
    assert named == {"blue": "blue", "green": ""}


def test_adding_refuses_what_is_no_addition(tmp_path: Path, begun: Result) -> None:
    put(tmp_path / "elsewhere", ("blue",), range(3))
    with pytest.raises(UsageError, match="has none of those of"):
        manylens.add(tmp_path / "out", tmp_path / "elsewhere", model=model())
    with pytest.raises(StoreError, match="has none"):
        manylens.add(tmp_path / "nothing", tmp_path / "pictures", model=model())

    class Another(ScriptedModel):
        name = "another"

    other = Another({"color": {}, "shape": {}})
    put(tmp_path / "pictures", ("blue",), range(3))
    with pytest.raises(UsageError, match="by the model that looked at the others"):
        manylens.add(tmp_path / "out", tmp_path / "pictures", model=other)


def test_the_command_line_adds(
    tmp_path: Path, begun: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("manylens.engine.base.load_model", lambda *_, **__: model())
    put(tmp_path / "pictures", ("blue",), range(3))
    assert cli.run(["add", str(tmp_path / "out"), str(tmp_path / "pictures")]) == 1
    assert "got 'scripted'" in capsys.readouterr().err, "the run's own model, which no name stands for"
    assert cli.run(["add", str(tmp_path / "out"), str(tmp_path / "pictures"), "--model", "nano"]) == 0
    shown = capsys.readouterr().out
    assert "blue" in shown
    assert "6 images added later: 6 placed, 1 new cluster." in shown


def looks(*words: str) -> Looks:
    ids = tuple(str(i) for i in range(len(words)))
    return Looks(
        Interest("kind"), ids, words, words, np.ones(len(words), np.float32), np.eye(len(words), 4, dtype=np.float32)
    )


def test_evidence_is_of_the_same_description_and_leaves_a_cluster_its_exemplars() -> None:
    seen = looks(*["cat"] * 120, *["dog"] * 6, "cat", "bird", "")
    places = dict.fromkeys(range(120), 0) | dict.fromkeys(range(120, 126), 1)
    found = evidence_for(seen, [126, 127, 128], places, shown={0, 1})
    assert set(found.values()) == {0} and len(found) == 100 and not {0, 1} & set(found)
    assert evidence_for(seen, [127, 128], places) == {}


def test_where_nobody_is_asked_a_description_places_with_most_of_its_kind() -> None:
    seen = looks(*["cat"] * 9, *["dog"] * 5, "cat", "dog", "bird", "")
    known = [Known("cats", "", tuple(range(9))), Known("dogs", "", (9, 10, 11)), Known("pets", "", (12, 13))]
    found = placed_by_words(seen, known, [14, 15, 16, 17])
    assert {image: (place.cluster, place.there, place.alike) for image, place in found.items()} == {
        14: (0, 9, 9),
        15: (1, 3, 5),
    }
    assert found[14].probability == pytest.approx(0.95) and found[15].probability == pytest.approx(3.5 / 6)


def asked_about(kinds: Sequence[int]) -> list[int]:
    """Three kinds, and a fourth description, "pet", of which earlier answers said these kinds; six pictures of it come.
    Gives which of those are asked about; the judge says that they are of the first kind."""
    n = len(kinds)
    words = ["cat"] * 20 + ["dog"] * 20 + ["cow"] * 20 + ["pet"] * (n + 6)
    places = {60 + i: kind for i, kind in enumerate(kinds)}
    pool = list(range(60 + n, 66 + n))
    embeddings = np.repeat(np.vstack([np.eye(3), np.full(3, 3**-0.5)]), [20, 20, 20, n + 6], axis=0)
    ids = tuple(f"{i:03d}" for i in range(len(words)))
    ones = np.ones(len(words), np.float32)
    seen = Looks(Interest("kind"), ids, tuple(words), tuple(words), ones, embeddings.astype(np.float32))
    known = [
        Known(str(kind), "", (*range(20 * kind, 20 * kind + 20), *(i for i in places if places[i] == kind)))
        for kind in range(3)
    ]
    settings = manylens.Settings()
    sorting = sorting_with(seen, known, pool, EdgeScale(7.0, -4.0), settings, None, evidence_for(seen, pool, places))
    steps = place(sorting, settings, True, earlier=len(words))
    questions = next(steps, [])
    asked: list[int] = []
    with suppress(StopIteration):
        while True:
            choices = [q for q in questions if isinstance(q, Choice)]
            asked += [q.image for q in choices]
            answers = [Answer((*(float(o.name == "0") for o in q.options), 0.0)) for q in choices]
            questions = steps.send(answers)
    assert set(asked) <= set(pool), "nobody asks about earlier pictures"
    assert all(sorting.cluster_of(image) == 0 for image in pool)
    return sorted(set(asked))


def test_what_earlier_answers_said_of_a_description_is_not_asked_again() -> None:
    assert asked_about([0] * 8) == []
    assert len(asked_about([])) >= 2
    assert len(asked_about([0, 0, 0, 1, 1, 1, 2, 2])) == 6, (
        "one that means several clusters is asked picture by picture"
    )


class Parts(tuple[str, ...]):
    """Counts how often it is put together with others."""

    times = 0

    def __add__(self, others: Any) -> Any:
        Parts.times += 1
        return tuple.__add__(self, others)


def test_looks_are_put_together_once_and_stand_by_image_id() -> None:
    one, other = looks(*"abcdef"), looks(*"xy")
    one = replace(one, image_ids=("0", "1", "3", "4", "6", "7"), descriptions=Parts(one.words), words=Parts(one.words))
    other = replace(other, image_ids=("2", "5"), embeddings=-other.embeddings)
    both = joined(one, other)
    assert both.image_ids == tuple("01234567") and both.words == both.descriptions == tuple("abxcdyef")
    assert Parts.times == 2, "once for the words and once for the descriptions, not once for every image"
    assert np.array_equal(both.embeddings[[2, 5]], other.embeddings)
    assert np.array_equal(both.embeddings[[0, 1, 3, 4, 6, 7]], one.embeddings)
    empty = replace(looks(), embeddings=np.zeros((0, 0), dtype=np.float32))
    assert np.array_equal(joined(one, empty).embeddings, one.embeddings)
    assert np.array_equal(joined(empty, other).embeddings, other.embeddings)


def lessons_world(agree: bool) -> tuple[Looks, list[Known], dict[int, int]]:
    """Forty images each described alone, in two kinds; earlier answers agree with what their looks are like, or not."""
    random = np.random.default_rng(3)
    kind = np.arange(40) % 2
    centres = np.eye(2, 8)
    h = centres[kind] + 0.3 * random.standard_normal((40, 8))
    words = tuple(f"words {i}" for i in range(40))
    unit = (h / np.linalg.norm(h, axis=1, keepdims=True)).astype(np.float32)
    seen = Looks(Interest("kind"), tuple(f"{i:02d}" for i in range(40)), words, words, np.ones(40, np.float32), unit)
    where = {i: int(kind[i]) if agree else int(random.integers(2)) for i in range(40)}
    return seen, [Known(str(n), "", tuple(i for i in where if where[i] == n)) for n in (0, 1)], where


def test_earlier_answers_say_how_far_likeness_can_be_trusted() -> None:
    edge = EdgeScale(7.0, -4.0)
    agreeing, differing = (lessons_of(*lessons_world(agree), edge, RELIABILITY) for agree in (True, False))
    assert agreeing is not None and differing is not None
    choice = [
        ChoiceModel(edge.scale, edge.offset).fitted(one.features, one.answers, one.shown, one.misplaced)
        for one in (agreeing, differing)
    ]
    assert choice[0].scale > 7.0 > choice[1].scale
    seen, known, where = lessons_world(True)
    slips = {7: 0, 20: 1}  # answered otherwise than their looks are like
    known = [Known(k.name, "", tuple(i for i in where if (where | slips)[i] == n)) for n, k in enumerate(known)]
    slipped = lessons_of(seen, known, where | slips, edge, RELIABILITY)
    assert slipped is not None
    assert set(np.argsort(-slipped.elsewhere)[:2].tolist()) == set(slips)
    assert lessons_of(seen, known, {}, edge, RELIABILITY) is None
    once = lessons_of(seen, known, where | slips, edge, RELIABILITY, evidence={7, 20})
    assert once is not None and len(once.features) == 40 and len(once.elsewhere) == len(once.members) == 38


def test_lessons_do_not_depend_on_the_order_of_what_is_known() -> None:
    seen, known, where = lessons_world(True)
    edge = EdgeScale(7.0, -4.0)
    one = lessons_of(seen, known, where, edge, RELIABILITY)
    shuffled = dict(sorted(where.items(), key=lambda entry: -entry[0]))
    other = lessons_of(seen, known, shuffled, edge, RELIABILITY)
    assert one is not None and other is not None
    assert np.array_equal(one.features, other.features) and np.array_equal(one.answers, other.answers)


def test_a_refusal_is_no_kind() -> None:
    refusal = normalise_description(NOT_APPLICABLE)
    seen = looks("sunny", "sunny", refusal, refusal, "rainy")
    sorting = sorting_with(seen, [Known("sunny", "", (0, 1))], [2, 3, 4], EdgeScale(7.0, -4.0), manylens.Settings())
    category = dict(zip(sorting.units.words, sorting.category.tolist(), strict=True))
    assert category == {"sunny": NONE, refusal: NO_ANSWER, "rainy": NONE}


def test_notes_that_count_are_made_anew(tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    put(folder, ("red", "green", "blue"), range(4))
    begun = manylens.cluster(folder, "color", model=model(), out=out, into=["red", "green"])["color"].clustering
    why = "none of the given clusters fits, or the model does not know these words"
    assert begun.notes == begun.counting_notes == (f"8 images are unassigned: {why}.",)
    put(folder, ("red", "blue"), range(4, 6))
    grown = manylens.add(out, folder, model=model())["color"].clustering
    assert grown.counting_notes == (f"12 images are unassigned: {why}.",)
    assert grown.notes == ("8 images added later: 4 placed.", *grown.counting_notes)
    for file in folder.glob("blue-*.png"):
        file.unlink()
    assert manylens.add(out, folder, model=model())["color"].clustering.notes == ("8 images added later: 4 placed.",)


def test_removed_moved_and_edited_files_are_told(tmp_path: Path, begun: Result) -> None:
    folder = tmp_path / "pictures"
    (folder / "red-wide-0.png").unlink()
    (folder / "red-wide-1.png").rename(folder / "renamed.png")
    (folder / "red-wide-2.png").write_bytes(picture("green", "wide", 20))
    (folder / "new.png").write_bytes(picture("green", "tall", 21))
    notices: list[str] = []
    result = begun.add(model=model(), on_event=lambda event: notices.append(getattr(event, "text", "")))
    assert result.changes == Changes(
        added=("new.png",),
        removed=("red-wide-0.png",),
        moved=(("red-wide-1.png", "renamed.png"),),
        edited=("red-wide-2.png",),
    )
    told = [notice for notice in notices if notice.startswith(f"since {tmp_path / 'out'} was sorted, ")]
    assert len(told) == 1
    assert "1 file was removed (red-wide-0.png); 1 file was moved (red-wide-1.png to renamed.png); " in told[0]
    assert result["color"].labels["renamed.png"] == "red"
    assert result["color"].labels["red-wide-2.png"] == "green"
    assert "are replaced" not in "".join(notices), "nothing is replaced by an addition"
    sizes = {cluster.name: cluster.size for cluster in result["color"].clusters}
    assert sizes == {"red": 14, "green": 18}


def test_a_copy_that_goes_is_removed_and_a_swap_is_two_edits() -> None:
    one, other = Image("1", ("a", "b"), 1, 1), Image("2", ("c",), 1, 1)
    assert changes([one, other], [Image("1", ("a",), 1, 1), other]) == Changes(removed=("b",))
    assert changes([other], [Image("2", ("c", "d"), 1, 1)]) == Changes(added=("d",))
    swapped = [Image("1", ("c",), 1, 1), Image("2", ("a",), 1, 1)]
    assert changes([Image("1", ("a",), 1, 1), other], swapped) == Changes(edited=("a", "c"))


def test_what_was_left_out_stays_out(tmp_path: Path) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    put(folder, ("red", "green"), range(4))
    put(folder / "old", ("blue",), range(4))
    (folder / "draft.png").write_bytes(picture("blue", "wide", 9))
    how: dict[str, list[str]] = {"exclude": ["old/"], "include": ["*-*.png"]}
    manylens.cluster(folder, "color", model=model(), out=out, **how)  # type: ignore[arg-type]
    put(folder / "old", ("blue",), range(4, 6))
    put(folder, ("red",), range(4, 5))
    grown = manylens.add(out, folder, model=model())
    assert grown.collection.files_found == 18
    assert grown.changes is not None and set(grown.changes.added) == {"red-tall-4.png", "red-wide-4.png"}


def test_a_run_folder_does_not_say_where_pictures_are_sent(
    tmp_path: Path, begun: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come from somebody else."""
    with sqlite3.connect(tmp_path / "out" / "run.sqlite") as database:
        database.execute("UPDATE clusterings SET model = 'openai:gpt'")
    with pytest.raises(UsageError, match="pictures leave this computer when that is said"):
        manylens.add(tmp_path / "out", tmp_path / "pictures")


def test_an_addition_asks_nothing_that_its_money_cannot_pay(tmp_path: Path, begun: Result) -> None:
    put(tmp_path / "pictures", ("red",), range(8, 10))
    dear = manylens.Settings(budget_usd=1e-9, price_in=1000, price_out=1000)
    result = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model(), settings=dear)
    assert result.calls_asked == 0
    assert len(result["color"].clustering.not_looked) == 4
    assert result["color"].clustering.is_partial


class Changed(ScriptedModel):
    """Of the same name, with other weights: no stored answer is its own."""

    @property
    def identity(self) -> str:
        return f"{super().identity}, changed"


def test_old_looks_that_are_not_stored_are_asked_for_within_the_limit(tmp_path: Path, begun: Result) -> None:
    put(tmp_path / "pictures", ("red",), range(8, 10))
    limits = manylens.Settings(budget_calls=5)
    result = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model(Changed), settings=limits)
    assert result.calls_asked == 5
    assert places(result, "color").items() >= places(begun, "color").items()


@pytest.mark.parametrize(("calls", "asked"), [(0, 0), (3, 3), (20, 16)])
def test_the_limit_of_an_addition_is_for_what_it_adds(tmp_path: Path, begun: Result, calls: int, asked: int) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(8, 10))
    limits = manylens.Settings(budget_calls=calls)
    result = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model(), settings=limits)
    assert result.calls_asked == asked
    every = [one.clustering for one in result.values()]
    assert sum(len(one.not_looked) for one in every) == 16 - asked
    assert all(one.is_partial == bool(one.not_looked) for one in every)
    assert places(result, "color").items() >= places(begun, "color").items()
    rest = manylens.add(tmp_path / "out", tmp_path / "pictures", model=model())
    assert rest.calls_asked == 16 - asked, "what was left out is taken in by the next"
    assert rest["shape"].counts.assigned == 40


def test_what_an_earlier_run_sent_in_vain_is_no_cost_of_an_addition(tmp_path: Path, begun: Result) -> None:
    with RunFolder.open(tmp_path / "out") as run:
        run.put_books(Books(Spent(50, 9, 9), Spent(40, 9, 9)))
    put(tmp_path / "pictures", ("red",), range(8, 9))
    limits = manylens.Settings(budget_calls=4)
    assert manylens.add(tmp_path / "out", tmp_path / "pictures", model=model(), settings=limits).calls_asked == 4
    with RunFolder.open(tmp_path / "out") as run:
        assert run.books() == Books(Spent(50, 9, 9), Spent(40, 9, 9)), "the books forget nothing"
