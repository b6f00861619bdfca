"""nano itself, with the weights that ship in the package: where they are missing these tests fail, they never skip."""

import asyncio
import csv
import io
import json
import os
import shutil
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from bad_images import make_bad_images
from PIL import Image as PillowImage
from PIL.Image import Image as Picture
from replies import embedding_of
from test_report import data_of

import manylens
from manylens.cli import main as cli
from manylens.errors import ImageUnreadable, ModelError
from manylens.events import Event, StageAdvanced
from manylens.models import prompts
from manylens.models.base import (
    ChooseReply,
    ChooseRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Option,
    Request,
)
from manylens.models.nano.bank import Bank, options_of
from manylens.models.nano.model import BATCH, MODEL_FILES, Nano
from manylens.models.text_embedder import TextEmbedder
from manylens.results.evaluate import Labels, evaluate_run, read_labels
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.text import shown_name
from manylens.types import CANNOT_TELL, NOT_APPLICABLE
from training.draw_cards import write_sample

SHARED_CARDS = Path(__file__).parents[2] / "shared" / "data" / "card.zip"
RESULT_FILES = ("assignments.csv", "clusters.json", "summary.json")
WEIGHTS = Path(manylens.__file__).parent / "models" / "nano"


class Pictures:
    """An `ImageSource` over pictures in memory that notes whose pixels were read."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._pictures = {f"card{number:02d}": picture for number, picture in enumerate(pictures)}
        self.ids = list(self._pictures)
        self.read: list[str] = []

    def thumbnail(self, image_id: str) -> Picture:
        self.read.append(image_id)
        if image_id not in self._pictures:
            raise ImageUnreadable("the file was moved during the run", "run again")
        return self._pictures[image_id]

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        raise NotImplementedError


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """104 photographs of the sample collection, two of each card, in `images`, and `labels.csv`."""
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, images_per_card=2)
    return folder


@pytest.fixture
def pictures(sample: Path) -> Pictures:
    """Two full batches and a part of one."""
    files = sorted((sample / "images").iterdir())[: 2 * BATCH + 3]
    return Pictures([PillowImage.open(file).convert("RGB") for file in files])


def look(nano: Nano, image_ids: Sequence[str], interest: str = "suit") -> list[LookReply | ModelError]:
    return asyncio.run(nano.look([LookRequest(interest, image_id) for image_id in image_ids]))


def judge(nano: Nano, image_ids: Sequence[str], name: str = "hearts") -> list[JudgeReply | ModelError]:
    return asyncio.run(nano.judge([JudgeRequest("suit", name, "", (), image_id) for image_id in image_ids]))


def choose(
    nano: Nano, image_ids: Sequence[str], names: Sequence[str], interest: str = "suit"
) -> list[tuple[float, ...]]:
    options = tuple(Option(name) for name in names)
    replies = asyncio.run(nano.choose([ChooseRequest(interest, options, image_id) for image_id in image_ids]))
    assert all(isinstance(reply, ChooseReply) for reply in replies)
    return [reply.probabilities for reply in replies if isinstance(reply, ChooseReply)]


def exact(replies: Sequence[LookReply | ModelError]) -> list[tuple[str, float, bytes]]:
    """All that a look says, to the last bit."""
    found = [reply for reply in replies if isinstance(reply, LookReply)]
    assert len(found) == len(replies)
    return [(reply.description, reply.confidence, embedding_of(reply).tobytes()) for reply in found]


def scores(out: Path, labels: Labels) -> dict[str, tuple[float, int, int]]:
    """Interest -> NMI, K found, K true."""
    runs = evaluate_run(out, labels, {name: name for name in os.listdir(out) if name in labels.attributes})
    return {run.interest: (run.scores.nmi, run.scores.clusters_found, run.scores.clusters_true) for run in runs}


def contents(path: Path) -> object:
    """A result's bytes, or a summary's values but for its `seconds`."""
    if path.name != "summary.json":
        return path.read_bytes()
    return {name: value for name, value in json.loads(path.read_bytes()).items() if name != "seconds"}


# The whole way


@pytest.fixture(scope="module")
def sorted_sample(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    manylens.cluster(sample / "images", by=["suit", "color"], out=out)
    return out


def test_the_sample_falls_apart_by_suit_and_by_color(sample: Path, sorted_sample: Path) -> None:
    found = scores(sorted_sample, read_labels(sample / "labels.csv"))
    assert found.keys() == {"suit", "color"}
    for interest, (nmi, clusters, true) in found.items():
        assert nmi >= 0.9, interest
        assert abs(clusters - true) <= 1, interest


def test_a_cancelled_call_has_ended_when_it_says_so_and_nano_can_be_asked_again(pictures: Pictures) -> None:
    """Else its thread would still write features into a run that another process holds."""

    class Slow(Pictures):
        inside = 0

        def thumbnail(self, image_id: str) -> Picture:
            self.inside += 1
            time.sleep(0.1)
            self.inside -= 1
            return self._pictures[image_id]

    slow = Slow([pictures.thumbnail(image_id) for image_id in pictures.ids])
    nano = Nano(slow)

    async def cancel() -> None:
        task = asyncio.create_task(nano.look([LookRequest("suit", image_id) for image_id in slow.ids]))
        while not slow.inside:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not slow.inside

    asyncio.run(cancel())
    assert exact(look(nano, slow.ids[:3])) == exact(look(Nano(pictures), slow.ids[:3]))


def test_an_interrupted_run_ends_with_the_same_bytes(sample: Path, sorted_sample: Path, tmp_path: Path) -> None:
    """But for `seconds` in summary.json. It stops after the first answers: what is left makes other batches."""

    def interrupt(event: Event) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "look":
            raise KeyboardInterrupt

    manylens.cluster(sample / "images", by="suit", out=tmp_path / "out", settings=Settings(budget_calls=0))
    with pytest.raises(KeyboardInterrupt):
        manylens.cluster(sample / "images", by=["suit", "color"], out=tmp_path / "out", on_event=interrupt)
    manylens.cluster(sample / "images", by=["suit", "color"], out=tmp_path / "out")
    files = ["report.html", "unreadable.csv", *(f"{i}/{f}" for i in ("suit", "color") for f in RESULT_FILES)]
    assert [file for file in files if contents(sorted_sample / file) != contents(tmp_path / "out" / file)] == []


@pytest.mark.skipif(not SHARED_CARDS.exists(), reason="the shared card photographs lie beside the project, not in it")
def test_photographs_of_cards_fall_apart_by_rank_and_by_suit(tmp_path: Path) -> None:
    """The 260 of the valid split, which nano was not trained on."""
    with zipfile.ZipFile(SHARED_CARDS) as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")))
        held_out = {row["file"]: row for row in rows if row["split"] == "valid"}
        (tmp_path / "cards").mkdir()
        for file in held_out:
            (tmp_path / "cards" / file).write_bytes(archive.read(f"images/{file}"))
    manylens.cluster(tmp_path / "cards", by=["rank", "suit"], out=tmp_path / "out")
    found = scores(tmp_path / "out", Labels("labels.csv", ("rank", "suit"), held_out))
    assert found.keys() == {"rank", "suit"}
    for interest, (nmi, clusters, true) in found.items():
        assert nmi >= 0.9, interest
        assert abs(clusters - true) <= 1, interest


def test_bad_images_end_in_the_report_and_all_counts_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_bad_images(tmp_path / "pictures")
    out = tmp_path / "out"
    assert cli.run(["cluster", str(made.root), "--by", "color", "--out", str(out)]) == 0
    assert f"{len(made.unreadable)} files could not be read" in capsys.readouterr().out

    summary = json.loads((out / "color" / "summary.json").read_text("utf-8"))
    assert summary["files_found"] == made.files_found
    assert summary["assigned"] + summary["unassigned"] + summary["failed"] == made.files_found
    assert summary["failed"] == len(made.unreadable)
    assert summary["images"] == len(made.readable)
    with open(out / "color" / "assignments.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(made.readable)
    assert sum(row["cluster"] != "" for row in rows) == summary["assigned"]
    clusters = json.loads((out / "color" / "clusters.json").read_text("utf-8"))
    assert sum(cluster["size"] for cluster in clusters) == summary["assigned"]

    page = data_of((out / "report.html").read_text("utf-8"))
    assert page["found"] == made.files_found
    reasons = dict(page["unreadable"])
    assert reasons.keys() == {shown_name(path) for path in made.unreadable}
    assert {path: part for path, part in made.unreadable.items() if part not in reasons[shown_name(path)]} == {}
    shown = [path for image in page["images"] for path in image["paths"]]
    assert sorted(shown) == sorted(shown_name(path) for path in made.readable)


# What one image gets


def test_a_look_does_not_depend_on_the_batch_or_the_order(pictures: Pictures) -> None:
    together = dict(zip(pictures.ids, exact(look(Nano(pictures), pictures.ids)), strict=True))
    assert len({embedding for _, _, embedding in together.values()}) > 1
    backwards = exact(look(Nano(pictures), pictures.ids[::-1]))
    assert backwards == [together[image_id] for image_id in pictures.ids[::-1]]
    for image_id in pictures.ids[:3] + pictures.ids[-2:]:
        assert exact(look(Nano(pictures), [image_id])) == [together[image_id]], image_id


def test_a_look_does_not_depend_on_other_interests_or_on_judgements_before(pictures: Pictures) -> None:
    alone = exact(look(Nano(pictures), pictures.ids[:4]))
    nano = Nano(pictures)
    judge(nano, pictures.ids[2:6])
    requests = [LookRequest(interest, i) for i in pictures.ids[:4] for interest in ("rank", "suit", "color")]
    mixed = asyncio.run(nano.look(requests))
    assert exact(mixed[1::3]) == alone


def test_a_judgement_does_not_depend_on_the_batch_or_the_order(pictures: Pictures) -> None:
    ids = pictures.ids[: BATCH + 1]
    together = dict(zip(ids, judge(Nano(pictures), ids), strict=True))
    assert len(set(together.values())) > 1
    assert judge(Nano(pictures), ids[::-1]) == [together[image_id] for image_id in ids[::-1]]
    assert [judge(Nano(pictures), [image_id])[0] for image_id in ids[:3]] == [together[i] for i in ids[:3]]


SUITS = ("hearts", "spades", "clubs", "diamonds")
MANY = (*SUITS, "black", "red", "the suit of hearts", "a very long name of a suit that goes on and on", "joker")


def test_a_choice_sums_to_one_and_does_not_depend_on_the_batch_the_order_or_what_was_asked_before(
    pictures: Pictures,
) -> None:
    ids = [*pictures.ids, *pictures.ids[:3]]
    together = dict(zip(ids, choose(Nano(pictures), ids, MANY), strict=True))
    assert len(set(together.values())) > BATCH
    for found in together.values():
        assert len(found) == len(MANY) + 1
        assert sum(found) == pytest.approx(1)
        assert min(found) >= 0
    nano = Nano(pictures)
    look(nano, ids[5:9])
    choose(nano, ids[5:40], SUITS)
    assert choose(nano, ids[::-1], MANY) == [together[image_id] for image_id in ids[::-1]]
    for image_id in ids[:3]:
        assert choose(Nano(pictures), [image_id], MANY) == [together[image_id]]
        turned = choose(Nano(pictures), [image_id], MANY[::-1])[0]
        assert turned[:-1] == pytest.approx(together[image_id][:-1][::-1], abs=1e-6)


def test_equal_names_share_and_what_an_option_is_called_otherwise_changes_nothing(pictures: Pictures) -> None:
    ids = pictures.ids[:4]
    plain = choose(Nano(pictures), ids, SUITS)
    for one, found in zip(plain, choose(Nano(pictures), ids, (*SUITS, " Hearts.")), strict=True):
        assert found[0] == found[4] == pytest.approx(one[0] / 2, abs=1e-6)
        assert found[1:4] == pytest.approx(one[1:4], abs=1e-6)
        assert found[-1] == pytest.approx(one[-1], abs=1e-6)
    nano = Nano(pictures)
    defined = [ChooseRequest("suit", tuple(Option(name, "a suit", ("x",)) for name in SUITS), i) for i in ids]
    assert asyncio.run(nano.choose(defined)) == [ChooseReply(found) for found in plain]
    assert nano.render(defined[0]) == nano.render(ChooseRequest("suit", tuple(map(Option, SUITS)), ids[0]))


def test_an_embedding_has_unit_length_and_a_description_is_one_line(pictures: Pictures) -> None:
    for reply in look(Nano(pictures), pictures.ids):
        assert isinstance(reply, LookReply)
        assert np.linalg.norm(embedding_of(reply).astype(np.float64)) == pytest.approx(1, abs=2e-3)
        assert embedding_of(reply).shape == (384,)
        assert reply.description == " ".join(reply.description.split()) != ""
        assert 0 < reply.confidence <= 1


@pytest.mark.parametrize(
    "text", ["suit <|image|>", "<|im_end|>", "<|im_start|>system\n", "<repo_name>", "花色 🃏", "x" * 500]
)
def test_control_tokens_and_odd_texts_still_give_one_reply_an_image(pictures: Pictures, text: str) -> None:
    nano = Nano(pictures)
    ids = pictures.ids[:2]
    assert len(exact(look(nano, ids, text))) == 2
    for answer in judge(nano, ids, text):
        assert isinstance(answer, JudgeReply)
        assert 0 <= answer.probability <= 1


def test_control_tokens_in_an_interest_end_nothing(pictures: Pictures, tmp_path: Path) -> None:
    """Through the pipeline, where descriptions and names come back as prompts."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for image_id in pictures.ids[:4]:
        pictures.thumbnail(image_id).save(folder / f"{image_id}.png")
    result = manylens.cluster(folder, by="suit<|image|><|im_end|>", out=tmp_path / "out")
    (one,) = result.values()
    assert len(one.labels) == one.clustering.calls.look == 4
    assert one.clustering.failed == ()


def test_an_unreadable_image_has_its_error_in_its_place_and_harms_no_other(pictures: Pictures) -> None:
    ids = pictures.ids[: BATCH + 2]
    right = exact(look(Nano(pictures), ids))
    nano = Nano(pictures)
    replies = look(nano, [ids[0], "gone", *ids[1:]])
    error = replies.pop(1)
    assert isinstance(error, ModelError)
    assert "was moved" in str(error)
    assert exact(replies) == right
    answers = judge(nano, [ids[0], "gone", ids[1]])
    assert [isinstance(answer, ModelError) for answer in answers] == [False, True, False]
    asked = [ChooseRequest("suit", (Option("hearts"),), image_id) for image_id in (ids[0], "gone", ids[1])]
    choices = asyncio.run(nano.choose(asked))
    assert [isinstance(choice, ModelError) for choice in choices] == [False, True, False]


# Words, refusals, the verdict


def test_every_word_of_a_description_is_in_the_bank_or_among_the_options_that_the_interest_lists(
    pictures: Pictures,
) -> None:
    words = set(Bank(WEIGHTS).words)
    assert {NOT_APPLICABLE, CANNOT_TELL} <= words
    for interest in ("suit", "weather", "what the people are doing", "Farbe", "???", "quality of the photograph"):
        said = [reply for reply in look(Nano(pictures), pictures.ids[:8], interest) if isinstance(reply, LookReply)]
        assert {reply.description for reply in said} <= words, interest
    listed = "a glorp, a frindle or a mubbet?"
    said = [reply for reply in look(Nano(pictures), pictures.ids[:8], listed) if isinstance(reply, LookReply)]
    assert {reply.description for reply in said} <= {"glorp", "frindle", "mubbet", NOT_APPLICABLE, CANNOT_TELL}


@pytest.mark.parametrize(
    ("interest", "options"),
    [
        ("good or defective", ["good", "defective"]),
        ("Is it sunny, cloudy or rainy?", ["sunny", "cloudy", "rainy"]),
        ("kind of image: photo, painting, sketch", ["photo", "painting", "sketch"]),
        ("color of the object", []),
        ("roses, tulips, lilies and so on", []),
        ("dog, cat, horse ...", []),
        ("red, green, etc.", []),
        ("whatever the people in this picture are doing or what they want", []),
    ],
)
def test_the_options_that_an_interest_lists(interest: str, options: list[str]) -> None:
    assert options_of(interest) == options


@pytest.mark.parametrize(
    ("interest", "words"),
    [
        ("savory or sweet", ["savory dish", "sweet dessert"]),
        ("is it inside a room or in the open?", ["indoors", "outdoors"]),
        ("something alive or something to ride in", ["animals", "transportation"]),
    ],
)
def test_listed_options_stand_for_the_words_of_the_task_that_is_asked_for(interest: str, words: list[str]) -> None:
    bank, embedder = Bank(WEIGHTS), TextEmbedder()
    may = bank.candidates(interest, embedder.embed([interest])[0], embedder.embed)
    assert may.words[:-2] == tuple(options_of(interest))
    assert np.allclose(may.vectors[:-2], bank.vectors[[bank.words.index(word) for word in words]])
    assert may.is_known


def test_a_choice_reads_listed_options_as_a_look_does(pictures: Pictures) -> None:
    """ "crimson" and "dark" stand for red and black; by their own words most black cards would be neither."""
    interest, ids = "crimson or dark", pictures.ids[:12]
    said = [reply.description for reply in look(Nano(pictures), ids, interest) if isinstance(reply, LookReply)]
    assert set(said) == {"crimson", "dark"}
    for answer, shares in zip(said, choose(Nano(pictures), ids, ("crimson", "dark"), interest), strict=True):
        assert ("crimson", "dark", "neither")[int(np.argmax(shares))] == answer


def test_the_verdict_is_the_same_whatever_was_asked_before_and_counts_no_unreadable_picture(pictures: Pictures) -> None:
    nano = Nano(pictures)
    look(nano, pictures.ids[:5], "rank")
    found = nano.verdict("suit", pictures.ids[::-1])
    assert found == Nano(pictures).verdict("suit", [*pictures.ids, "gone"])
    assert found.word in ("good", "check", "not understood")
    assert Nano(pictures).verdict("suit", ["gone"]).word == "not understood"


def test_appearance_has_unit_length_and_depends_on_the_picture_alone(pictures: Pictures) -> None:
    nano = Nano(pictures)
    look(nano, pictures.ids[3:7])
    found = nano.appearance([*pictures.ids, "gone"])
    assert found.keys() == set(pictures.ids)
    for image_id in pictures.ids[:4]:
        assert np.linalg.norm(found[image_id]) == pytest.approx(1, abs=1e-4)
        assert (Nano(pictures).appearance([image_id])[image_id] == found[image_id]).all()
    assert not np.allclose(found[pictures.ids[0]], found[pictures.ids[-1]])


# What is kept


def test_a_second_interest_reads_no_pixels_again(pictures: Pictures) -> None:
    nano = Nano(pictures)
    look(nano, pictures.ids, "suit")
    assert sorted(pictures.read) == pictures.ids
    look(nano, pictures.ids, "rank")
    judge(nano, pictures.ids)
    assert sorted(pictures.read) == pictures.ids


def test_a_later_run_reads_no_pixels_again_and_sees_the_same(pictures: Pictures, tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "run") as run:
        look(Nano(pictures, run.features), pictures.ids, "suit")
    with RunFolder.open(tmp_path / "run") as run:
        later = exact(look(Nano(pictures, run.features), pictures.ids, "rank"))
    assert sorted(pictures.read) == pictures.ids
    assert later == exact(look(Nano(pictures), pictures.ids, "rank"))


def test_the_identity_changes_with_every_file(tmp_path: Path) -> None:
    source = Pictures([])
    shutil.copytree(WEIGHTS, tmp_path / "nano")
    seen = {Nano(source).identity}
    assert Nano(source, folder=tmp_path / "nano").identity in seen
    for file in MODEL_FILES:
        with open(tmp_path / "nano" / file, "ab") as stream:
            stream.write(b"\n")
        seen.add(Nano(source, folder=tmp_path / "nano").identity)
    assert len(seen) == 1 + len(MODEL_FILES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "nano.json").write_text("{}")
    with pytest.raises(ModelError, match=r"eyes\.onnx"):
        Nano(Pictures([]), folder=tmp_path)


def test_the_weights_fit_the_wheel() -> None:
    """The wheel has at most 100 MB, 23 of them the text embedder; MODEL_FILES are all of nano."""
    assert {path.name for path in WEIGHTS.iterdir()} >= set(MODEL_FILES)
    assert sum((WEIGHTS / file).stat().st_size for file in MODEL_FILES) < 70_000_000


def test_nanos_prompts_are_the_reviewed_text_of_their_version() -> None:
    """After a wanted change: raise prompts.NANO_PROMPTS, then MANYLENS_WRITE_GOLDEN=1, and review the difference."""
    nano = Nano(Pictures([]))
    options = (Option("Hearts."), Option("black <|im_end|> suit"))
    requests: dict[str, Request] = {
        "look": LookRequest("suit of  the card", "card"),
        "judge": JudgeRequest("suit of the card", "hearts", "not shown to nano", ("other",), "card"),
        "choose": ChooseRequest("suit of the card", options, "card"),
    }
    shown = {prompts.NANO_PROMPTS: {kind: json.loads(nano.render(request)) for kind, request in requests.items()}}
    golden = Path(__file__).parent / "golden" / "nano-prompts.json"
    reviewed = json.loads(golden.read_text("utf-8")) if golden.exists() else {}
    if os.environ.get("MANYLENS_WRITE_GOLDEN") and shown.keys() != reviewed.keys():
        golden.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert shown == json.loads(golden.read_text("utf-8"))
