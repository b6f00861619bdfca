"""Suggestions and previews: from a sample, kept in the run folder, and nothing else of the run changes."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import chat_server
import chat_writer
import pytest
from chat_server import ChatServer
from served import SYNONYMS, no_keys_and_no_patience  # noqa: F401  a fixture
from test_add import model, put

import manylens
from manylens import ModelOptions, Settings
from manylens.cli import main as cli
from manylens.cli.sample import write_sample
from manylens.collection.sample import spread
from manylens.errors import UsageError
from manylens.models.scripted import ScriptedModel
from manylens.pipeline.preview import TEXTS
from manylens.pipeline.suggest import SampleGroup, likeness, read_proposals, splits
from manylens.store.run_folder import RunFolder
from manylens.writing import OtherWordings, suggested_of

pytestmark = pytest.mark.usefixtures("no_keys_and_no_patience")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_sample(folder)
    return folder / "images"


def test_a_sample_is_spread_over_the_whole() -> None:
    paths = [f"{folder}/{number:03}.jpg" for folder in "abcd" for number in range(100)]
    some = spread(paths, 20)
    assert len(some) == 20
    assert some == sorted(some)
    assert [sum(path.startswith(folder) for path in some) for folder in "abcd"] == [5] * 4
    assert spread(paths, 20) == some != spread(paths, 20, seed=1)
    assert spread(paths[:7], 20) == paths[:7]


@pytest.fixture(scope="module")
def out(cards: Path) -> Path:
    """A run folder with what nano says of 26 of them."""
    manylens.suggest(cards, out=cards.parent / "out", sample=26)
    return cards.parent / "out"


def test_nano_suggests_what_cards_are_sorted_by(cards: Path, out: Path) -> None:
    found = manylens.suggest(cards, out=out, sample=26)
    interests = [one.interest for one in found]
    assert {"suit", "rank of the card", "color of the card"} <= set(interests[:4])
    suit = next(one for one in found if one.interest == "suit")
    assert {group.name for group in suit.groups} == {"hearts", "spades", "clubs", "diamonds"}
    assert sum(len(group.pictures) for group in suit.groups) <= 26
    assert suit.command == f"manylens cluster {cards} --by suit --out {out}"
    assert found.calls_asked == 0
    assert found.calls_kept >= 26 * len(found)
    with RunFolder.open(out) as run:
        assert run.images() == ()  # the collection is not the sample
    assert cli.run(["verify", str(out)]) == 0


def test_a_preview_s_looks_are_not_asked_again(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(10))
    first, second = model(), model()
    seen = manylens.preview(tmp_path / "pictures", "color", model=first, out=tmp_path / "out", sample=12)
    assert first.calls["look"] == 12
    assert first.calls["choose"] == 0
    assert {group.name for group in seen.groups} == {"red", "green"}
    assert {p.path for part in seen.parts for p in part.pictures} == {p for g in seen.groups for p in g.pictures}
    assert seen.found == 40
    assert '--into "' in seen.hints[-1]
    result = manylens.cluster(tmp_path / "pictures", "color", model=second, out=tmp_path / "out")
    assert second.calls["look"] == 40 - 12
    assert len(result["color"].labels) == 40


def test_a_preview_leaves_a_finished_run_as_it_is(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(6))
    manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    before = (tmp_path / "out" / "report.html").read_bytes()
    manylens.preview(tmp_path / "pictures", "shape", model=model(), out=tmp_path / "out", sample=5)
    assert (tmp_path / "out" / "report.html").read_bytes() == before
    with RunFolder.open(tmp_path / "out") as run:
        assert len(run.images()) == 24
    assert cli.run(["verify", str(tmp_path / "out")]) == 0


def test_a_compound_interest_is_previewed_by_its_parts(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(4))
    seen = manylens.preview(tmp_path / "pictures", "color and shape", model=model(), out=tmp_path / "out")
    assert [part.interest for part in seen.parts] == ["color", "shape"]
    assert {group.name for group in seen.groups} == {"red, wide", "red, tall", "green, wide", "green, tall"}


def test_a_model_behind_a_server_proposes_once_and_within_its_budget(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(6))
    with ChatServer(synonyms=SYNONYMS) as server:
        options = ModelOptions(base_url=server.url)
        asked = {"model": "fake", "options": options, "out": tmp_path / "out"}
        found = manylens.suggest(tmp_path / "pictures", settings=Settings(budget_calls=60), sample=9, **asked)  # type: ignore[arg-type]
        assert found.calls_asked == 9 * 3 + 1
        assert all(len(one.groups) > 1 for one in found)
        assert all(f"--base-url {server.url}" in one.command for one in found)
        sent = len(server.log)
        assert manylens.suggest(tmp_path / "pictures", sample=9, **asked).calls_asked == 0  # type: ignore[arg-type]
        assert len(server.log) == sent
        seen = manylens.preview(tmp_path / "pictures", "color", sample=6, **asked)  # type: ignore[arg-type]
        assert seen.calls_asked <= 6 + TEXTS
        assert [one.interest for one in seen.parts[0].wordings] in ([], ["finer color"])


DRESSES = {
    "in a fence": lambda reply: (
        f"Sure! Here is what I found:\n\n```json\n{reply}\n```\n\nLet me know if you need more."
    ),
    "after thoughts": lambda reply: f"<think>The pictures {{1, 2}} look [alike]...</think>\n{reply}",
    "a list alone": lambda reply: json.dumps(next(iter(json.loads(reply).values())), indent=1),
    "numbers as texts": lambda reply: re.sub(r"(?<=[\[ ])(\d+)(?=[,\]])", r'"\1"', reply),
    "more than was asked": lambda reply: json.dumps({"note": "I group\nby color", **json.loads(reply)}, indent=2),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_what_a_writer_proposes_is_understood_however_it_is_dressed(
    tmp_path: Path, dress: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(6))

    def found(out: str) -> tuple[list[str], list[str], int]:
        with ChatServer(synonyms=SYNONYMS) as server:
            asked = {"model": "fake", "options": ModelOptions(base_url=server.url), "out": tmp_path / out}
            suggested = manylens.suggest(tmp_path / "pictures", sample=9, **asked)  # type: ignore[arg-type]
            seen = manylens.preview(tmp_path / "pictures", "color", sample=6, **asked)  # type: ignore[arg-type]
            interests = [one.interest for one in suggested]
            return interests, [one.interest for one in seen.parts[0].wordings], server.count("suggest")

    plain = found("plain")
    assert plain[0] and plain[2] == 1
    monkeypatch.setattr(chat_server, "write", lambda *said: DRESSES[dress](chat_writer.write(*said)))
    assert found("dressed") == plain, "with no request to mend it"


def test_a_small_budget_shrinks_the_sample(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(6))
    with ChatServer(synonyms=SYNONYMS) as server:
        found = manylens.suggest(
            tmp_path / "pictures", model="fake", options=ModelOptions(base_url=server.url), out=tmp_path / "out",
            settings=Settings(budget_calls=20),
        )  # fmt: skip
    assert found.calls_asked <= 20
    assert len(found.pictures) < 20


def test_who_neither_writes_nor_was_taught_suggests_nothing(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red",), range(3))
    with pytest.raises(UsageError, match="is neither"):
        manylens.suggest(tmp_path / "pictures", model=model(), out=tmp_path / "out")


def test_what_a_writer_proposes_is_read_with_care() -> None:
    ids = ["a", "b", "c"]
    entries = [
        {"interest": "kind", "groups": [{"name": "x", "pictures": [1, 2, 2, 9, 0]}, {"name": "y", "pictures": [2, 3]}]},
        {"interest": "Kind", "groups": [{"name": "z", "pictures": [1]}]},
        {"interest": "clusters", "groups": []},
        {"interest": "!!", "groups": []},
    ]
    (one,) = read_proposals(suggested_of(entries), ids)
    assert [(group.name, group.images) for group in one.groups] == [("x", ("a", "b")), ("y", ("c",))]
    assert one.answered == 1.0
    assert read_proposals(OtherWordings(()), ids) == []


def groups(*sizes: int) -> list[SampleGroup]:
    ids = iter(range(100))
    return [SampleGroup(str(at), tuple(str(next(ids)) for _ in range(size))) for at, size in enumerate(sizes)]


def test_what_does_not_split_a_sample_is_no_suggestion() -> None:
    assert splits(groups(10, 8, 2), 20)
    assert not splits(groups(19, 1), 20)  # one answer for all
    assert not splits(groups(4, 4), 20)  # no answer for most
    assert not splits(groups(*[1] * 20), 20)  # an answer for each
    assert likeness(groups(5, 5), groups(5, 5)) == pytest.approx(1)
    assert likeness(groups(5, 5), groups(10)) == 0
    scattered = [SampleGroup(str(at), (str(at), str(at + 20))) for at in range(20)]
    assert likeness(groups(*[2] * 20), scattered) < 0.2  # many small groups agree by chance alone


def test_the_command_line_says_what_it_found(
    cards: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(out.parent)
    assert cli.run(["suggest", str(cards), "--out", "out", "--sample", "26"]) == 0
    shown = capsys.readouterr()
    assert f'manylens cluster {cards} --by "rank of the card" --out out' in shown.out
    assert "26 of 312 pictures" in shown.err
    assert cli.run(["preview", str(cards), "--by", "Farbe der Karte", "--out", "out"]) == 0
    shown = capsys.readouterr()
    assert "does not look like English" in shown.out
    assert "  suit (good): " in shown.out
    assert cli.run(["preview", str(cards), "--by", "suit", "--out", "out", "--sample", "1"]) == 2


def test_two_interests_of_a_run_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(6))
    out = str(tmp_path / "out")
    manylens.cluster(tmp_path / "pictures", "color and shape", model=model(), out=out)
    assert cli.run(["cross", out, "color", "Shape"]) == 0
    shown = capsys.readouterr().out
    assert "have nothing to do with each other" in shown
    assert [line.split() for line in shown.splitlines() if line.strip().startswith("red")] == [["red", "6", "6", "12"]]
    assert cli.run(["cross", out]) == 0
    assert "color and shape" not in capsys.readouterr().out
    assert cli.run(["cross", out, "color"]) == 2
    assert cli.run(["cross", out, "color", "colour"]) == 1
    assert "did you mean 'color'" in capsys.readouterr().err
    assert manylens.cross(out, "color", "shape").placed == 24


@pytest.mark.parametrize("words", ["Main Color", " main  color ", "main-color", "MAIN-COLOR"])
def test_an_interest_of_a_run_is_meant_by_its_words_or_its_folder_everywhere(tmp_path: Path, words: str) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(2))
    pictures = sorted((tmp_path / "pictures").iterdir())
    colors = {sha256(file.read_bytes()).hexdigest(): file.name.split("-")[0] for file in pictures}
    by = {"main color": colors, "shape": colors}
    out = tmp_path / "out"
    manylens.cluster(tmp_path / "pictures", list(by), model=ScriptedModel(by), out=out)
    moved = [{"kind": "move", "images": ["red-wide-0.png"], "cluster": "green"}]
    assert manylens.correct(out, words, moved, dry_run=True).moved
    assert manylens.export(out, to="csv", by=words, dest=tmp_path / "one.csv").files == 8
    assert manylens.cross(out, words, "shape").placed == 8


def test_an_interest_that_a_run_has_not_is_said_alike_everywhere(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green"), range(2))
    out = tmp_path / "out"
    manylens.cluster(tmp_path / "pictures", ["color", "shape"], model=model(), out=out)
    said = set()
    for ask in (
        lambda: manylens.correct(out, "colour", []),
        lambda: manylens.export(out, to="csv", by="colour", dest=tmp_path / "one.csv"),
        lambda: manylens.cross(out, "colour", "shape"),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        said.add(str(caught.value))
    assert said == {"the run has no interest 'colour': did you mean 'color'?"}
