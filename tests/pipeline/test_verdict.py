"""A model that says how well it understands: its verdict, its refusals, and the groups by look."""

import asyncio
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL.Image import Image as Picture
from test_report import data_of

import manylens
from manylens.cli import main as cli
from manylens.collection.find import find_images
from manylens.collection.pictures import ImageSource
from manylens.errors import UsageError
from manylens.models.base import LookReply, LookRequest, check_model
from manylens.models.scripted import ScriptedModel
from manylens.pipeline import cluster_images
from manylens.pipeline.add import add_images
from manylens.pipeline.budget import Budget
from manylens.results.result import Result
from manylens.settings import Settings
from manylens.types import CANNOT_TELL, NOT_APPLICABLE, Clustering, Interest, Verdict

KIND = Interest("kind")
LOST = Verdict("not understood", "these are no words for it", "Use a larger model.")
DOUBT = Verdict("check", "it is unsure of its answers", "Look at the exemplars.")
SURE = Verdict("good", "it knows what is asked")

LABELS = {f"{number:02d}": f"kind{number % 3}" for number in range(60)}
LOOKS = {image_id: int(image_id) % 5 for image_id in LABELS}


class Judging(ScriptedModel):
    """A scripted model with a verdict; what pictures look like is another matter than their kind."""

    def __init__(self, verdict: Verdict, labels: Mapping[str, str] = LABELS) -> None:
        super().__init__({"kind": labels, "kind0 or kind1": labels})
        self.said, self.asked, self.looked = verdict, 0, 0

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | manylens.errors.ModelError]:
        self.looked += len(requests)
        return await super().look(requests)

    def verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict:
        self.asked += 1
        return self.said

    def appearance(self, image_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return {i: np.eye(5, dtype=np.float32)[LOOKS[i]] for i in image_ids if i != "07"}


def run(model: ScriptedModel, interest: Interest = KIND, **changes: object) -> Clustering:
    settings = Settings(**changes)  # type: ignore[arg-type]
    return asyncio.run(cluster_images(list(LABELS), [interest], model, settings, lambda event: None))[interest]


def test_what_is_not_understood_is_grouped_by_look_and_no_word_of_it_becomes_a_cluster() -> None:
    model = Judging(LOST)
    found = run(model, n_clusters=5)
    assert [cluster.name for cluster in found.clusters] == [f"look {k}" for k in range(1, 6)]
    assert {cluster.definition for cluster in found.clusters} == {"alike to the eye"}
    assert sum(cluster.size for cluster in found.clusters) == 59
    of_look = {LOOKS[a.image_id]: a.cluster for a in found.assignments if a.cluster}
    placed = [a for a in found.assignments if a.cluster is not None]
    assert all(a.cluster == of_look[LOOKS[a.image_id]] for a in placed)
    assert len(set(of_look.values())) == 5
    assert {(a.decided_by, a.reason) for a in placed} == {("look", "alike to the eye")}
    (unseen,) = [a for a in found.assignments if a.cluster is None]
    assert (unseen.image_id, unseen.confidence) == ("07", 0)
    where = {a.image_id: a.cluster for a in found.assignments}
    assert all(where[e] == cluster.id for cluster in found.clusters for e in cluster.exemplars)
    assert found.verdict == LOST
    assert "look alike" in found.notes[0] and "larger model" in found.notes[0]
    assert (found.calls.look, found.calls.total, model.asked) == (60, 60, 1)
    assert "kind" not in json.dumps([cluster.to_dict() for cluster in found.clusters])


def test_the_groups_by_look_are_as_many_as_is_usual_and_the_same_again() -> None:
    assert len(run(Judging(LOST)).clusters) == 5  # of the five looks there are, and sqrt(59 / 2)
    assert run(Judging(LOST)) == run(Judging(LOST))


@pytest.mark.parametrize("verdict", [SURE, DOUBT])
def test_what_is_understood_is_sorted_as_ever_and_carries_the_verdict(verdict: Verdict) -> None:
    found, plain = run(Judging(verdict)), run(ScriptedModel({"kind": LABELS}))
    assert (found.assignments, found.clusters, found.calls) == (plain.assignments, plain.clusters, plain.calls)
    assert (found.verdict, plain.verdict) == (verdict, None)
    assert found.notes == (*([verdict.advice] if verdict.advice else []), *plain.notes)


def test_a_closed_list_is_sorted_into_however_little_is_understood() -> None:
    for found in (run(Judging(LOST), into=("kind0", "kind1")), run(Judging(LOST), Interest("kind0 or kind1"))):
        assert [cluster.name for cluster in found.clusters] == ["kind0", "kind1"]
        assert found.verdict is not None and found.verdict.word == "check"
        assert found.verdict.reason.startswith(LOST.reason) and "sorted into them all the same" in found.verdict.reason
        where = {a.image_id: a.cluster for a in found.assignments}
        assert {where[i] for i, label in LABELS.items() if label == "kind2"} == {None}


def test_refusals_stay_unassigned_with_their_reason_and_are_counted() -> None:
    refused = {"03": NOT_APPLICABLE, "04": NOT_APPLICABLE, "05": CANNOT_TELL}
    found = run(ScriptedModel({"kind": LABELS | refused}))
    assert len(found.clusters) == 3
    at = {a.image_id: a for a in found.assignments}
    assert {i: (at[i].cluster, at[i].reason) for i in refused} == {
        "03": (None, "does not apply to this picture"),
        "04": (None, "does not apply to this picture"),
        "05": (None, "cannot be told from this picture"),
    }
    assert '2 images are unassigned: "does not apply to this picture".' in found.notes
    assert '1 image is unassigned: "cannot be told from this picture".' in found.notes
    assert not any("no cluster fits" in note for note in found.notes)


def test_a_model_with_a_verdict_needs_an_appearance() -> None:
    class Half(ScriptedModel):
        def verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict:
            return SURE

    with pytest.raises(UsageError, match="appearance"):
        check_model(Half({"kind": {}}))


# Through a run folder, to the files and the console


class Seeing(Judging):
    """Pictures of one plain color each: it looks like what it is."""

    def open(self, images: ImageSource) -> None:
        self._images = images

    def appearance(self, image_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        pixels = {i: np.asarray(self._images.thumbnail(i), np.float32)[0, 0] for i in image_ids}
        return {i: row / np.linalg.norm(row) for i, row in pixels.items()}


def sorted_folder(tmp_path: Path, verdict: Verdict, out: str = "out") -> Result:
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(12):
        color = [(250, 10, 10), (10, 250, 10)][number % 2]
        PillowImage.new("RGB", (40, 30 + number), color).save(folder / f"{number}.png")
    labels = {image.id: "thing" for image in find_images(folder).images}
    model = Seeing(verdict, labels)
    return manylens.cluster(folder, by="kind", out=tmp_path / out, model=model, n_clusters=2)


def test_the_verdict_is_in_the_summary_and_comes_first_in_the_report_and_on_the_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from manylens.cli import render

    result = sorted_folder(tmp_path, LOST)
    assert result.problem is None
    summary = json.loads((tmp_path / "out" / "kind" / "summary.json").read_text("utf-8"))
    assert summary["verdict"] == LOST.to_dict()
    with open(tmp_path / "out" / "kind" / "assignments.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["decided_by"] for row in rows} == {"look"}
    by_parity = {(int(Path(row["image"]).stem) % 2, row["name"]) for row in rows}
    assert len(by_parity) == 2
    line = "Verdict: not understood. These are no words for it."
    (interest,) = data_of((tmp_path / "out" / "report.html").read_text("utf-8"))["interests"]
    assert interest["verdict"] == line
    render.print_clustering(render.open_console(), "kind", result["kind"])
    shown = capsys.readouterr().out
    assert -1 < shown.index(line) < shown.index("by kind") < shown.index("look 1")
    assert "thing" not in shown


def test_the_verdict_is_read_back_from_the_run_folder(tmp_path: Path) -> None:
    from manylens.store.run_folder import RunFolder

    result = sorted_folder(tmp_path, DOUBT)
    with RunFolder.open(tmp_path / "out") as folder:
        ((kept, _),) = folder.clusterings()
    assert kept == result["kind"].clustering
    assert kept.verdict == DOUBT


def test_a_picture_that_cannot_be_understood_ends_a_run_with_0(tmp_path: Path) -> None:
    """nano itself, of whatever weights: an interest in none of its words, pictures that show nothing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        PillowImage.new("RGB", (40, 30 + number), (200, 200, 200)).save(folder / f"{number}.png")
    assert cli.run(["cluster", str(folder), "--by", "qwertz", "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "qwertz" / "summary.json").read_text("utf-8"))
    assert summary["verdict"]["word"] in ("good", "check", "not understood")


def test_pictures_that_come_later_join_the_groups_by_look(tmp_path: Path) -> None:
    before = sorted_folder(tmp_path, LOST)["kind"].clustering
    for name, color in (("new", (240, 20, 15)), ("other", (15, 240, 20))):
        PillowImage.new("RGB", (41, 29), color).save(tmp_path / "pictures" / f"{name}.png")
    ids = [image.id for image in find_images(tmp_path / "pictures").images]
    model = Seeing(LOST, dict.fromkeys(ids, "thing"))
    model.open(Colors(tmp_path / "pictures"))
    budget = Budget(model, Settings())
    after = asyncio.run(add_images(before, ids, model, Settings(), lambda event: None, budget))
    assert [cluster.name for cluster in after.clusters] == ["look 1", "look 2"]
    assert sum(cluster.size for cluster in after.clusters) == 14
    fresh = [a for a in after.assignments if a not in before.assignments]
    assert len(fresh) == len({a.cluster for a in fresh}) == 2
    assert {a.decided_by for a in fresh} == {"look"}


class Colors:
    """An `ImageSource` over a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = {image.id: folder / image.paths[0] for image in find_images(folder).images}

    def thumbnail(self, image_id: str) -> Picture:
        return PillowImage.open(self._files[image_id]).convert("RGB")

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        raise NotImplementedError
