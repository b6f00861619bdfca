"""The benchmark as a whole: the workbench, the ablations, and the command, with a model that says what it is told."""

import asyncio
import dataclasses
import io
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn")
from bench import ablations, compare, tables, workbench
from bench.ablations import ABLATIONS, OF_LOOKS
from bench.loaders import LabelledSet
from bench.tables import ABLATION, DENSITY, FOUND, GIVEN, read_csv
from bench.workbench import NanoTokens, Workbench
from bench.worlds import OPEN, see_world
from manylens.collection.pictures import ImageSource
from manylens.errors import UsageError
from manylens.models.base import JudgeReply, JudgeRequest, LookReply, LookRequest
from manylens.models.scripted import Noise, ScriptedModel
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings
from manylens.types import Clustering

SUITS = ("clubs", "diamonds", "hearts", "spades")


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def collection(images: int = 60) -> LabelledSet:
    names = [f"{number:03d}.png" for number in range(images)]
    labels = {
        name: {"suit": SUITS[number % 4], "color": "br"[number % 4 in (1, 2)]} for number, name in enumerate(names)
    }
    pictures = {name: partial(png, number) for number, name in enumerate(names)}
    return LabelledSet("toy", pictures, labels, (("suit", "suit"), ("color", "color")), ("a note",))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedModel]:
    """`load_model` gives a scripted model that knows the toy's labels by the pixels."""
    made: list[ScriptedModel] = []
    toy = collection(256)

    def load(spec: str, images: ImageSource, *more: object) -> ScriptedModel:
        def label(interest: str, image_id: str) -> str:
            pixel = images.thumbnail(image_id).getpixel((4, 4))
            assert isinstance(pixel, tuple)
            row = toy.labels[f"{min(range(256), key=lambda n: abs(n - pixel[0])):03d}.png"]
            return row.get(interest, "thing")

        classes = {"suit": SUITS, "color": ("b", "r"), ablations.NO_INTEREST: ("thing",)}
        noise = Noise(wrong_description=0.1, false_no=0.02, false_yes=0.02)
        made.append(ScriptedModel(label, classes=classes, noise=noise, seed=3))
        return made[-1]

    monkeypatch.setattr(workbench, "load_model", load)
    return made


def test_every_answer_is_asked_once_and_charged_to_every_method_that_uses_it(
    tmp_path: Path, scripted: list[ScriptedModel]
) -> None:
    with Workbench(collection(), tmp_path, "scripted") as bench:
        _, first = asyncio.run(bench.look("suit"))
        _, second = asyncio.run(bench.look("suit"))
        assert first.calls == second.calls == {"look": 60}
        assert scripted[0].calls["look"] == 60
        assert first.tokens is None
    with Workbench(collection(), tmp_path, "scripted") as bench:  # stopped, and started again
        _, third = asyncio.run(bench.look("suit"))
        assert third.calls == {"look": 60} and scripted[1].calls["look"] == 0
        # The model's seconds are those of the first time, plus what is computed beside it now.
        assert third.seconds >= sum(seconds for seconds in bench.model._seconds.values()) > 0


def test_the_pipelines_own_count_of_calls_is_the_meters(tmp_path: Path, scripted: list[ScriptedModel]) -> None:
    with Workbench(collection(), tmp_path, "scripted") as bench:
        looks, looked = asyncio.run(bench.look("suit"))
        with bench.spending() as spent:
            found = asyncio.run(ablations.run(bench.model, looks, ablations.Ablation(), Settings()))
        assert (looked + spent[0]).calls.total() == found.calls.total


def clustered(bench: Workbench, name: str, settings: Settings | None = None) -> Clustering:
    ablation = (ABLATIONS | OF_LOOKS)[name]
    looks, _ = asyncio.run(bench.look(ablation.interest or "suit"))
    bench.model.begin()
    return asyncio.run(ablations.run(bench.model, looks, ablation, settings or Settings()))


def test_without_an_interest_or_its_embedding_the_looks_are_others(
    tmp_path: Path, scripted: list[ScriptedModel]
) -> None:
    with Workbench(collection(120), tmp_path, "scripted") as bench:
        assert len(clustered(bench, "whole method").clusters) == 4
        assert len(clustered(bench, "no interest in the prompt").clusters) == 1
        looks, _ = asyncio.run(bench.look("suit"))
        text = ablations.text_instead_of_state(looks)
        assert text.embeddings.shape != looks.embeddings.shape and text.words == looks.words
        assert len(clustered(bench, "H from the description's text").clusters) >= 4


LARGE = {name: see_world(OPEN[name], 300, 1, True, classes=8) for name in ("two levels", "free prose")}


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != "whole method"])
@pytest.mark.slow
def test_every_ablation_changes_the_questions_somewhere_and_is_gone_afterwards(name: str) -> None:
    def asked(name: str) -> list[tuple[float, int, int]]:
        runs = []
        for seen in LARGE.values():
            found = asyncio.run(ablations.run(seen.model, seen.looks, ABLATIONS[name], Settings(seed=2)))
            runs.append((sum(a.confidence for a in found.assignments), found.calls.choose, len(found.clusters)))
        return runs

    whole = asked("whole method")
    assert asked(name) != whole
    assert asked("whole method") == whole


def test_the_table_has_nmi_clusters_and_calls() -> None:
    nmi, k, calls = ablations.cell([LARGE["two levels"]], ABLATIONS["whole method"]).split(", ")
    assert 0.5 < float(nmi) <= 1 and 2 <= float(k) < 20 and 0 < float(calls) < 3


def test_tau_of_a_density_gives_that_density_and_steps_are_counted(
    tmp_path: Path, scripted: list[ScriptedModel]
) -> None:
    with Workbench(collection(), tmp_path, "scripted") as bench:
        looks, looked = asyncio.run(bench.look("suit"))
        comparison = compare.Comparison(bench, "suit", "suit", looks, looked, [0])
        rows = asyncio.run(comparison.run_density())
        for row, wanted in zip(rows, ablations.DENSITIES, strict=True):
            assert row.density == pytest.approx(wanted, abs=0.002)
            assert 0 < row.steps <= row.calls - 1 + 1e-9


def test_the_command_writes_all_tables_and_a_second_run_asks_nothing(
    tmp_path: Path, scripted: list[ScriptedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "load_sample", lambda folder: collection(32))
    monkeypatch.setattr(ablations, "DENSITIES", (0.1, 1.0))
    monkeypatch.setattr(tables, "plot_scores", lambda rows, stem: stem.with_suffix(".svg").write_text("plot"))
    monkeypatch.setattr(tables, "plot_density", lambda rows, stem: None)
    page = tmp_path / "page.md"
    marks = [
        f"<!-- begin {name} -->old<!-- end {name} -->" for name in ("about", "given", "found", "ablations", "density")
    ]
    page.write_text("# Title\n\n" + "\n\n".join(marks) + "\n\nThe end.\n")
    arguments = ["--out", str(tmp_path / "runs"), "--model", "scripted", "--seeds", "2", "--docs", str(page)]
    compare.main(arguments)
    rows = read_csv(tmp_path / "runs" / "results.csv")
    assert {row.part for row in rows} == {GIVEN, FOUND, ABLATION, DENSITY}
    assert {row.seed for row in rows if row.part == FOUND} == {0, 1}
    assert {row.interest for row in rows} == {"suit", "color"}
    methods = {row.method for row in rows if row.part in (GIVEN, FOUND)}
    assert {"k-means on H", "spectral on H", "k-means on pixels", "IC|TC, three steps", "HDBSCAN on H", "hybrid agent",
            "plain walk", "manylens"} <= methods  # fmt: skip
    assert all(row.calls == 0 for row in rows if row.method == "k-means on pixels")
    assert all(row.calls >= 1 for row in rows if row.method in ("k-means on H", "manylens"))
    text = page.read_text()
    assert (tmp_path / "benchmarks-scores.svg").read_text() == "plot"
    assert "old" not in text and text.endswith("The end.\n") and "toy, suit" in text and "a note" in text
    compare.main(arguments)
    assert sum(model.calls.total() for model in scripted[1:]) == 0
    again = read_csv(tmp_path / "runs" / "results.csv")
    timeless = [dataclasses.replace(row, seconds=0.0, tokens=0.0, density=0.0, steps=0.0) for row in rows]
    assert timeless == [dataclasses.replace(row, seconds=0.0, tokens=0.0, density=0.0, steps=0.0) for row in again]


def test_images_without_a_label_are_clustered_and_not_scored(tmp_path: Path, scripted: list[ScriptedModel]) -> None:
    toy = collection()
    labels = {name: {"suit": "" if name < "030.png" else row["suit"]} for name, row in toy.labels.items()}
    with Workbench(dataclasses.replace(toy, labels=labels), tmp_path, "scripted") as bench:
        looks, looked = asyncio.run(bench.look("suit"))
        comparison = compare.Comparison(bench, "suit", "suit", looks, looked, [0])
        truth = [toy.labels[bench.file_of[image_id]]["suit"] for image_id in looks.image_ids]
        numbers: list[int | None] = [SUITS.index(label) for label in truth]
        scored = comparison.row(FOUND, "by hand", 0, numbers, looked)
        assert (scored.nmi, scored.images, scored.clusters_true) == (1.0, 60, 4)
        wrong = [
            None if labels[bench.file_of[i]]["suit"] == "" else n for i, n in zip(looks.image_ids, numbers, strict=True)
        ]
        assert comparison.row(FOUND, "by hand", 0, wrong, looked).nmi == 1.0


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(UsageError, match="begin found"):
        compare.put_into_page("# nothing here", {"found": "x"})


def test_nano_tokens_are_counted_in_and_out() -> None:
    count = NanoTokens()
    look = LookRequest("suit", "i")
    vector = np.zeros(4, np.float16)
    short, long = (count(look, LookReply(words, 1.0, vector)) for words in ("red", "red red red"))
    assert long - short == 2
    judged = count(JudgeRequest("suit", "hearts", "", (), "i"), JudgeReply(0.5))
    assert 9 < judged < 53 and short > 11


def test_no_method_sees_a_label(tmp_path: Path, scripted: list[ScriptedModel]) -> None:
    """With the labels of the set shuffled, every partition stays as it is: only the scores change."""
    toy = collection()
    turned = {name: toy.labels[other] for name, other in zip(toy.labels, reversed(list(toy.labels)), strict=True)}

    def partitions(labelled: LabelledSet, folder: Path) -> list[tuple[str, Sequence[int | None]]]:
        seen: list[tuple[str, Sequence[int | None]]] = []
        with Workbench(labelled, folder, "scripted") as bench:
            looks, looked = asyncio.run(bench.look("suit"))
            comparison = compare.Comparison(bench, "suit", "suit", looks, looked, [0])
            original = compare.Comparison.row

            def row(
                self: compare.Comparison, part: str, method: str, seed: int, found: list[int | None], *rest: float
            ) -> object:
                seen.append((method, list(found)))
                return original(self, part, method, seed, found, *rest)  # type: ignore[arg-type]

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(compare.Comparison, "row", row)
                asyncio.run(comparison.run_baselines())
        return seen

    assert partitions(toy, tmp_path / "a") == partitions(dataclasses.replace(toy, labels=turned), tmp_path / "b")


def test_scores_are_those_of_evaluate(tmp_path: Path, scripted: list[ScriptedModel]) -> None:
    with Workbench(collection(), tmp_path, "scripted") as bench:
        looks, looked = asyncio.run(bench.look("suit"))
        comparison = compare.Comparison(bench, "suit", "suit", looks, looked, [0])
        rows = asyncio.run(comparison.run_baselines())
        row = next(row for row in rows if row.method == "equal descriptions")
        truth = [collection().labels[bench.file_of[image_id]]["suit"] for image_id in looks.image_ids]
        expected = evaluate_labels(truth, list(looks.words))
        assert (row.nmi, row.ri, row.ari, row.acc) == (expected.nmi, expected.ri, expected.ari, expected.acc)
        assert math.isnan(row.tokens)
