"""Corrections teach: what they touch is asked again, first foreseen, then asked, then taken over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from test_add import model, put
from test_api import COLORS, SIZES
from test_correct import RED, names, rows

import manylens
from manylens.cli import main as cli
from manylens.errors import ModelError, UsageError
from manylens.models.base import ChooseReply, ChooseRequest
from manylens.models.scripted import ScriptedModel
from manylens.results.result import Result
from manylens.settings import ModelOptions
from manylens.store.run_folder import RunFolder
from manylens.types import Cluster


@pytest.fixture
def spoiled(tmp_path: Path) -> tuple[Result, list[str], dict[str, str]]:
    """A run of whose 96 placements 12 were spoiled, as sure as the others; these, and the true names."""
    put(tmp_path / "pictures", COLORS, range(48 // len(COLORS)))
    result = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    truth = names(result.out)
    chance = random.Random(4)
    with RunFolder.open(result.out) as run:
        ((clustering, settings),) = run.clusterings()
        clusters = [cluster.id for cluster in clustering.clusters]
        chosen = set(chance.sample([a.image_id for a in clustering.assignments], 12))
        moved = tuple(
            replace(a, cluster=chance.choice([c for c in clusters if c != a.cluster])) if a.image_id in chosen else a
            for a in clustering.assignments
        )
        sizes = Counter(a.cluster for a in moved)
        every = tuple(replace(cluster, size=sizes[cluster.id]) for cluster in clustering.clusters)
        run.record_clustering(replace(clustering, assignments=moved, clusters=every), settings)
        wrong = sorted(path for image in run.images() if image.id in chosen for path in image.paths)
    return result, wrong, truth


def correct_some(result: Result, wrong: list[str], truth: dict[str, str]) -> None:
    right = [image for image in truth if image not in wrong][:6]
    said = [{"kind": "move", "images": [image], "cluster": truth[image]} for image in wrong[:4]]
    manylens.correct(result, "color", [*said, {"kind": "confirm", "images": right}])


def test_a_few_corrections_put_the_others_right(spoiled: tuple[Result, list[str], dict[str, str]]) -> None:
    result, wrong, truth = spoiled
    assert manylens.resort(result).calls == (0, 0), "nothing was said, nothing is touched"
    correct_some(result, wrong, truth)
    before = names(result.out)
    foreseen = manylens.resort(result, "color")
    assert foreseen.is_asked is False
    assert {one.image_id for one in foreseen.moves}
    asked = manylens.resort(result, "color", ask=True, model=model())
    assert names(result.out) == before, "nothing is applied before the person says so"
    done = manylens.resort(result, "color", apply=True, model=model())
    assert done.moves == asked.moves
    assert names(result.out) == truth
    assert 0 < done.calls[0] <= 2 * 12
    kinds = {rows(result.out)[image]["decided_by"] for image in wrong[4:]}
    assert kinds <= {"choice", "description"}
    assert manylens.undo(result, "color") is not None
    assert names(result.out) == before
    manylens.redo(result, "color")
    assert names(result.out) == truth


def test_asking_again_costs_nothing(spoiled: tuple[Result, list[str], dict[str, str]]) -> None:
    result, wrong, truth = spoiled
    correct_some(result, wrong, truth)
    counting, asked = model(), list[str]()
    plain = counting.choose

    async def choose(requests: Sequence[ChooseRequest]) -> Sequence[ChooseReply | ModelError]:
        asked.extend(request.candidate_id for request in requests)
        return await plain(requests)

    counting.choose = choose  # type: ignore[method-assign,assignment]
    manylens.resort(result, ask=True, model=counting)
    first = len(asked)
    manylens.resort(result, apply=True, model=counting)
    assert first == len(asked) > 0


def test_what_a_person_placed_never_moves(spoiled: tuple[Result, list[str], dict[str, str]]) -> None:
    """Even where the person is wrong by the model's lights."""
    result, wrong, truth = spoiled
    odd = [image for image in truth if image not in wrong][:10]
    name = next(name for name in truth.values() if name != truth[odd[0]])
    away = [image for image in odd if truth[image] != name]
    manylens.correct(result, "color", [{"kind": "move", "images": away, "cluster": name}])
    manylens.resort(result, apply=True, model=model())
    assert {names(result.out)[image] for image in away} == {name}


def test_not_this_finds_another_place_and_never_that_one(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(6))
    result = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    manylens.correct(result, None, [{"kind": "move", "images": [RED], "cluster": "green"}])
    manylens.correct(result, None, [{"kind": "not", "images": [RED]}])
    assert names(result.out)[RED] == ""
    manylens.resort(result, apply=True, model=model())
    assert names(result.out)[RED] == "red"
    manylens.correct(result, None, [{"kind": "not", "images": [RED]}])
    manylens.resort(result, apply=True, model=model())
    assert names(result.out)[RED] == "", "the model says red, the person says not red"


def test_a_cluster_that_a_person_made_draws_the_rest_of_its_kind(tmp_path: Path) -> None:
    """The model sorted by color; the person makes a cluster of what the interest does not tell apart: nothing comes."""
    put(tmp_path / "pictures", ("red", "green"), range(6))
    result = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    some = [f"red-wide-{number}.png" for number in range(4)]
    manylens.correct(result, None, [{"kind": "new", "images": some, "name": "mine"}])
    foreseen = manylens.resort(result)
    assert foreseen.touched >= 8, "every other red picture is touched"
    manylens.resort(result, apply=True, model=model())
    assert {names(result.out)[image] for image in some} == {"mine"}
    assert {name for image, name in names(result.out).items() if image.startswith("green")} == {"green"}
    assert set(SIZES) == {"wide", "tall"}


def test_the_model_is_the_runs_own(spoiled: tuple[Result, list[str], dict[str, str]]) -> None:
    class Another(ScriptedModel):
        name = "another"

    result, wrong, truth = spoiled
    correct_some(result, wrong, truth)
    with pytest.raises(UsageError, match="by the model that looked at them"):
        manylens.resort(result, ask=True, model=Another({"color": {}}))


def test_the_review_falls_with_every_answer_and_ends(spoiled: tuple[Result, list[str], dict[str, str]]) -> None:
    result, _, truth = spoiled
    shares = []
    left = []
    for _ in range(6):
        found = manylens.review(result, limit=3)
        assert found.estimate is not None
        shares.append(found.estimate.share)
        left.append(found.left)
        with RunFolder.open(result.out) as run:
            path_of = {image.id: image.paths[0] for image in run.images()}
        for doubt in found.doubts:
            path = path_of[doubt.image_id]
            ids = {c.id: c.name for c in found_clusters(result)}
            assert doubt.cluster in doubt.options or doubt.cluster is None
            is_right = ids.get(doubt.cluster or 0) == truth[path]
            said = {"kind": "confirm", "images": [path]}
            manylens.correct(
                result, None, [said if is_right else {"kind": "move", "images": [path], "cluster": truth[path]}]
            )
    assert shares == sorted(shares, reverse=True)
    assert left == [96 - 3 * turn for turn in range(6)]
    skipped = [doubt.image_id for doubt in manylens.review(result, limit=2).doubts]
    assert not {doubt.image_id for doubt in manylens.review(result, limit=90, skipped=skipped).doubts} & set(skipped)


def found_clusters(result: Result) -> Sequence[Cluster]:
    with RunFolder.open(result.out) as run:
        ((clustering, _),) = run.clusterings()
    return clustering.clusters


@pytest.mark.parametrize("how", ["add", "re-sort", "command"])
def test_pictures_are_sent_as_large_as_the_run_sent_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    sizes: list[int] = []

    def load(_name: str, _images: object, _features: object, options: ModelOptions, **_: object) -> ScriptedModel:
        sizes.append(options.image_px)
        return model()

    monkeypatch.setattr("manylens.engine.base.load_model", load)
    put(folder, ("red", "green"), range(3))
    manylens.cluster(folder, "color", model="nano", options=ModelOptions(image_px=700), out=out)
    put(folder, ("red",), range(3, 4))
    if how == "command":
        assert cli.run(["resort", str(out), "--ask", "--model", "nano"]) == 0
    else:
        pytest.importorskip("pydantic")
        from manylens.web.job import Progress, carry_out
        from manylens.web.page_store import PageStore

        request = {
            "kind": how, "folder": str(folder), "by": ["color"], "model": "nano",
            "settings": manylens.Settings().to_dict(), "options": ModelOptions().to_dict(),
        }  # fmt: skip
        carry_out(out, request, Progress(PageStore(out), 1, out, manylens.Settings()))
    assert sizes == [700, 700]


def test_answers_that_repeat_looks_leave_a_move_as_sure_as_they_are_stated(
    spoiled: tuple[Result, list[str], dict[str, str]],
) -> None:
    """They put a picture where its look does, and are no evidence that it is right."""
    result, wrong, truth = spoiled
    correct_some(result, wrong, truth)
    repeating = model()
    repeating._capabilities = replace(repeating._capabilities, own_doubt=(0.6, 0.6))
    believed = manylens.resort(result, "color", ask=True, model=model())
    stated = manylens.resort(result, "color", ask=True, model=repeating)
    assert {(one.image_id, one.after) for one in stated.moves} == {(one.image_id, one.after) for one in believed.moves}
    means = [fmean(one.probability for one in found.moves) for found in (stated, believed)]
    assert 0.8 < means[0] < means[1] - 0.03
