"""Any image-text-to-text checkpoint on this computer, through transformers: `--model hf:PATH_OR_ID`.

In: requests and an `ImageSource`. Out: replies in order. Promises: decoding is greedy; a batch is padded on the left,
so what one image gets depends on its companions by rounding only; a batch that does not fit into memory is halved.

H(u) is the paper's: the last hidden state of the embedding token that follows the description, for which the token
that ends a turn stands. Descriptions are asked for in plain words and their confidence is the product of their tokens'
probabilities, so a checkpoint need not write JSON; a judgement is the probability of yes against no, a choice those of
the options' letters. A choice shows each option's first exemplar where every option has one and the checkpoint was
found to tell so many pictures apart (`MOST_EXEMPLARS` and the candidate at most), else words alone.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from manylens.collection.pictures import ImageSource
from manylens.errors import ImageUnreadable, ModelError, ModelReplyInvalid, ModelUnavailable
from manylens.models import prompts
from manylens.models.base import (
    MOST_EXEMPLARS,
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    ModelOptions,
    Request,
    Usage,
    shown_exemplars,
)
from manylens.models.huggingface.checkpoint import Checkpoint, find_checkpoint, single_line
from manylens.models.huggingface.decoding import Loaded, Part, is_out_of_memory, unit_rows
from manylens.models.prompts_writing import TEXT_TOKENS, WRITING, WRITING_PROMPTS, question, understand
from manylens.sync import in_thread
from manylens.writing import WritingTask

HF_PREFIX = "hf:"

BATCH = 16
"""Requests that are decoded at once, until that proves too many."""

EXEMPLARS_SHOWN = 2
_FEWEST_TRIED = 4
"""Pictures in one request that a checkpoint must tell apart before it is shown any exemplar."""
EXEMPLAR_PX = 256
JPEG_QUALITY = 95
CHAT_TOKENS = 24
_YES = ("yes", "Yes", "YES", " yes", " Yes")
_NO = ("no", "No", "NO", " no", " No")

_Request = TypeVar("_Request", LookRequest, JudgeRequest, ChooseRequest, CompleteRequest)
_Reply = TypeVar("_Reply", LookReply, JudgeReply, ChooseReply, CompleteReply)
Shown: TypeAlias = Callable[[str, int], Any]
"""(image id, longest side in px) -> the picture, or its name where a request is rendered."""


class HuggingFace:
    """The `Model` protocol over one checkpoint. name: what the user typed, `hf:PATH_OR_ID`.

    checkpoint: what `find_checkpoint` gives, where the caller has it. Raises UsageError for a folder or id that is not
    there, ModelUnavailable where the extra is missing or the checkpoint is no image-text-to-text model. Weights are
    loaded when first needed.
    """

    def __init__(
        self, name: str, images: ImageSource, options: ModelOptions, *, checkpoint: Checkpoint | None = None
    ) -> None:
        self.name = name
        self._images = images
        self._image_px = options.image_px
        source = name.removeprefix(HF_PREFIX)
        self._checkpoint = checkpoint or find_checkpoint(source, options.device, options.adapter)
        self._lock = threading.RLock()
        self._batch = BATCH

    @cached_property
    def identity(self) -> str:
        """`hf:` and a SHA-256 over the checkpoint's files and the adapter's."""
        return f"{HF_PREFIX}{self._checkpoint.digest()}"

    @cached_property
    def _loaded(self) -> Loaded:
        with self._lock:
            return Loaded(self._checkpoint)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            writes_text=True,
            sees_exemplars=self._compares_pictures,
            edge_scale=self._checkpoint.edge_scale,
            edge_offset=self._checkpoint.edge_offset,
            requests_per_call=2,  # a text may have to be mended
            text_tokens=TEXT_TOKENS,
        )

    @cached_property
    def _compares_pictures(self) -> bool:
        """Whether the checkpoint tells the pictures of one request apart: many know one picture at a time."""
        return self._tells_apart(_FEWEST_TRIED)

    @cached_property
    def _choice_exemplars(self) -> int:
        """How many exemplars' pictures a choice may show beside its candidate: as many as were tried."""
        if not self._compares_pictures:
            return 0
        return MOST_EXEMPLARS if self._tells_apart(MOST_EXEMPLARS + 1) else _FEWEST_TRIED - 1

    def facts(self) -> dict[str, Any]:
        """What only a computer that runs the checkpoint finds out; another one that words requests needs it."""
        compares, exemplars = self._compares_pictures, self._choice_exemplars
        return {"dtype": self._checkpoint.dtype, "compares_pictures": compares, "choice_exemplars": exemplars}

    def assume(self, facts: Mapping[str, Any]) -> None:
        """Take `facts` of elsewhere: this one words requests, and loads no weights."""
        self._checkpoint = replace(self._checkpoint, dtype=facts["dtype"])
        self._compares_pictures = facts["compares_pictures"]
        self._choice_exemplars = facts["choice_exemplars"]

    def _tells_apart(self, count: int) -> bool:
        others = ("red", "green", "blue")
        colors = [*(others[number % 3] for number in range(count - 1)), "yellow"]
        pictures = [Image.new("RGB", (EXEMPLAR_PX, EXEMPLAR_PX), color) for color in colors]
        try:
            with self._lock:
                found = self._loaded.decode([[*pictures, "What is the color of the last picture?"]], CHAT_TOKENS)
        except (ModelError, ValueError, TypeError, IndexError, RuntimeError):
            return False  # checkpoints that take one picture refuse several in many ways
        said = found.texts[0].lower()
        return "yellow" in said and not any(color in said for color in others)

    def render(self, request: Request) -> str:
        """What is asked, with image ids where the pictures go; the number format is a parameter of every answer."""

        def named(image_id: str, side_px: int) -> Any:
            return {"image": image_id, "px": side_px}

        match request:
            case LookRequest():
                asked = [self._look_parts(request, named), CHAT_TOKENS]
            case JudgeRequest():
                asked = [self._judge_parts(request, named)]
            case ChooseRequest():
                asked = [self._choose_parts(request, named)]
            case CompleteRequest():
                asked = [request.task.name, _writing_question(request)]
        version = WRITING_PROMPTS if isinstance(request, CompleteRequest) else prompts.SERVER_PROMPTS
        return json.dumps([version, asked, self._checkpoint.dtype], ensure_ascii=False)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await self._in_thread(requests, self._look_parts, self._look)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await self._in_thread(requests, self._judge_parts, self._judge)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await self._in_thread(requests, self._choose_parts, self._choose)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await self._in_thread(requests, self._complete_parts, self._complete)

    # What is asked

    def _look_parts(self, request: LookRequest, shown: Shown) -> list[Any]:
        return [shown(request.image_id, self._image_px), prompts.plain_look_question(request.interest)]

    def _judge_parts(self, request: JudgeRequest, shown: Shown) -> list[Any]:
        exemplars = request.exemplar_ids[:EXEMPLARS_SHOWN] if self._compares_pictures else ()
        side_px = min(EXEMPLAR_PX, self._image_px)
        opening = prompts.judge_opening(
            request.interest, request.cluster_name, request.cluster_definition, len(exemplars)
        )
        return [
            f"{prompts.JUDGE_SYSTEM}\n\n{opening}",
            *(shown(image_id, side_px) for image_id in exemplars),
            prompts.JUDGE_CANDIDATE,
            shown(request.candidate_id, side_px),
            prompts.JUDGE_WORD,
        ]

    def _choose_parts(self, request: ChooseRequest, shown: Shown) -> list[Any]:
        exemplars = shown_exemplars(request.options, self._choice_exemplars)
        side_px = min(EXEMPLAR_PX, self._image_px)
        options = [(option.name, option.definition) for option in request.options]
        opening, *pieces, none = prompts.choose_opening(request.interest, options, shown=bool(exemplars))
        parts: list[Any] = [f"{prompts.CHOOSE_SYSTEM}\n\n{opening}"]
        for number, piece in enumerate(pieces):
            parts += [piece, *(shown(image_id, side_px) for image_id in exemplars[number : number + 1])]
        return [
            *parts,
            none,
            prompts.JUDGE_CANDIDATE,
            shown(request.candidate_id, side_px),
            prompts.CHOOSE_WORD,
        ]

    def _complete_parts(self, request: CompleteRequest, shown: Shown) -> list[Any]:
        return [_writing_question(request)]

    def _picture(self, image_id: str, side_px: int) -> Picture:
        try:
            if side_px <= EXEMPLAR_PX:
                picture = self._images.thumbnail(image_id)
                picture.thumbnail((side_px, side_px), Image.Resampling.BICUBIC)
                return picture
            with Image.open(io.BytesIO(self._images.jpeg(image_id, side_px, JPEG_QUALITY))) as decoded:
                return decoded.convert("RGB")
        except ImageUnreadable as error:
            raise ModelError(error.rule, error.hint) from error

    # What tuning needs: the words that it is asked in, and what it is made of

    @property
    def loaded(self) -> Loaded:
        """Model and processor, to train on: not for several threads at once."""
        return self._loaded

    def message(self, request: LookRequest | JudgeRequest, shown: Shown | None = None) -> list[Part]:
        """What the checkpoint is shown. shown: what stands for a picture, by default itself: then raises ModelError
        where one cannot be read."""
        if isinstance(request, LookRequest):
            return self._look_parts(request, shown or self._picture)
        return self._judge_parts(request, shown or self._picture)

    @property
    def yes_no(self) -> tuple[list[int], list[int]]:
        """Tokens that say yes, and that say no, as the first of an answer."""
        return self._yes_no

    # Asking

    async def _in_thread(
        self,
        requests: Sequence[_Request],
        parts_of: Callable[[_Request, Shown], list[Part]],
        ask: Callable[[Sequence[_Request], Sequence[list[Part]]], list[_Reply | ModelError]],
    ) -> list[_Reply | ModelError]:
        stopped = threading.Event()
        return await in_thread(lambda: self._answer(requests, parts_of, ask, stopped), stopped.set)

    def _answer(
        self,
        requests: Sequence[_Request],
        parts_of: Callable[[_Request, Shown], list[Part]],
        ask: Callable[[Sequence[_Request], Sequence[list[Part]]], list[_Reply | ModelError]],
        stopped: threading.Event,
    ) -> list[_Reply | ModelError]:
        """Replies in order, batch by batch. A batch that does not fit into memory is halved, and so are all later ones;
        one that the checkpoint's processor refuses is asked image by image."""
        replies: list[_Reply | ModelError] = []
        with self._lock:
            alone = 0  # requests left of a refused batch
            while len(replies) < len(requests) and not stopped.is_set():
                size = 1 if alone else self._batch
                places: list[int] = []
                put: list[_Request] = []
                asked: list[list[Part]] = []
                answers: list[_Reply | ModelError | None] = []
                for request in requests[len(replies) : len(replies) + size]:
                    try:
                        asked.append(parts_of(request, self._picture))
                        put.append(request)
                        places.append(len(answers))
                        answers.append(None)
                    except ModelError as error:
                        answers.append(error)
                try:
                    for place, reply in zip(places, ask(put, asked) if asked else (), strict=True):
                        answers[place] = reply
                except ValueError as error:
                    if len(asked) > 1:
                        alone = len(answers)
                        continue
                    answers[places[0]] = ModelError(f"{self.name} cannot take this request: {single_line(error)}")
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._loaded.free_memory()
                    if len(asked) == 1:
                        raise ModelUnavailable(
                            f"a request to {self.name} must fit into the memory of {self._checkpoint.device}",
                            "send smaller pictures with --image-px, use a smaller checkpoint, or --device cpu",
                        ) from None
                    self._batch = max(1, len(asked) // 2)
                    continue
                alone = max(0, alone - len(answers))
                replies += [answer for answer in answers if answer is not None]
        return replies

    def _look(self, _: Sequence[LookRequest], asked: Sequence[list[Part]]) -> list[LookReply | ModelError]:
        found = self._loaded.decode(asked, CHAT_TOKENS, embedding_token=True)
        vectors = unit_rows(found.states)
        replies: list[LookReply | ModelError] = []
        for row, text in enumerate(found.texts):
            try:
                said = prompts.parse_plain_look(text).description
            except prompts.ReplyProblem as problem:
                replies.append(ModelReplyInvalid(f"a description holds a word, got {text[:40]!r}", str(problem)))
                continue
            usage = Usage(found.tokens_in[row], found.tokens_out[row])
            replies.append(LookReply(said, found.confidence[row], vectors[row].astype(np.float16), usage))
        return replies

    def _judge(self, _: Sequence[JudgeRequest], asked: Sequence[list[Part]]) -> list[JudgeReply | ModelError]:
        yes, no = self._yes_no
        found = self._loaded.decode(asked, 1)
        for_yes, for_no = (np.logaddexp.reduce(found.first_logits[:, ids], axis=1) for ids in (yes, no))
        probability = 1 / (1 + np.exp(np.clip(for_no - for_yes, -50, 50)))
        return [JudgeReply(float(p), usage=Usage(n, 1)) for p, n in zip(probability, found.tokens_in, strict=True)]

    @cached_property
    def _yes_no(self) -> tuple[list[int], list[int]]:
        """Tokens that say yes, and that say no, in the spellings that the tokenizer has whole."""
        yes, no = ({token for word in words for token in self._loaded.whole_token(word)} for words in (_YES, _NO))
        if not (yes - no and no - yes):
            raise ModelUnavailable(
                f"a judgement reads yes or no from one token, {self.name} has no such tokens", "use another checkpoint"
            )
        return sorted(yes - no), sorted(no - yes)

    def _choose(self, put: Sequence[ChooseRequest], asked: Sequence[list[Part]]) -> list[ChooseReply | ModelError]:
        found = self._loaded.decode(asked, 1)
        # (messages, letters): the letters of a checkpoint are the same for all, those of a request its first ones.
        logits = np.stack([np.logaddexp.reduce(found.first_logits[:, ids], axis=1) for ids in self._letters], axis=1)
        replies: list[ChooseReply | ModelError] = []
        for row, request in enumerate(put):
            count = len(request.options)
            of_each = np.append(logits[row, :count], logits[row, -1]).astype(np.float64)
            shares = prompts.normalised(np.exp(of_each - of_each.max()).tolist())
            replies.append(ChooseReply(shares, usage=Usage(found.tokens_in[row], 1)))
        return replies

    @cached_property
    def _letters(self) -> list[list[int]]:
        """Tokens of each letter of a choice, and last of the one for none, in the spellings that are whole tokens."""
        letters = [*prompts.LABELS, prompts.NONE_LABEL]
        found = [sorted({t for w in (x, f" {x}") for t in self._loaded.whole_token(w)}) for x in letters]
        if not all(found):
            raise ModelUnavailable(
                f"a choice reads a letter from one token, {self.name} lacks such tokens", "use another checkpoint"
            )
        return found

    def _complete(
        self, put: Sequence[CompleteRequest], asked: Sequence[list[Part]]
    ) -> list[CompleteReply | ModelError]:
        """Task by task: the room that a reply has must not depend on its companions."""
        replies: dict[int, CompleteReply | ModelError] = {}
        for name in dict.fromkeys(request.task.name for request in put):
            rows = [row for row, request in enumerate(put) if request.task.name == name]
            tasks, messages = [put[row].task for row in rows], [asked[row] for row in rows]
            replies.update(zip(rows, self._write(tasks, messages), strict=True))
        return [replies[row] for row in range(len(put))]

    def _write(self, tasks: Sequence[WritingTask], asked: Sequence[list[Part]]) -> list[CompleteReply | ModelError]:
        """Replies to tasks of one kind, with one attempt to mend those that cannot be used."""
        prompt = WRITING[tasks[0].name]
        replies: dict[int, CompleteReply | ModelError] = {}
        messages = dict(enumerate(asked))
        tokens_in, tokens_out = [0] * len(asked), [0] * len(asked)
        for _ in ("written", "mended"):
            rows = list(messages)
            found = self._loaded.decode(list(messages.values()), prompt.reply_tokens)
            for row, text, spent_in, spent_out in zip(
                rows, found.texts, found.tokens_in, found.tokens_out, strict=True
            ):
                tokens_in[row] += spent_in
                tokens_out[row] += spent_out
                try:
                    written = understand(text, tasks[row])
                    replies[row] = CompleteReply(written, Usage(tokens_in[row], tokens_out[row]))
                    del messages[row]
                except prompts.ReplyProblem as problem:
                    replies[row] = ModelReplyInvalid(f"texts come as JSON: {problem}", "use a larger checkpoint")
                    said = f"You replied: {prompts.quoted(prompts.said_before(text))}"
                    messages[row] = [*asked[row], said, prompts.repair_question(str(problem), prompt.shape)]
            if not messages:
                break
        return [replies[row] for row in range(len(asked))]


def _writing_question(request: CompleteRequest) -> str:
    return f"{WRITING[request.task.name].system}\n\n{question(request.task)}"
