"""nano: the embedded multi-modal model, run by onnxruntime on the CPU. No key, no GPU, no download.

In: requests and an `ImageSource`. Out: replies in order. Promise: deterministic, and what one image gets does not
depend on which others are asked with it: batches have a fixed shape, and all is computed in float32.

EfficientNet-Lite2 reads a picture once (kept per image, so a second interest reads no pixels). A head reads what it saw
through the interest, whose embedding is by the text embedder, and gives H(u) in that embedder's space: near the words
that answer. A description is the nearest of the words that may answer the interest (`bank`), "does not apply" or
"cannot tell"; none is ever made up. Judgements and choices weigh names in the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from manylens.collection.pictures import ImageSource
from manylens.errors import ImageUnreadable, ModelError, ModelReplyInvalid, ModelUnavailable
from manylens.files import check_resources
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
    verdict_sample,
)
from manylens.models.nano import language
from manylens.models.nano.bank import BANK_FILES, SAME_KIND, SURE_TASK, Bank, Candidates, FloatArray
from manylens.models.nano.interests import taught, worth_trying
from manylens.models.nano.verdict import Signals, agreement, decide, foreseen, rewordings
from manylens.models.text_embedder import TextEmbedder, falls_apart
from manylens.store.feature_shards import FeatureShards
from manylens.sync import in_thread
from manylens.types import Verdict

T = TypeVar("T")

BATCH = 32  # pictures read through an interest at once; a fixed shape, so a partial batch is padded
PIXELS_BATCH = 8  # pictures seen at once: more are no faster and take memory
LONGEST_BATCH_S = 120.0  # of files that are not our own; a batch takes half a second
SEEN_KEPT = 512  # what was seen of a picture, 28 kB each, beside those in the run folder
READINGS_KEPT = 64  # interests
NAMES_KEPT = 4096  # embeddings of names asked about
POSITION_WIDTH = 256
MODEL_FILES = ("nano.json", "eyes.onnx", "head.onnx", *BANK_FILES)
SAME_WORD = 0.8  # cosine from which a known word means the same as a name that is asked about
OWN_DOUBT = (0.6, 0.6)
"""`Capabilities.own_doubt`, on held-out pictures of the sets it was taught, under plain and odd interests
(`bench.certainty`)."""

_SUBJECT = "what the picture shows"
_LEAST_NEAR, _MOST_WORDINGS = (
    0.3,
    6,
)  # by cosine: below, an interest has nothing in common with the words that were said


class Nano:
    """The `Model` protocol over the files in `manylens/models/nano/`.

    open_features: where what was seen is kept between interests and runs, (name, identity) -> FeatureShards; without
    it it lives in memory only. folder: of other weights, with the `name` by which they are known.
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
        self._threads = threads or _threads()
        self._lock = threading.Lock()
        self._running = onnxruntime.RunOptions()  # of all sessions, so that a Ctrl-C ends what they are doing
        self._is_own = folder is None
        self._texts = TextEmbedder()
        self._recent: OrderedDict[str, NDArray[np.float16]] = OrderedDict()
        self._readings: OrderedDict[str, _Reading] = OrderedDict()
        self._names: OrderedDict[str, FloatArray] = OrderedDict()
        missing = [file for file in MODEL_FILES if not (self._folder / file).exists()]
        if missing:
            raise ModelError(
                f"nano needs its files in {self._folder.name}/, missing: {', '.join(missing)}",
                "install manylens from its wheel, or from a full checkout",
            )
        self._numbers: dict[str, Any] = json.loads((self._folder / "nano.json").read_text("utf-8"))

    @cached_property
    def identity(self) -> str:
        """`nano:` and the SHA-256 over all model files and the text embedder's name."""
        digest = hashlib.sha256(self._texts.name.encode())
        for file in MODEL_FILES:
            digest.update((self._folder / file).read_bytes())
        return f"nano:{digest.hexdigest()[:32]}"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            writes_text=False,
            sees_exemplars=False,
            own_doubt=OWN_DOUBT,
            edge_scale=float(self._numbers["edge_scale"]),
            edge_offset=float(self._numbers["edge_offset"]),
        )

    def render(self, request: Request) -> str:
        parts: list[Any] = [prompts.NANO_PROMPTS]
        match request:
            case LookRequest():
                parts += ["look", prompts.plain(request.interest), {"image": request.image_id}]
            case JudgeRequest():
                parts += ["judge", prompts.plain(request.interest), {"image": request.candidate_id}]
                parts.append(prompts.nano_name(request.cluster_name))
            case ChooseRequest():
                parts += ["choose", prompts.plain(request.interest), {"image": request.candidate_id}]
                parts.append([prompts.nano_name(option.name) for option in request.options])
            case CompleteRequest():
                parts += ["complete", dataclasses.asdict(request.task)]
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

    def verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict:
        """How well nano understands an interest on these pictures, from what it says of at most `VERDICT_PICTURES` of
        them, spread over the ids' order; no label is needed. Pictures that cannot be read do not count."""
        with self._lock:
            return self._verdict(prompts.plain(interest), verdict_sample(image_ids))

    def appearance(self, image_ids: Sequence[str]) -> dict[str, FloatArray]:
        """What each picture looks like whatever the interest, (1280,) of unit length, to group by look; pictures that
        cannot be read are left out."""
        width = int(self._numbers["look_width"])
        places = int(self._numbers["positions"]) * POSITION_WIDTH
        found = {}
        for batch in _batches(image_ids, SEEN_KEPT):
            with self._lock:
                seen = self._see(batch)
            for image_id, features in seen.items():
                if not isinstance(features, ModelError):
                    row = features[places : places + width].astype(np.float32)
                    found[image_id] = row / max(float(np.linalg.norm(row)), 1e-12)
        return found

    def doubt(self, interest: str) -> str:
        """Why nano may not read the words of an interest, as the end of a sentence about it; empty where it does."""
        text = prompts.plain(interest)
        with self._lock:
            near = float(self._bank.nearness(self._embedding(text)).max())
        return language.problem(text, near, self._english, falls_apart)

    def interests(self, image_ids: Sequence[str]) -> Sequence[str]:
        """What nano was taught that is worth trying on these pictures, by what kinds of picture they are and what they
        show; pictures that cannot be read do not count."""
        with self._lock:
            seen = [row for row in self._see(image_ids).values() if not isinstance(row, ModelError)]
            if not seen:
                return ()
            h, pooled = self._read(self._reading(_SUBJECT).vector, seen)
            shares, _ = self._place(pooled)
            reading = self._reading(_SUBJECT)
            best = self._log_odds(reading, h, pooled).argmax(1)
            shown = Counter(reading.may.words[k] for k in best if k < len(reading.may.words) - 2)
            domains = dict(zip(self._bank.domains, shares.mean(0).tolist(), strict=True))
        return worth_trying(domains, shown, self._bank.kinds)

    def wordings(self, interest: str) -> Sequence[str]:
        """Of the interests that nano was taught those nearest to this one, by the meaning of the words."""
        known = taught(tuple(self._bank.kinds))
        with self._lock:
            near = self._embeddings(known) @ self._embedding(prompts.plain(interest))
        order = sorted(range(len(known)), key=lambda k: (-round(float(near[k]), 6), known[k]))
        own = " ".join(interest.split()).casefold()
        return [known[k] for k in order if near[k] >= _LEAST_NEAR and known[k].casefold() != own][:_MOST_WORDINGS]

    @cached_property
    def _english(self) -> frozenset[str]:
        return frozenset(word.casefold() for text in self._bank.words for word in text.split())

    # The model's parts, loaded when first used

    @cached_property
    def _eyes(self) -> onnxruntime.InferenceSession:
        return self._session("eyes.onnx")

    @cached_property
    def _head(self) -> onnxruntime.InferenceSession:
        return self._session("head.onnx")

    @cached_property
    def _bank(self) -> Bank:
        return Bank(self._folder)

    @cached_property
    def _features(self) -> FeatureShards | None:
        return None if self._open_features is None else self._open_features(self.name, self.identity)

    def _session(self, file: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        # Spinning threads starve each other where cores are shared: looks 10 -> 15 a second on a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # Read here: where the process may open no more files, onnxruntime ends with an error of its own.
            content = (self._folder / file).read_bytes()
        except OSError as error:
            check_resources(error)
            raise
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def _run(self, session: onnxruntime.InferenceSession, given: dict[str, Any]) -> Any:
        """One batch through a session. Somebody else's file may loop for ever: raises ModelUnavailable then."""
        if self._is_own:
            return session.run(None, given, self._running)
        running, late = self._running, threading.Event()

        def stop() -> None:
            late.set()
            running.terminate = True

        timer = threading.Timer(LONGEST_BATCH_S, stop)
        timer.daemon = True
        timer.start()
        try:
            return session.run(None, given, running)
        except Exception:
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        raise ModelUnavailable(
            f"nano computes a batch in {LONGEST_BATCH_S:g} s, with the files in {self._folder.name}/ it does not",
            "do not use them, or allow it more processors",
        )

    # Images

    def _see(self, image_ids: Sequence[str]) -> dict[str, NDArray[np.float16] | ModelError]:
        """Positions and pooled features of each image in one row: from memory, the run folder, or its pixels."""
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
        side = int(self._numbers["image_px"])
        fresh: dict[str, NDArray[np.float16]] = {}
        for batch in _batches(unseen, PIXELS_BATCH):
            pixels = np.zeros((PIXELS_BATCH, side, side, 3), np.uint8)
            readable: list[str] = []
            for image_id in batch:
                try:
                    picture = self._images.thumbnail(image_id).resize((side, side), Image.Resampling.BICUBIC)
                except ImageUnreadable as error:
                    found[image_id] = ModelError(error.rule, error.hint)
                    continue
                pixels[len(readable)] = np.asarray(picture, np.uint8)
                readable.append(image_id)
            if readable:
                positions, pooled = self._run(self._eyes, {"pixels": pixels})
                rows = np.concatenate([positions.reshape(PIXELS_BATCH, -1), pooled], 1).astype(np.float16)
                fresh.update(zip(readable, rows, strict=False))
        if fresh and self._features is not None:
            self._features.append(list(fresh), np.stack(list(fresh.values())))
        found.update(fresh)
        self._recent.update(fresh)
        while len(self._recent) > SEEN_KEPT:
            self._recent.popitem(last=False)
        return found

    # Reading what was seen

    def _reading(self, interest: str) -> _Reading:
        if interest not in self._readings:
            may = self._bank.candidates(interest, self._embedding(interest), self._embeddings)
            self._readings[interest] = _Reading(may.vector, may)
            if len(self._readings) > READINGS_KEPT:
                self._readings.popitem(last=False)
        self._readings.move_to_end(interest)
        return self._readings[interest]

    def _embedding(self, text: str) -> FloatArray:
        row: FloatArray = self._embeddings([text])[0]
        return row

    def _embeddings(self, texts: Sequence[str]) -> FloatArray:
        fresh = [text for text in dict.fromkeys(texts) if text not in self._names]
        if fresh:
            self._names.update(zip(fresh, self._texts.embed(fresh), strict=True))
        found: FloatArray = np.stack([self._names[text] for text in texts])
        while len(self._names) > NAMES_KEPT:
            self._names.popitem(last=False)
        return found

    def _read(self, vector: FloatArray, seen: Sequence[NDArray[np.float16]]) -> tuple[FloatArray, FloatArray]:
        """H (n, 384) of pictures through an interest, and their pooled features (n, 1664)."""
        positions = int(self._numbers["positions"])
        hs, pools = [], []
        for batch in _batches(seen, BATCH):
            rows = np.zeros((BATCH, len(seen[0])), np.float32)
            rows[: len(batch)] = np.stack(batch)
            places = rows[:, : positions * POSITION_WIDTH].reshape(BATCH, positions, POSITION_WIDTH)
            pooled = rows[:, positions * POSITION_WIDTH :]
            given = {"positions": places, "pooled": pooled, "interest": vector[None]}
            (h,) = self._run(self._head, given)
            hs.append(h[: len(batch)])
            pools.append(pooled[: len(batch)])
        return np.concatenate(hs), np.concatenate(pools)

    def _log_odds(self, reading: _Reading, h: FloatArray, pooled: FloatArray) -> FloatArray:
        """(n, words) logits of the words that may answer."""
        domains, _ = self._place(pooled)
        scale, trust = float(self._numbers["scale"]), float(self._numbers["prior"])
        found: FloatArray = scale * _by_row(h, reading.may.vectors) + trust * reading.may.prior(domains)
        return found

    def _place(self, pooled: FloatArray) -> tuple[FloatArray, FloatArray]:
        parts = [self._bank.place(row[None]) for row in pooled]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _grouped(self, asked: Sequence[tuple[str, str]]) -> tuple[dict[str, list[int]], dict[str, Any]]:
        """(interest, image) -> places of each interest whose image can be read, and what was seen of each image."""
        seen = self._see([image for _, image in asked])
        by_interest: dict[str, list[int]] = {}
        for place, (interest, image) in enumerate(asked):
            if not isinstance(seen[image], ModelError):
                by_interest.setdefault(prompts.plain(interest), []).append(place)
        return by_interest, seen

    def _look_at_all(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        with self._lock:
            by_interest, seen = self._grouped([(request.interest, request.image_id) for request in requests])
            replies: list[Any] = [seen[request.image_id] for request in requests]
            for interest, places in by_interest.items():
                reading = self._reading(interest)
                h, pooled = self._read(reading.vector, [seen[requests[k].image_id] for k in places])
                shares = _softmax(self._log_odds(reading, h, pooled) / self._numbers["temperature"])
                for row, k in enumerate(places):
                    best = int(shares[row].argmax())
                    replies[k] = LookReply(reading.may.words[best], float(shares[row, best]), h[row].astype(np.float16))
            return replies

    def _judge_all(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        with self._lock:
            by_interest, seen = self._grouped([(request.interest, request.candidate_id) for request in requests])
            replies: list[Any] = [seen[request.candidate_id] for request in requests]
            slope, offset = self._numbers["judge"]
            for interest, places in by_interest.items():
                names = [[prompts.nano_name(requests[k].cluster_name)] for k in places]
                shares = self._weigh(interest, [seen[requests[k].candidate_id] for k in places], names)
                for share, k in zip(shares, places, strict=True):
                    log_odds = np.log(max(share[0], 1e-9)) - np.log(max(1 - share[0], 1e-9))
                    replies[k] = JudgeReply(float(1 / (1 + np.exp(-(slope * log_odds + offset)))))
            return replies

    def _choose_all(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        with self._lock:
            by_interest, seen = self._grouped([(request.interest, request.candidate_id) for request in requests])
            replies: list[Any] = [seen[request.candidate_id] for request in requests]
            for interest, places in by_interest.items():
                names = [[prompts.nano_name(option.name) for option in requests[k].options] for k in places]
                shares = self._weigh(interest, [seen[requests[k].candidate_id] for k in places], names)
                for share, k in zip(shares, places, strict=True):
                    replies[k] = ChooseReply(tuple(share))
            return replies

    def _weigh(self, interest: str, seen: Sequence[Any], names: Sequence[Sequence[str]]) -> list[list[float]]:
        """The share of each name, and of none of them, for each picture. What competes with the names are the refusals
        and the words that may answer the interest and mean none of the names."""
        reading = self._reading(interest)
        h, pooled = self._read(reading.vector, seen)
        logits = self._log_odds(reading, h, pooled)
        scale, heat, doubt = (float(self._numbers[key]) for key in ("scale", "temperature", "none"))
        known = {prompts.nano_name(w): v for w, v in zip(reading.may.words, reading.may.vectors, strict=True)}
        found = []
        for row, of in enumerate(names):
            # What an option stands for is what was looked for, and not its own words.
            vectors = np.stack([known[n] if n in known else self._embedding(n) for n in of])
            same = _by_row(vectors, reading.may.vectors)
            own = scale * _by_row(h[row : row + 1], vectors)[0]
            # A word that the interest is known to ask for keeps its own standing.
            asked = np.where(same > 0.999, logits[row], -np.inf).max(1)
            own = np.where(np.isfinite(asked), asked, own)
            others = logits[row].copy()
            others[:-2] += np.log(doubt)
            others[:-2][(same[:, :-2] > SAME_WORD).any(0)] = -np.inf
            copies = np.array([of.count(name) for name in of])
            total = _softmax(np.concatenate([own - np.log(copies) * heat, others])[None] / heat)[0]
            found.append([*total[: len(of)].tolist(), float(max(0.0, 1 - total[: len(of)].sum()))])
        return found

    def _verdict(self, interest: str, image_ids: Sequence[str]) -> Verdict:
        seen = [features for features in self._see(image_ids).values() if not isinstance(features, ModelError)]
        reading = self._reading(interest)
        if not seen:
            return decide(Signals.nothing(reading.may.closeness))
        answers = []
        for wording in [interest, *rewordings(interest)]:
            other = reading if wording == interest else _Reading(self._embedding(wording), reading.may)
            h, pooled = self._read(other.vector, seen)
            shares = _softmax(self._log_odds(other, h, pooled) / self._numbers["temperature"])
            answers.append((shares, h))
        shares, h = answers[0]
        domains, far = self._place(pooled)
        task, fit = reading.may.likeliest(domains)
        measured, right = reading.may.measured[task].tolist()
        chosen = shares.argmax(1)
        refused = chosen >= shares.shape[1] - 2
        return decide(
            Signals(
                closeness=reading.may.closeness,
                confidence=float(shares.max(1).mean()),
                refused=float(refused.mean()),
                agreement=float(np.mean([agreement(chosen, other.argmax(1)) for other, _ in answers[1:]])),
                far=float(np.median(far)),
                spread=float(1 - np.linalg.norm(h.mean(0))),
                measured=measured,
                right=right,
                is_known=reading.may.is_known,
                told=foreseen(shares),
                read_as="" if reading.may.closeness >= SURE_TASK else reading.may.name.rpartition(".")[2],
                elsewhere=reading.may.kinds[task] if fit < SAME_KIND / 2 else "",
            )
        )


def _threads() -> int:
    """As many as OMP_NUM_THREADS allows, with which a scheduler shares out a machine's cores, else at most eight."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else min(os.cpu_count() or 1, 8)


class _Reading:
    """An interest: its embedding and what may answer it."""

    __slots__ = ("may", "vector")

    def __init__(self, vector: FloatArray, may: Candidates) -> None:
        self.vector, self.may = vector, may


def _by_row(left: FloatArray, right: FloatArray) -> FloatArray:
    """left @ right.T, each row computed alone: a product's last digits may depend on how many rows it has."""
    return np.stack([right @ row for row in left])


def _softmax(logits: NDArray[Any]) -> FloatArray:
    shares = np.exp(logits - logits.max(1, keepdims=True)).astype(np.float32)
    found: FloatArray = shares / shares.sum(1, keepdims=True)
    return found


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
