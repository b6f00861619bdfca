"""nano: the embedded multi-modal model, run by onnxruntime on the CPU. No key, no GPU, no download.

In: requests and an `ImageSource`. Out: replies in order. Promise: deterministic, and what one image gets does not
depend on which others are asked with it: batches have a fixed shape and activations are quantised row by row.

EfficientNet-Lite2 turns 192 x 192 pixels into 9 visual tokens (kept per image, so a second interest reads no pixels);
16 layers of SmolLM2 read `{interest}` + image + `Answer:`. What stands before the image is computed once per interest
or cluster and shared through its keys and values. H(u) is a linear head on the last prompt token (see training/).
A choice asks how probable it is that nano describes the picture by the name of each option.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from manylens.collection.pictures import ImageSource
from manylens.errors import ImageUnreadable, ModelError, ModelReplyInvalid
from manylens.models import prompts
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Request,
)
from manylens.store.feature_shards import FeatureShards
from manylens.sync import in_thread

FloatArray: TypeAlias = NDArray[np.float32]
T = TypeVar("T")

BATCH = 32  # images described at once; a fixed shape, so a partial batch is padded
NAMES_BATCH = 16  # names weighed at once, of any pictures under one interest; a fixed shape again
LOG_NEGLIGIBLE = float(np.log(prompts.CHOICE_FLOOR))  # a name less probable than this so far is followed no further
PIXELS_BATCH = 8  # images turned into visual tokens at once: more are no faster and take memory
MAX_DESCRIPTION_TOKENS = 10
PREFIXES_KEPT = 256  # keys and values of prompts, about 0.3 MB each
TOKENS_KEPT = 512  # visual tokens of images in memory, 41 kB each, beside those in the run folder
CHOICES_KEPT = 64  # pictures under an interest, 0.8 MB each: a picture may be asked about more than once
MODEL_FILES = ("nano.json", "tokenizer.json", "words.npz", "vision.onnx", "decoder.onnx")


class Nano:
    """The `Model` protocol over the files in `manylens/models/nano/`.

    open_features: where visual tokens are kept between interests and runs, (name, identity) -> FeatureShards; without
    it they live in memory only. folder: of other weights, with the `name` by which they are known.
    """

    def __init__(
        self,
        images: ImageSource,
        open_features: Callable[[str, str], FeatureShards] | None = None,
        *,
        folder: Path | None = None,
        threads: int | None = None,
        name: str = "nano",
    ) -> None:
        self.name = name
        self._images = images
        self._open_features = open_features
        self._folder = folder or Path(str(resources.files("manylens.models") / "nano"))
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._lock = threading.Lock()
        self._running = onnxruntime.RunOptions()  # of all sessions, so that a Ctrl-C ends what they are doing
        self._recent: OrderedDict[str, NDArray[np.float16]] = OrderedDict()
        self._prefixes: OrderedDict[str, tuple[FloatArray, FloatArray]] = OrderedDict()
        self._weighed: OrderedDict[tuple[str, str], _Weighed] = OrderedDict()
        missing = [file for file in MODEL_FILES if not (self._folder / file).exists()]
        if missing:
            raise ModelError(
                f"nano needs its files in {self._folder.name}/, missing: {', '.join(missing)}",
                "install manylens from its wheel, or from a full checkout",
            )
        self._numbers: dict[str, Any] = json.loads((self._folder / "nano.json").read_text("utf-8"))

    @cached_property
    def identity(self) -> str:
        """`nano:` and the SHA-256 over all model files."""
        digest = hashlib.sha256()
        for file in MODEL_FILES:
            digest.update((self._folder / file).read_bytes())
        return f"nano:{digest.hexdigest()[:32]}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            writes_text=False,
            sees_exemplars=False,
            edge_scale=float(self._numbers["edge_scale"]),
            edge_offset=float(self._numbers["edge_offset"]),
        )

    def render(self, request: Request) -> str:
        match request:
            case LookRequest():
                text, image = prompts.nano_look_prompt(request.interest), request.image_id
            case JudgeRequest():
                text, image = prompts.nano_judge_prompt(request.interest, request.cluster_name), request.candidate_id
            case ChooseRequest():
                text, image = prompts.nano_look_prompt(request.interest), request.candidate_id
            case CompleteRequest():
                text, image = request.payload, ""
        parts: list[Any] = [prompts.NANO_PROMPTS, text, {"image": image}, prompts.NANO_ANSWER, MAX_DESCRIPTION_TOKENS]
        if isinstance(request, ChooseRequest):
            parts.append([prompts.nano_name(option.name) for option in request.options])
        return json.dumps(parts, ensure_ascii=False)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._in_thread(lambda: self._look_at_all(requests))

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._in_thread(lambda: self._judge_all(requests))

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await self._in_thread(lambda: self._choose_all(requests))

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        refusal = ModelReplyInvalid("nano writes no text beside descriptions", "use a larger model for names in prose")
        return [refusal for _ in requests]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def stop() -> None:
            self._running.terminate = True

        try:
            return await in_thread(work, stop)
        finally:
            if self._running.terminate:
                self._running = onnxruntime.RunOptions()

    # The model's parts, loaded when first used

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.encode_special_tokens = True  # `<|im_end|>` in an interest or a cluster name is text, never control
        return tokenizer

    @cached_property
    def _words(self) -> FloatArray:
        """The tied embedding table, (vocabulary, width)."""
        with np.load(self._folder / "words.npz") as table:
            words: FloatArray = table["codes"].astype(np.float32) * table["scale"][:, None]
            return words

    @cached_property
    def _vision(self) -> onnxruntime.InferenceSession:
        return self._session("vision.onnx")

    @cached_property
    def _decoder(self) -> onnxruntime.InferenceSession:
        return self._session("decoder.onnx")

    @cached_property
    def _features(self) -> FeatureShards | None:
        return None if self._open_features is None else self._open_features(self.name, self.identity)

    def _session(self, file: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Spinning threads starve each other where cores are shared: looks 10 -> 15 a second on a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(str(self._folder / file), options, providers=["CPUExecutionProvider"])

    # Images

    def _visual_tokens(self, image_ids: Sequence[str]) -> dict[str, NDArray[np.float16] | ModelError]:
        """Visual tokens (9, width) of each image: from memory, the run folder, or its pixels."""
        found: dict[str, NDArray[np.float16] | ModelError] = {}
        unseen: list[str] = []
        for image_id in dict.fromkeys(image_ids):
            if image_id in self._recent:
                self._recent.move_to_end(image_id)
                found[image_id] = self._recent[image_id]
            elif self._features is not None and image_id in self._features:
                found[image_id] = self._features.get([image_id])[0]
            else:
                unseen.append(image_id)
        fresh: dict[str, NDArray[np.float16]] = {}
        for batch in _batches(unseen, PIXELS_BATCH):
            pixels = np.zeros((PIXELS_BATCH, self._numbers["image_px"], self._numbers["image_px"], 3), np.uint8)
            readable: list[str] = []
            for image_id in batch:
                try:
                    pixels[len(readable)] = self._pixels(image_id)
                    readable.append(image_id)
                except ImageUnreadable as error:
                    found[image_id] = ModelError(error.rule, error.hint)
            if readable:
                (tokens,) = self._vision.run(None, {"pixels": pixels}, self._running)
                fresh.update(zip(readable, tokens.astype(np.float16), strict=False))
        if fresh and self._features is not None:
            self._features.append(list(fresh), np.stack(list(fresh.values())))
        found.update(fresh)
        self._recent.update(fresh)
        while len(self._recent) > TOKENS_KEPT:
            self._recent.popitem(last=False)
        return found

    def _pixels(self, image_id: str) -> NDArray[np.uint8]:
        side = self._numbers["image_px"]
        picture = self._images.thumbnail(image_id).resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(picture, np.uint8)

    # Language

    def _token_ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, embeds: FloatArray, past: tuple[FloatArray, FloatArray]) -> list[FloatArray]:
        """state (b, width), H (b, 256), new keys and values (layers, b, heads, t, head width)."""
        given = {"embeds": embeds, "past_k": past[0], "past_v": past[1]}
        outputs: list[FloatArray] = self._decoder.run(None, given, self._running)
        return outputs

    def _prefix(self, text: str) -> tuple[FloatArray, FloatArray]:
        """Keys and values of what stands before the image, (layers, 1, heads, p, head width) each."""
        if text in self._prefixes:
            self._prefixes.move_to_end(text)
            return self._prefixes[text]
        numbers = self._numbers
        empty = np.zeros((numbers["layers"], 1, numbers["kv_heads"], 0, numbers["head_width"]), np.float32)
        ids = [numbers["start_id"], *self._token_ids(text)]
        _, _, keys, values = self._decode(self._words[ids][None], (empty, empty))
        self._prefixes[text] = keys, values
        if len(self._prefixes) > PREFIXES_KEPT:
            self._prefixes.popitem(last=False)
        return keys, values

    @cached_property
    def _tail(self) -> FloatArray:
        """Embeddings of what stands after the image."""
        return self._words[self._token_ids(prompts.NANO_ANSWER)]

    def _after_prompt(self, prefix: str, tokens: FloatArray) -> tuple[list[FloatArray], tuple[FloatArray, FloatArray]]:
        """Run prompt and images (b, 9, width); returns the decoder's outputs and all keys and values so far."""
        b = len(tokens)
        keys, values = (np.repeat(half, b, axis=1) for half in self._prefix(prefix))
        tail = np.broadcast_to(self._tail, (b, *self._tail.shape))
        outputs = self._decode(np.concatenate([tokens, tail], 1, dtype=np.float32), (keys, values))
        return outputs, (np.concatenate([keys, outputs[2]], 3), np.concatenate([values, outputs[3]], 3))

    def _look_at_all(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        with self._lock:
            visual = self._visual_tokens([request.image_id for request in requests])
            replies: list[LookReply | ModelError | None] = [None] * len(requests)
            by_interest: dict[str, list[int]] = {}
            for i, request in enumerate(requests):
                tokens = visual[request.image_id]
                if isinstance(tokens, ModelError):
                    replies[i] = tokens
                else:
                    by_interest.setdefault(prompts.nano_look_prompt(request.interest), []).append(i)
            for prompt, places in by_interest.items():
                for batch in _batches(places, BATCH):
                    arrays = [visual[requests[i].image_id] for i in batch]
                    for i, reply in zip(batch, self._describe(prompt, arrays), strict=True):
                        replies[i] = reply
            return [reply for reply in replies if reply is not None]

    def _describe(self, prompt: str, visual: Sequence[Any]) -> list[LookReply]:
        """Greedy descriptions of at most BATCH images; confidence: the product of the chosen tokens' probabilities."""
        tokens = np.zeros((BATCH, *visual[0].shape), np.float32)
        tokens[: len(visual)] = np.stack(visual)
        outputs, past = self._after_prompt(prompt, tokens)
        embeddings = outputs[1]
        end = self._numbers["end_id"]
        written: list[list[int]] = [[] for _ in range(BATCH)]
        confidence = np.ones(BATCH)
        going = np.arange(BATCH) < len(visual)
        for step in range(MAX_DESCRIPTION_TOKENS):
            logits = outputs[0] @ self._words.T
            chosen = logits.argmax(1)
            top = logits.max(1)
            probability = 1 / np.exp(logits - top[:, None]).sum(1)
            confidence[going] *= probability[going]
            going = going & (chosen != end)
            for row in np.flatnonzero(going):
                written[row].append(int(chosen[row]))
            if not going.any() or step + 1 == MAX_DESCRIPTION_TOKENS:
                break
            outputs = self._decode(self._words[chosen][:, None], past)
            past = np.concatenate([past[0], outputs[2]], 3), np.concatenate([past[1], outputs[3]], 3)
        return [
            LookReply(
                description=prompts.nano_description(self._tokenizer.decode(written[row])),
                confidence=float(confidence[row]),
                embedding=embeddings[row].astype(np.float16),
            )
            for row in range(len(visual))
        ]

    def _judge_all(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        with self._lock:
            visual = self._visual_tokens([request.candidate_id for request in requests])
            (yes,), (no,) = self._token_ids(prompts.NANO_YES), self._token_ids(prompts.NANO_NO)
            both = self._words[[yes, no]]
            replies: list[JudgeReply | ModelError] = []
            for request in requests:
                tokens = visual[request.candidate_id]
                if isinstance(tokens, ModelError):
                    replies.append(tokens)
                    continue
                # One by one: nothing is decoded, so a batch gains little; a fixed shape keeps every answer the same.
                prompt = prompts.nano_judge_prompt(request.interest, request.cluster_name)
                outputs, _ = self._after_prompt(prompt, tokens[None].astype(np.float32))
                for_yes, for_no = (both @ outputs[0][0]).tolist()
                replies.append(JudgeReply(1 / (1 + float(np.exp(np.clip(for_no - for_yes, -50, 50))))))
            return replies

    def _choose_all(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        with self._lock:
            visual = self._visual_tokens([request.candidate_id for request in requests])
            replies: list[ChooseReply | ModelError | None] = [None] * len(requests)
            by_interest: dict[str, list[int]] = {}
            for i, request in enumerate(requests):
                tokens = visual[request.candidate_id]
                if isinstance(tokens, ModelError):
                    replies[i] = tokens
                else:
                    by_interest.setdefault(prompts.nano_look_prompt(request.interest), []).append(i)
            for prompt, places in by_interest.items():
                for batch in _batches(places, CHOICES_KEPT):
                    images = [requests[i].candidate_id for i in batch]
                    names = [[self._written(option.name) for option in requests[i].options] for i in batch]
                    weighed = self._weigh(
                        prompt, {image: visual[image] for image in images}, zip(images, names, strict=True)
                    )
                    for i, image, of_options in zip(batch, images, names, strict=True):
                        replies[i] = ChooseReply(prompts.shares_of_names(of_options, weighed[image].names))
            return [reply for reply in replies if reply is not None]

    def _written(self, name: str) -> _Name:
        """The tokens that nano writes where it describes a picture by this name, the one that ends it included, as far
        as a description goes."""
        ids = [*self._token_ids(f" {prompts.nano_name(name)}"), self._numbers["end_id"]]
        return tuple(ids[:MAX_DESCRIPTION_TOKENS])

    def _weigh(
        self, prompt: str, visual: Mapping[str, Any], asked: Iterable[tuple[str, Sequence[_Name]]]
    ) -> dict[str, _Weighed]:
        """Image id -> what is known of it, with the probability that nano describes it by each name asked of it."""
        found = {image: self._weighed[prompt, image] for image in visual if (prompt, image) in self._weighed}
        for batch in _batches([image for image in visual if image not in found], NAMES_BATCH):
            # Image by image, as for judgements, but for the words: their table is read once for all.
            states = np.zeros((NAMES_BATCH, self._numbers["width"]), np.float32)
            pasts = []
            for row, image in enumerate(batch):
                outputs, past = self._after_prompt(prompt, visual[image][None].astype(np.float32))
                states[row] = outputs[0][0]
                pasts.append(past)
            first = _log_softmax(states @ self._words.T)
            found.update({image: _Weighed(first[row].copy(), pasts[row]) for row, image in enumerate(batch)})
        fresh: dict[tuple[str, _Name], None] = {}
        for image, names in asked:
            of = found[image]
            for name in names:
                if name not in of.names and of.first[name[0]] < LOG_NEGLIGIBLE:
                    of.names[name] = float(np.exp(of.first[name[0]]))
                elif name not in of.names:
                    fresh[image, name] = None
        # By length: a batch takes as many steps as its longest name.
        for pairs in _batches(sorted(fresh, key=lambda pair: len(pair[1])), NAMES_BATCH):
            logs = self._log_probabilities([(found[image], name) for image, name in pairs])
            for (image, name), log in zip(pairs, logs, strict=True):
                found[image].names[name] = float(np.exp(log))
        for image in visual:
            self._weighed[prompt, image] = found[image]
            self._weighed.move_to_end((prompt, image))
        while len(self._weighed) > CHOICES_KEPT:
            self._weighed.popitem(last=False)
        return found

    def _log_probabilities(self, pairs: Sequence[tuple[_Weighed, _Name]]) -> FloatArray:
        """Of at most NAMES_BATCH names of pictures under one interest, (names,): the sum over their tokens, each given
        those before it, up to where it becomes negligible."""
        rows = [*pairs, *[(pairs[0][0], pairs[0][1][:1])] * (NAMES_BATCH - len(pairs))]
        lengths = np.array([len(name) for _, name in rows])
        ids = np.full((NAMES_BATCH, lengths.max()), self._numbers["end_id"])
        for row, (_, name) in enumerate(rows):
            ids[row, : len(name)] = name
        total: FloatArray = np.array([of.first[name[0]] for of, name in rows])
        keys, values = (np.concatenate([of.past[half] for of, _ in rows], 1) for half in (0, 1))
        for step in range(1, lengths.max()):
            going = (step < lengths) & (total >= LOG_NEGLIGIBLE)
            if not going.any():
                break
            state, _, more_keys, more_values = self._decode(self._words[ids[:, step - 1]][:, None], (keys, values))
            log = _log_softmax(state @ self._words.T)[np.arange(NAMES_BATCH), ids[:, step]]
            total = np.where(going, total + log, total)
            keys, values = np.concatenate([keys, more_keys], 3), np.concatenate([values, more_values], 3)
        return total[: len(pairs)]


_Name: TypeAlias = tuple[int, ...]
"""A description as the tokens that nano writes, the one that ends it included."""


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A picture under an interest. first: (vocabulary,) log-probabilities of a description's first token. past: keys
    and values of interest, picture and `NANO_ANSWER`. names: the probability of each description weighed so far."""

    first: FloatArray
    past: tuple[FloatArray, FloatArray]
    names: dict[_Name, float] = field(default_factory=dict)


def _log_softmax(logits: FloatArray) -> FloatArray:
    below = logits - logits.max(1, keepdims=True)
    found: FloatArray = below - np.log(np.exp(below).sum(1, keepdims=True))
    return found


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
