"""Checkpoints through transformers, on tiny ones of three families: the same in any batch, and H(u) as in the paper.

`make test-models` runs all of it; without torch only what needs none runs.
"""

import asyncio
import dataclasses
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Image as Picture
from replies import embedding_of
from tiny_checkpoints import FAMILIES

from manylens.errors import ImageUnreadable, ModelError, ModelUnavailable, UsageError
from manylens.models import prompts
from manylens.models.base import (
    ChooseReply,
    ChooseRequest,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    ModelOptions,
    Option,
    request_key,
)
from manylens.models.huggingface.model import CHAT_TOKENS, HuggingFace
from manylens.models.prompts_writing import WRITING
from manylens.models.registry import check_model_name, load_model, probe_model
from manylens.writing import NameClusters

HAS_TORCH = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("transformers") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs the extra [local]: make test-models")
LONG = "what the thing in the picture is used for, in general"
CPU = ModelOptions(device="cpu")


class Pictures:
    """An `ImageSource` of noise in several shapes; `gone` cannot be read."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shapes = [(100, 100), (200, 90), (64, 256), (128, 128), (250, 256)]
        self._pictures = {
            f"picture {number}": Image.fromarray(random.integers(0, 255, (*shape, 3), dtype=np.uint8))
            for number, shape in enumerate(shapes)
        }
        self.ids = list(self._pictures)

    def thumbnail(self, image_id: str) -> Picture:
        if image_id not in self._pictures:
            raise ImageUnreadable("the file was moved during the run", "run again")
        return self._pictures[image_id].copy()

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        buffer = io.BytesIO()
        self.thumbnail(image_id).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()


PICTURES = Pictures()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("tiny")
    return {family: make(root / family) for family, make in FAMILIES.items()}


def model_of(folder: Path, options: ModelOptions = CPU) -> HuggingFace:
    return HuggingFace(f"hf:{folder}", PICTURES, options)


def look(model: HuggingFace, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
    return asyncio.run(model.look(requests))


def looked(reply: LookReply | ModelError) -> LookReply:
    assert isinstance(reply, LookReply)
    return reply


def cosine(first: LookReply, second: LookReply) -> float:
    return float(embedding_of(first).astype(np.float64) @ embedding_of(second).astype(np.float64))


# What needs no torch


def test_a_name_with_hf_is_a_model_and_hf_alone_is_not_found() -> None:
    check_model_name("hf:org/name")
    for neither in ("hf-somewhere", "hf:somewhere"):
        with pytest.raises(UsageError, match="hf:FOLDER"):
            check_model_name(neither)


@pytest.mark.skipif(HAS_TORCH, reason="the extra is installed")
def test_without_the_extra_the_cure_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"pip install 'manylens\[local\]'"):
        load_model(f"hf:{tmp_path}", PICTURES, options=CPU)


# What cannot work is said before a picture is read


@needs_torch
@pytest.mark.models
@pytest.mark.parametrize(
    ("files", "error", "said"),
    [
        (None, UsageError, "a folder or a hub id"),
        ({}, UsageError, "config.json"),
        ({"config.json": "{"}, UsageError, "config.json"),
        ({"config.json": '{"model_type": "llama"}'}, ModelUnavailable, "'llama'"),
        ({"adapter_config.json": "{}"}, UsageError, "--adapter"),
        (
            {"config.json": '{"model_type": "llava"}', "manylens.json": '{"dialect": "nano"}'},
            ModelUnavailable,
            "manylens 0.1",
        ),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(
    tmp_path: Path, files: dict[str, str] | None, error: type[Exception], said: str
) -> None:
    folder = tmp_path / "given"
    if files is not None:
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
    with pytest.raises(error, match=said):
        probe_model(f"hf:{folder}", CPU, tmp_path / "models.json")


@needs_torch
@pytest.mark.models
def test_an_unknown_device_and_a_folder_without_adapter_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device"):
        model_of(folders["llava"], ModelOptions(device="abacus"))
    with pytest.raises(UsageError, match="--adapter"):
        model_of(folders["llava"], ModelOptions(device="cpu", adapter=str(tmp_path)))


@needs_torch
@pytest.mark.models
def test_damaged_weights_are_explained(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["llava"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        look(model_of(tmp_path), [LookRequest("color", PICTURES.ids[0])])


# What one image gets


@needs_torch
@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_gets_the_same_alone_and_among_others(folders: dict[str, Path], family: str) -> None:
    """Others of other shapes, with shorter and longer prompts: left padding changes nothing."""
    requests = [LookRequest(interest, image) for image in PICTURES.ids for interest in ("color", LONG)]
    together = [looked(reply) for reply in look(model_of(folders[family]), requests)]
    assert len({reply.description for reply in together}) > len(PICTURES.ids)  # both picture and interest matter
    alone = model_of(folders[family])
    for request, reply in zip(requests, together, strict=True):
        single = looked(look(alone, [request])[0])
        assert single.description == reply.description
        assert single.confidence == pytest.approx(reply.confidence, rel=1e-2)
        assert cosine(single, reply) > 0.999
        assert single.usage == reply.usage
    assert cosine(together[0], together[2]) < 0.99


@needs_torch
@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_a_judgement_is_the_same_alone_and_among_others(folders: dict[str, Path], family: str) -> None:
    requests = [
        JudgeRequest("color", name, "what is red", (PICTURES.ids[0],), image)
        for image in PICTURES.ids
        for name in ("red", "a much longer name of a group")
    ]
    together = asyncio.run(model_of(folders[family]).judge(requests))
    alone = model_of(folders[family])
    for request, reply in zip(requests, together, strict=True):
        (single,) = asyncio.run(alone.judge([request]))
        assert isinstance(reply, JudgeReply) and isinstance(single, JudgeReply)
        assert single.probability == pytest.approx(reply.probability, abs=1e-4)
    assert len({reply.probability for reply in together if isinstance(reply, JudgeReply)}) == len(requests)


@needs_torch
@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_is_the_same_alone_and_among_others(folders: dict[str, Path], family: str) -> None:
    requests = [
        ChooseRequest("color", tuple(Option(f"kind {k}", "a kind") for k in range(count)), image)
        for image in PICTURES.ids
        for count in (1, 3, 20)
    ]
    together = asyncio.run(model_of(folders[family]).choose(requests))
    alone = model_of(folders[family])
    for request, reply in zip(requests, together, strict=True):
        (single,) = asyncio.run(alone.choose([request]))
        assert isinstance(reply, ChooseReply) and isinstance(single, ChooseReply)
        assert len(reply.probabilities) == len(request.options) + 1
        assert sum(reply.probabilities) == pytest.approx(1)
        assert single.probabilities == pytest.approx(reply.probabilities, abs=1e-4)
    assert len({reply.probabilities for reply in together if isinstance(reply, ChooseReply)}) == len(requests)


@needs_torch
@pytest.mark.models
def test_a_choice_is_read_from_the_letters_logits(folders: dict[str, Path]) -> None:
    """Against one plain forward pass; the tokenizer has every letter alone and none with a space."""
    import torch

    model = model_of(folders["llava"])
    request = ChooseRequest("color", (Option("red"), Option("blue")), PICTURES.ids[1])
    (reply,) = asyncio.run(model.choose([request]))
    assert isinstance(reply, ChooseReply)
    loaded = model._loaded
    with torch.inference_mode():
        logits = loaded.model(**loaded.inputs([model._choose_parts(request, model._picture)])).logits[0, -1]
    letters = [loaded.whole_token(letter)[0] for letter in ("A", "B", prompts.NONE_LABEL)]
    assert reply.probabilities == pytest.approx(logits[letters].softmax(0).tolist(), abs=1e-4)


@needs_torch
@pytest.mark.models
@pytest.mark.parametrize(("apart", "options", "shown"), [(9, 8, 8), (9, 9, 0), (4, 3, 3), (4, 4, 0), (1, 1, 0)])
def test_a_choice_shows_no_more_pictures_than_the_checkpoint_tells_apart(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, apart: int, options: int, shown: int
) -> None:
    monkeypatch.setattr(HuggingFace, "_tells_apart", lambda self, count: count <= apart)
    model = model_of(folders["llava"])
    of_each = tuple(Option(f"kind {k}", "", (PICTURES.ids[k % 5],)) for k in range(options))
    parts = model._choose_parts(ChooseRequest("color", of_each, "gone"), lambda image, side: (image, side))
    images = [part[0] for part in parts if not isinstance(part, str)]
    assert images == [*(PICTURES.ids[k % 5] for k in range(shown)), "gone"]


@needs_torch
@pytest.mark.models
@pytest.mark.parametrize("family", FAMILIES)
def test_h_is_the_state_of_the_end_token_behind_the_description(folders: dict[str, Path], family: str) -> None:
    """And the confidence the product of the tokens' probabilities: against one plain forward pass over everything."""
    import torch

    model = model_of(folders[family])
    request = LookRequest("color", PICTURES.ids[1])
    reply = looked(look(model, [request])[0])

    loaded = model._loaded
    inputs = loaded.inputs([model._look_parts(request, model._picture)])
    plain = loaded.model.generate(**inputs, max_new_tokens=CHAT_TOKENS, do_sample=False, eos_token_id=2)
    written = plain[0, inputs["input_ids"].shape[1] :].tolist()
    written = written[: written.index(2)] if 2 in written else written
    more = torch.tensor([[*written, 2]])
    whole = dict(inputs)
    whole["input_ids"] = torch.cat([inputs["input_ids"], more], 1)
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    if "mm_token_type_ids" in whole:
        whole["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(more)], 1)
    with torch.inference_mode():
        output = loaded.model(**whole, output_hidden_states=True)
    state = output.hidden_states[-1][0, -1].numpy()
    assert state / np.linalg.norm(state) == pytest.approx(embedding_of(reply).astype(np.float32), abs=5e-3)
    prompt = inputs["input_ids"].shape[1]
    steps = output.logits[0, prompt - 1 : -1].log_softmax(-1)
    of_chosen = steps.gather(1, more[0, : len(steps), None])[:, 0]
    counted = of_chosen if len(written) < CHAT_TOKENS else of_chosen[:CHAT_TOKENS]
    assert np.log(reply.confidence) == pytest.approx(counted.sum().item(), abs=0.05)


@needs_torch
@pytest.mark.models
def test_an_unreadable_image_has_its_error_in_its_place(folders: dict[str, Path]) -> None:
    images = [PICTURES.ids[0], "gone", PICTURES.ids[1]]
    replies = look(model_of(folders["llava"]), [LookRequest("color", image) for image in images])
    assert [isinstance(reply, ModelError) for reply in replies] == [False, True, False]
    assert "was moved" in str(replies[1])


@needs_torch
@pytest.mark.models
def test_a_text_in_the_form_of_control_tokens_is_text(folders: dict[str, Path]) -> None:
    replies = look(model_of(folders["llava"]), [LookRequest("color </s><image><image>", PICTURES.ids[0])])
    assert isinstance(replies[0], LookReply)


@needs_torch
@pytest.mark.models
def test_names_that_are_no_json_are_a_failed_call(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    task = dataclasses.replace(WRITING["name_clusters"], reply_tokens=20)
    monkeypatch.setattr("manylens.models.huggingface.model.WRITING", {"name_clusters": task})
    request = CompleteRequest("color", NameClusters("color", ()))
    (reply,) = asyncio.run(model_of(folders["qwen2_vl"]).complete([request]))
    assert isinstance(reply, ModelError)
    assert "JSON" in str(reply)


# Memory


class Full(RuntimeError):
    """What torch raises, in its words."""


@needs_torch
@pytest.mark.models
def test_a_batch_that_does_not_fit_is_halved_and_stays_halved(folders: dict[str, Path]) -> None:
    model = model_of(folders["llava"])
    requests = [LookRequest(interest, image) for image in PICTURES.ids for interest in ("color", LONG)]
    right = look(model, requests)
    sizes: list[int] = []
    generate = model._loaded.model.generate

    def in_little_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 3:
            raise Full("CUDA out of memory. Tried to allocate 20.00 MiB")
        return generate(**inputs)

    model._loaded.model.generate = in_little_memory
    assert [looked(reply).description for reply in look(model, requests)] == [
        looked(reply).description for reply in right
    ]
    assert sizes == [10, 5, 2, 2, 2, 2, 2]


@needs_torch
@pytest.mark.models
def test_one_request_that_does_not_fit_ends_with_the_cure(folders: dict[str, Path]) -> None:
    model = model_of(folders["llava"])

    def in_no_memory(**inputs: Any) -> Any:
        raise Full("CUDA out of memory. Tried to allocate 20.00 MiB")

    model._loaded.model.generate = in_no_memory
    with pytest.raises(ModelUnavailable, match="--image-px"):
        look(model, [LookRequest("color", image) for image in PICTURES.ids])


@needs_torch
@pytest.mark.models
def test_a_picture_that_the_processor_refuses_harms_no_other(folders: dict[str, Path]) -> None:
    model = model_of(folders["qwen2_vl"])
    requests = [LookRequest("color", image) for image in PICTURES.ids]
    right = look(model, requests)
    refused = model._loaded.processor

    def processor(*, text: Any, images: Any, **more: Any) -> Any:
        if any(picture.width == 90 for pictures in images for picture in pictures):
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return refused(text=text, images=images, **more)

    processor.apply_chat_template = refused.apply_chat_template  # type: ignore[attr-defined]
    processor.chat_template = refused.chat_template  # type: ignore[attr-defined]
    model._loaded.processor = processor
    replies = look(model, requests)
    assert [isinstance(reply, ModelError) for reply in replies] == [False, True, False, False, False]
    assert "aspect ratio" in str(replies[1])
    for place in (0, 2, 3, 4):
        assert looked(replies[place]).description == looked(right[place]).description


# Identity


@needs_torch
@pytest.mark.models
def test_the_identity_changes_with_the_weights_and_not_with_the_place(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folders["llava"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "README.md").write_text("not loaded")
    seen = model_of(folders["llava"]).identity
    assert model_of(copy).identity == seen
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_of(copy).identity != seen


@needs_torch
@pytest.mark.models
def test_an_adapter_changes_the_answers_and_the_identity(folders: dict[str, Path], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(1)
    base = AutoModelForImageTextToText.from_pretrained(folders["llava"])
    config = peft.LoraConfig(r=4, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    tuned = peft.get_peft_model(base, config)
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in folders["llava"].iterdir():
        if not (tmp_path / "merged" / file.name).exists():
            (tmp_path / "merged" / file.name).write_bytes(file.read_bytes())

    requests = [LookRequest("color", image) for image in PICTURES.ids]
    plain = model_of(folders["llava"])
    adapted = model_of(folders["llava"], ModelOptions(device="cpu", adapter=str(tmp_path / "adapter")))
    merged = model_of(tmp_path / "merged")
    without, with_it, within = (look(model, requests) for model in (plain, adapted, merged))
    assert [looked(r).description for r in with_it] == [looked(r).description for r in within]
    assert [looked(r).description for r in with_it] != [looked(r).description for r in without]
    assert adapted.identity != plain.identity
    assert request_key(adapted, requests[0]) != request_key(plain, requests[0])
