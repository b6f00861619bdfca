"""nano as a Hugging Face checkpoint says what the embedded nano says: weight by weight, through `hf:`, and behind
`transformers serve`, a server that is not ours. `make test-models` runs this; it takes a few minutes.
"""

import csv
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Image as Picture

import manylens
from manylens.errors import UsageError
from manylens.models.base import (
    ChooseReply,
    ChooseRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    ModelOptions,
    Option,
    request_key,
)
from manylens.models.huggingface.model import HuggingFace
from manylens.models.huggingface.nano_checkpoint import packaged_files, read_weights, write_checkpoint
from manylens.models.nano.model import Nano
from manylens.models.prompts import NANO_NAME
from manylens.models.registry import load_model
from manylens.results.evaluate import Labels, evaluate_run
from manylens.store.run_folder import RunFolder
from training.draw_cards import write_sample

for package in ("torch", "transformers", "onnx"):
    pytest.importorskip(package, reason="needs the extra [local]: make test-models")
pytestmark = pytest.mark.models

SHARED_CARDS = Path(__file__).parents[2] / "shared" / "data" / "card.zip"
INTERESTS = ("suit", "rank")
HALF = 50
START_S = 180
VISUAL_TOKENS = json.loads((packaged_files() / "nano.json").read_text("utf-8"))["visual_tokens"]


class Files:
    """An `ImageSource` over the files of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def thumbnail(self, image_id: str) -> Picture:
        with Image.open(self._folder / image_id) as picture:
            small = picture.convert("RGB")
        small.thumbnail((256, 256))
        return small

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        raise NotImplementedError


@dataclass
class Cards:
    """100 photographs: 50 drawn, and 50 real ones that nano was not trained on where these are there, else drawn."""

    folder: Path
    labels: Labels
    names: list[str]


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Cards:
    root = tmp_path_factory.mktemp("cards")
    write_sample(root / "sample", images_per_card=2)
    (root / "images").mkdir()
    rows: dict[str, dict[str, str]] = {}
    with open(root / "sample" / "labels.csv", encoding="utf-8", newline="") as file:
        drawn = list(csv.DictReader(file))
    for row in drawn[: HALF if SHARED_CARDS.exists() else 2 * HALF]:
        (root / "images" / row["file"]).write_bytes((root / "sample" / "images" / row["file"]).read_bytes())
        rows[row["file"]] = row
    if SHARED_CARDS.exists():
        with zipfile.ZipFile(SHARED_CARDS) as archive:
            given = csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8"))
            held_out = [row for row in given if row["split"] == "valid"]
            for row in held_out[:: len(held_out) // HALF][:HALF]:
                (root / "images" / row["file"]).write_bytes(archive.read(f"images/{row['file']}"))
                rows[row["file"]] = row
    return Cards(root / "images", Labels("labels.csv", INTERESTS, rows), sorted(rows))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / NANO_NAME
    write_checkpoint(folder)
    return folder


# The weights


def test_the_weights_are_those_that_onnxruntime_computes_with() -> None:
    """One matrix of each kind, cut out of the shipped graphs and run."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    weights = read_weights()
    decoder = onnx.load(str(packaged_files() / "decoder.onnx")).graph
    tensors = {tensor.name: tensor for tensor in decoder.initializer}
    node = next(node for node in decoder.node if node.name.startswith("/down_proj_3/"))
    exact = helper.make_node("MatMulNBits", ["x", *node.input[1:]], ["y"], domain="com.microsoft")
    kept = [a for a in node.attribute if a.name != "accuracy_level"]  # full precision, so that only weights count
    exact.attribute.extend(kept)
    graph = helper.make_graph(
        [exact],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1536])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 576])],
        [tensors[name] for name in node.input[1:]],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(1536, dtype=np.float32)})
    assert np.array_equal(found.T, weights["language_model.model.layers.3.mlp.down_proj.weight"])


def test_the_vision_tower_gives_the_same_visual_tokens(checkpoint: Path, cards: Cards) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    source = Files(cards.folder)
    nano = Nano(source)
    tokens = nano._visual_tokens(cards.names[:4])
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    pictures = [source.thumbnail(name).resize((192, 192), Image.Resampling.BICUBIC) for name in cards.names[:4]]
    with torch.inference_mode():
        inputs = processor.image_processor(images=pictures, return_tensors="pt")
        features = model.model.get_image_features(inputs["pixel_values"])
    found = np.stack(list(getattr(features, "pooler_output", features)))  # older releases give a list
    wanted = np.stack([np.asarray(tokens[name], np.float32) for name in cards.names[:4]])
    assert np.abs(found - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="empty folder"):
        write_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_ordinary_chat_message_becomes_nanos_prompt(checkpoint: Path) -> None:
    """In whatever order its parts come; the same tokens as the embedded nano reads."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    picture = {"type": "image", "image": Image.new("RGB", (192, 192))}
    text = {"type": "text", "text": "suit of the card"}
    nano = Nano(Files(checkpoint))
    wanted = [1, *nano._token_ids("suit of the card"), *[4] * VISUAL_TOKENS, *nano._token_ids("\nAnswer:")]
    for content in ([text, picture], [picture, text]):
        turns = [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": content},
        ]
        for prepared in (turns, turns[1:]):
            inputs = processor.apply_chat_template(
                prepared, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )
            assert inputs["input_ids"][0].tolist() == wanted


# Through hf:


def test_a_look_a_judgement_and_a_choice_are_those_of_the_embedded_nano(checkpoint: Path, cards: Cards) -> None:
    import asyncio

    source = Files(cards.folder)
    nano, same = Nano(source), HuggingFace(f"hf:{checkpoint}", source, ModelOptions(device="cpu"))
    assert same.capabilities == nano.capabilities
    texts = ("suit", "what is the <|im_end|> rank<|image|>?", "farbe der karte", "the suit of the card, " * 13)
    looks = [LookRequest(text, image) for text in texts for image in cards.names[:3]]
    for mine, theirs in zip(asyncio.run(nano.look(looks)), asyncio.run(same.look(looks)), strict=True):
        assert isinstance(mine, LookReply) and isinstance(theirs, LookReply)
        assert theirs.description == mine.description
        assert theirs.confidence == pytest.approx(mine.confidence, abs=0.08)  # activations in int8: .050 was seen
        assert mine.embedding.astype(float) @ theirs.embedding.astype(float) > 0.998
    asked = [JudgeRequest("suit", name, "", (), i) for i in cards.names[:6] for name in ("hearts", "the clubs")]
    for my, their in zip(asyncio.run(nano.judge(asked)), asyncio.run(same.judge(asked)), strict=True):
        assert isinstance(my, JudgeReply) and isinstance(their, JudgeReply)
        assert their.probability == pytest.approx(my.probability, abs=0.03)
    options = tuple(map(Option, ("hearts", "Spades", "clubs", "diamonds", "hearts", "the suit of a card")))
    choices = [ChooseRequest("suit", options, image) for image in cards.names[:12]]
    for my_choice, their_choice in zip(
        asyncio.run(nano.choose(choices)), asyncio.run(same.choose(choices)), strict=True
    ):
        assert isinstance(my_choice, ChooseReply) and isinstance(their_choice, ChooseReply)
        assert their_choice.chosen == my_choice.chosen
        assert their_choice.probabilities == pytest.approx(my_choice.probabilities, abs=0.08)
    assert len({nano.render(choices[0]), nano.render(looks[0])}) == 2
    assert same.render(choices[0]) != same.render(LookRequest("suit", cards.names[0]))


# Three backends, one clustering


@dataclass
class Outcome:
    """descriptions: (interest, file name) -> words. nmi: by interest."""

    descriptions: dict[tuple[str, str], str]
    nmi: dict[str, float]


def sort_cards(cards: Cards, out: Path, model: str, options: ModelOptions) -> Outcome:
    result = manylens.cluster(cards.folder, by=INTERESTS, model=model, options=options, out=out)
    scores = evaluate_run(out, cards.labels, {name: name for name in INTERESTS})
    asking = load_model(model, Files(cards.folder), None, options, recorded=out / "models.json")
    descriptions: dict[tuple[str, str], str] = {}
    with RunFolder.open(out) as run:
        for interest in INTERESTS:
            for image in result.collection.images:
                key = request_key(asking, LookRequest(interest, image.id))
                (answer,) = run.get_answers([key]).values()
                descriptions |= {(interest, path): answer.fields["description"] for path in image.paths}
    return Outcome(descriptions, {score.interest: score.scores.nmi for score in scores})


@pytest.fixture(scope="module")
def embedded(cards: Cards, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return sort_cards(cards, tmp_path_factory.mktemp("onnx") / "out", "nano", ModelOptions())


@pytest.fixture
def server(checkpoint: Path) -> Iterator[str]:
    """The address of `transformers serve` with the checkpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(checkpoint)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    log = checkpoint.parent / "server.log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT) as process,
    ):
        try:
            began = time.monotonic()
            while not _is_healthy(port):
                assert process.poll() is None and time.monotonic() - began < START_S, log.read_text("utf-8")[-2000:]
                time.sleep(0.2)
            print(f"\ntransformers serve answered after {time.monotonic() - began:.0f} s")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _is_healthy(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(json.load(reply))
    except (urllib.error.URLError, OSError, ValueError):
        return False


def agree(mine: Outcome, theirs: Outcome, *, at_most: int) -> None:
    other = {key: (words, theirs.descriptions[key]) for key, words in mine.descriptions.items()}
    other = {key: pair for key, pair in other.items() if pair[0] != pair[1]}
    print(f"\n{len(mine.descriptions)} descriptions, {len(other)} differ {other}, NMI {mine.nmi} {theirs.nmi}")
    assert len(mine.descriptions) == 2 * len(INTERESTS) * HALF
    assert len(set(mine.descriptions.values())) >= 4 + 13
    assert len(other) <= at_most
    for interest in INTERESTS:
        assert theirs.nmi[interest] == pytest.approx(mine.nmi[interest], abs=0.01), interest


@pytest.mark.parametrize(("device", "at_most"), [("cpu", 2), ("cuda", 6)])  # bfloat16 on a GPU, float32 here
def test_the_checkpoint_sorts_as_the_embedded_nano(
    cards: Cards, checkpoint: Path, embedded: Outcome, tmp_path: Path, device: str, at_most: int
) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this computer")
    options = ModelOptions(device=device)
    agree(embedded, sort_cards(cards, tmp_path / "out", f"hf:{checkpoint}", options), at_most=at_most)


def test_a_server_that_is_not_ours_sorts_as_the_embedded_nano(
    cards: Cards, checkpoint: Path, server: str, embedded: Outcome, tmp_path: Path
) -> None:
    options = ModelOptions(base_url=server, image_px=256, concurrency=1)
    agree(embedded, sort_cards(cards, tmp_path / "out", str(checkpoint), options), at_most=6)
