"""Any multi-modal model behind an OpenAI-compatible server: OpenAI, vLLM, Ollama, LM Studio, llama.cpp, OpenRouter, ...

In: requests and an `ImageSource`. Out: replies in order, with what they cost in tokens. Promises: what the server can
do is probed once and recorded, so a resumed run speaks the same dialect and finds its answers again; a part of an
answer that was received is not asked again when the rest has to be (`_kept`); an unusable reply gets one repair
attempt.

One look is a chat request (constant instruction, picture, interest: several interests of one picture share its prefix).
Its description is embedded by the server, where it can, as an answer of its own; else here, with the look. One
judgement puts what all candidates of a cluster share first. A choice does the same: each option with its first
exemplar, where every option has one and the server was found to take so many pictures (`MOST_EXEMPLARS` and the
candidate at most), else words alone. Its answer is one letter, read by its log-probabilities where there are any.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np

from manylens.collection.decode import THUMBNAIL_PX
from manylens.collection.pictures import ImageSource
from manylens.errors import ImageUnreadable, ModelError, ModelReplyInvalid, RequestTooLong
from manylens.files import write_atomically
from manylens.models import prompts
from manylens.models.base import (
    MOST_EXEMPLARS,
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    EmbedReply,
    EmbedRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    ModelOptions,
    Request,
    Usage,
    Vector,
    shown_exemplars,
)
from manylens.models.openai_compatible.dialect import (
    ANSWER_TOKENS,
    EXEMPLARS_SHOWN,
    embed_by_words,
    embedding_body,
    embedding_bound,
    look_messages,
    picture_part,
    text_part,
)
from manylens.models.openai_compatible.endpoint import Json
from manylens.models.openai_compatible.records import endpoints_of, find_dialect, identity_of, read_object
from manylens.models.openai_compatible.replies import (
    answer_logprobs,
    counted_usage,
    embedding_rows,
)
from manylens.models.openai_compatible.talk import Talk, send
from manylens.models.prompts_writing import TEXT_TOKENS, WRITING, WRITING_PROMPTS, question, room, understand
from manylens.models.text_embedder import TextEmbedder

JPEG_QUALITY = 90
EXEMPLAR_PX = THUMBNAIL_PX
"""Exemplars and candidates are compared at this size: what tells clusters apart shows in thumbnails."""

REQUESTS_PER_CALL = 3
"""A judgement or a choice: at worst a word, a question, its repair."""

HALFWAY_NAME = "halfway.json"
"""In a run folder: replies that could not be used and have to be mended, for the next run."""

PICTURES_KEPT = 64
DECODING_LOCKS = 8
VECTORS_KEPT = 4096

_Request = TypeVar("_Request", LookRequest, EmbedRequest, JudgeRequest, ChooseRequest, CompleteRequest)
_Reply = TypeVar("_Reply")
_Found = TypeVar("_Found", prompts.Judged, prompts.Chosen)
Tokens: TypeAlias = list[tuple[str, list[tuple[str, float]]]]
"""(token, its alternatives with log-probabilities), as `answer_logprobs` gives them."""

SMALL_PX = EXEMPLAR_PX // 2
"""Of exemplars and candidates where the larger ones are more than the model takes."""

WORDS_ALONE = 2
"""How a comparison is made to fit: 0 as it is, 1 with small pictures, 2 without exemplars."""

Shown = Callable[[str, int], Json]
"""(image id, longest side in px) -> a content part: the picture itself, or its name where a request is rendered."""


class OpenAICompatible:
    """The `Model` protocol over one model of one server. name: what the user typed. Use from one event loop at a time.

    Raises ModelUnavailable where the server cannot be used. recorded: a file that holds what was probed, read where it
    is there and written where not; without one every model is probed.
    """

    def __init__(
        self,
        name: str,
        model: str,
        images: ImageSource,
        options: ModelOptions,
        *,
        recorded: Path | None = None,
    ) -> None:
        self.name = name
        self._images = images
        self._options = options
        self._endpoint, self._embedding_endpoint = endpoints_of(model, options)
        self.dialect = find_dialect(model, options, recorded)
        self._pictures: OrderedDict[tuple[str, int], Json] = OrderedDict()
        self._guard = threading.Lock()
        self._decoding = [threading.Lock() for _ in range(DECODING_LOCKS)]
        self._halfway = None if recorded is None else recorded.with_name(HALFWAY_NAME)
        self._kept = read_object(self._halfway)
        self._vectors: OrderedDict[str, tuple[Vector, int]] = OrderedDict()  # with the tokens each took
        self._under_way: dict[str, asyncio.Event] = {}
        self._fits: dict[int, int] = {}  # exemplars shown -> how they have to be made to fit
        self.on_notice: Callable[[str], None] | None = None
        """Told once what a person should know of the server."""

    @property
    def identity(self) -> str:
        """Endpoint and model name; the embedding model's too where it is another."""
        return identity_of(self._endpoint, self._embedding_endpoint)

    @property
    def url(self) -> str:
        return self._endpoint.url

    @property
    def key_name(self) -> str:
        """The environment variable that the key is from, or "" where there is none."""
        return self._endpoint.key_name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            writes_text=self.dialect.words == "json",
            sees_exemplars=self.dialect.pictures > 1,
            edge_scale=self.dialect.edge_scale,
            edge_offset=self.dialect.edge_offset,
            batch_size=1,
            concurrency=self._options.concurrency,
            counts_requests=True,
            requests_per_call=REQUESTS_PER_CALL,
            reply_tokens=self.dialect.tokens(max(ANSWER_TOKENS[kind] for kind in ("look", "judge", "choose"))),
            text_tokens=self.dialect.tokens(TEXT_TOKENS),
        )

    def render(self, request: Request) -> str:
        """Exactly what is sent, with image ids where the pictures go."""

        def named(image_id: str, side_px: int) -> Json:
            return {"image": image_id, "px": side_px, "quality": JPEG_QUALITY}

        written = isinstance(request, CompleteRequest)
        parts: list[Any] = [WRITING_PROMPTS if written else prompts.SERVER_PROMPTS]
        match request:
            case LookRequest():
                parts += [self._look_body(request, named), self.dialect.embeddings, self.dialect.embedding_model]
            case EmbedRequest():
                parts += ["embed", self.dialect.embeddings, self.dialect.embedding_model]
                if self.dialect.embeddings == "messages":
                    parts += [request.interest, named(request.image_id, self._options.image_px)]
                else:  # images of one description have one request each: an answer belongs to an image
                    parts += [prompts.as_data(request.description), request.interest, request.image_id]
            case JudgeRequest():
                parts.append(self._judge_body(request, named, word=self._judges_in_a_word))
            case ChooseRequest():
                parts.append(self._choose_body(request, named, word=self._judges_in_a_word))
            case CompleteRequest():
                parts.append([request.task.name, self._complete_body(request)])
        return json.dumps(parts, ensure_ascii=False)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        return await _each(requests, self._look)

    async def embed(self, requests: Sequence[EmbedRequest]) -> list[EmbedReply | ModelError]:
        return await _each(requests, self._embed)

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return await _each(requests, self._judge)

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return await _each(requests, self._choose)

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return await _each(requests, self._complete)

    async def close(self) -> None:
        """Give the connections back, and write down what is left of answers that never became whole."""
        if self._halfway is not None and (self._kept or self._halfway.exists()):
            write_atomically(self._halfway, json.dumps(self._kept, ensure_ascii=False) + "\n")
        await self._endpoint.close()
        if self._embedding_endpoint is not None:
            await self._embedding_endpoint.close()

    # What is asked

    def _look_body(self, request: LookRequest, shown: Shown) -> Json:
        dialect = self.dialect
        messages = look_messages(dialect, shown(request.image_id, self._options.image_px), request.interest)
        if dialect.words == "json":
            schema = ("look", prompts.LOOK_SCHEMA)
            return dialect.chat(self._endpoint.model, messages, ANSWER_TOKENS["look"], schema=schema)
        return dialect.chat(self._endpoint.model, messages, ANSWER_TOKENS["look"], logprobs=True)

    def _judge_body(self, request: JudgeRequest, shown: Shown, *, word: bool, fit: int = 0) -> Json:
        exemplars = request.exemplar_ids[: self._exemplars_of(request)] if fit < WORDS_ALONE else ()
        side_px = self._side_px(fit)
        opening = prompts.judge_opening(
            request.interest, request.cluster_name, request.cluster_definition, len(exemplars)
        )
        shared = [text_part(opening), *(shown(image_id, side_px) for image_id in exemplars)]
        question = prompts.JUDGE_WORD if word else prompts.JUDGE_JSON
        schema = ("judge", prompts.JUDGE_SCHEMA)
        candidate = shown(request.candidate_id, side_px)
        return self._compared_body(prompts.JUDGE_SYSTEM, shared, candidate, question, schema, word=word)

    def _exemplars_of(self, request: JudgeRequest | ChooseRequest) -> int:
        """How many exemplars' pictures it shows, unless it has to be made to fit."""
        if isinstance(request, JudgeRequest):
            return len(request.exemplar_ids[:EXEMPLARS_SHOWN]) if self.dialect.pictures > 1 else 0
        return len(shown_exemplars(request.options, min(MOST_EXEMPLARS, self.dialect.pictures - 1)))

    def _side_px(self, fit: int) -> int:
        return min(SMALL_PX if fit else EXEMPLAR_PX, self._options.image_px)

    def _choose_body(self, request: ChooseRequest, shown: Shown, *, word: bool, fit: int = 0) -> Json:
        exemplars = shown_exemplars(request.options, self._exemplars_of(request)) if fit < WORDS_ALONE else ()
        side_px = self._side_px(fit)
        options = [(option.name, option.definition) for option in request.options]
        opening, *pieces, none = map(
            text_part, prompts.choose_opening(request.interest, options, shown=bool(exemplars))
        )
        shared = [opening]
        for number, piece in enumerate(pieces):
            shared += [piece, *(shown(image_id, side_px) for image_id in exemplars[number : number + 1])]
        question = prompts.CHOOSE_WORD if word else prompts.CHOOSE_JSON
        schema = ("choose", prompts.choose_schema(len(options)))
        candidate = shown(request.candidate_id, side_px)
        return self._compared_body(prompts.CHOOSE_SYSTEM, [*shared, none], candidate, question, schema, word=word)

    def _compared_body(
        self,
        system: str,
        shared: Sequence[Json],
        candidate: Json,
        question: str,
        schema: tuple[str, Json],
        *,
        word: bool,
    ) -> Json:
        """A judgement or a choice: what all candidates share, the candidate, the question. schema: of an answer that is
        not one word; its name is that of the room it takes."""
        content = [*shared, text_part(prompts.JUDGE_CANDIDATE), candidate, text_part(question)]
        messages: list[Json] = [{"role": "system", "content": system}, {"role": "user", "content": content}]
        if word:
            return self.dialect.chat(self._endpoint.model, messages, ANSWER_TOKENS["word"], logprobs=True)
        return self.dialect.chat(self._endpoint.model, messages, ANSWER_TOKENS[schema[0]], schema=schema)

    def _complete_body(self, request: CompleteRequest) -> Json:
        prompt = WRITING[request.task.name]
        messages: list[Json] = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": question(request.task)},
        ]
        schema = (request.task.name, prompt.schema)
        return self.dialect.chat(self._endpoint.model, messages, room(request.task), schema=schema)

    # Asking

    async def _look(self, request: LookRequest) -> LookReply:
        talk = Talk(self)
        body = await self._with_pictures(lambda shown: self._look_body(request, shown))
        found = await self._described(talk, body)
        embedding = await self._embedded_here(found.description) if self.dialect.embeddings == "local" else None
        talk.end()
        return LookReply(found.description, found.confidence, embedding, talk.usage)

    async def _described(self, talk: Talk, body: Json) -> prompts.Described:
        if self.dialect.words == "json":
            return await talk.read(body, prompts.parse_look, prompts.LOOK_SHAPE)
        found = await talk.read(body, prompts.parse_plain_look, prompts.PLAIN_SHAPE)
        sure = prompts.joint_probability(answer_logprobs(talk.last))
        return found if sure is None else prompts.Described(found.description, sure)

    @property
    def _judges_in_a_word(self) -> bool:
        return self.dialect.logprobs > 0 or self.dialect.words != "json"

    async def _judge(self, request: JudgeRequest) -> JudgeReply:
        talk = Talk(self)

        def by_tokens(tokens: Tokens) -> prompts.Judged | None:
            probability = prompts.yes_probability(tokens)
            return None if probability is None else prompts.Judged(probability)

        judged = await self._compare(
            talk,
            self._exemplars_of(request),
            lambda shown, word, fit: self._judge_body(request, shown, word=word, fit=fit),
            by_tokens,
            (prompts.parse_word, prompts.WORD_SHAPE),
            (prompts.parse_judge, prompts.JUDGE_SHAPE),
        )
        talk.end()
        return JudgeReply(judged.probability, judged.reason, talk.usage)

    async def _choose(self, request: ChooseRequest) -> ChooseReply:
        talk = Talk(self)
        count = len(request.options)
        names = [option.name for option in request.options]

        def by_tokens(tokens: Tokens) -> prompts.Chosen | None:
            probabilities = prompts.choice_probabilities(tokens, count)
            return None if probabilities is None else prompts.Chosen(probabilities)

        chosen = await self._compare(
            talk,
            self._exemplars_of(request),
            lambda shown, word, fit: self._choose_body(request, shown, word=word, fit=fit),
            by_tokens,
            (lambda reply: prompts.parse_letter(reply, count), prompts.LETTER_SHAPE),
            (lambda reply: prompts.parse_choice(reply, count, names), prompts.CHOOSE_SHAPE),
        )
        talk.end()
        return ChooseReply(chosen.probabilities, chosen.reason, talk.usage)

    async def _compare(
        self,
        talk: Talk,
        exemplars: int,
        body_of: Callable[[Shown, bool, int], Json],
        by_tokens: Callable[[Tokens], _Found | None],
        of_word: tuple[Callable[[str], _Found], str],
        of_json: tuple[Callable[[str], _Found], str],
    ) -> _Found:
        """The answer to a judgement or a choice: a word and its log-probabilities where there are any, else JSON, else
        the bare word; with smaller exemplars, or none, where the model takes no more. exemplars: that are shown.
        body_of: of the pictures, whether a word is asked for, and how it is made to fit. of_word, of_json: how the
        answer is read, and its shape."""

        async def compare(fit: int) -> _Found:
            if self._judges_in_a_word:
                body = await self._with_pictures(lambda shown: body_of(shown, True, fit))
                found = by_tokens(answer_logprobs(await talk.ask(body)))
                if found is not None:
                    return found
                if self.dialect.words != "json":
                    return await talk.read(body, *of_word)
            # Log-probabilities are not offered, or missing this once: let it state its confidence.
            body = await self._with_pictures(lambda shown: body_of(shown, False, fit))
            return await talk.read(body, *of_json)

        fit = max((fit for shown, fit in self._fits.items() if shown <= exemplars), default=0)
        while True:
            try:
                return await compare(fit)
            except RequestTooLong as error:
                if fit == WORDS_ALONE or not exemplars:
                    raise
                problem = error
            fit += 1
            self._must_fit(exemplars, fit, problem)

    def _must_fit(self, exemplars: int, fit: int, problem: RequestTooLong) -> None:
        if not self._fits and self.on_notice is not None:
            self.on_notice(
                f"{self.name} takes less at once than a question about clusters has ({problem.rule}): their pictures "
                "are shown smaller, or not at all. With more context, it sees them"
            )
        self._fits[exemplars] = max(fit, self._fits.get(exemplars, 0))

    async def _complete(self, request: CompleteRequest) -> CompleteReply:
        talk = Talk(self)
        body = self._complete_body(request)
        shape = WRITING[request.task.name].shape
        written = await talk.read(body, lambda reply: understand(reply, request.task), shape)
        talk.end()
        return CompleteReply(written, talk.usage)

    async def _embedded_here(self, description: str) -> Vector:
        if not self.dialect.embedding_model:
            return embed_by_words(description).astype(np.float16)
        if description not in self._vectors:
            rows = await asyncio.to_thread(TextEmbedder().embed, [description])
            self._vectors[description] = rows[0].astype(np.float16), 0
        vector, _ = self._vectors[description]
        self._forget_vectors()
        return vector

    async def _embed(self, request: EmbedRequest) -> EmbedReply:
        model = self.dialect.embedding_model
        if self.dialect.embeddings == "messages":
            jpeg = await asyncio.to_thread(self._jpeg, request.image_id, self._options.image_px)
            return EmbedReply(*await self._embedded(embedding_body(model, jpeg, request.interest)))
        text = prompts.as_data(request.description)
        # Most descriptions recur. Whoever comes first asks; where that fails, the next one does. Each look is charged
        # for its embedding: what an answer costs must not depend on which one came first.
        while text not in self._vectors and (under_way := self._under_way.get(text)) is not None:
            await under_way.wait()
        if text not in self._vectors:
            done = self._under_way[text] = asyncio.Event()
            try:
                body = {"model": model, "input": text, "encoding_format": "float"}
                vector, usage = await self._embedded(body)
                self._vectors[text] = vector, usage.tokens_in
            finally:
                del self._under_way[text]
                done.set()
        vector, tokens_in = self._vectors[text]
        self._forget_vectors()
        return EmbedReply(vector, Usage(tokens_in, 0))

    def _forget_vectors(self) -> None:
        if len(self._vectors) > VECTORS_KEPT:
            self._vectors.popitem(last=False)

    async def _embedded(self, body: Json) -> tuple[Vector, Usage]:
        """One embedding, with what it took or, where the server does not count, may have taken."""
        most = embedding_bound(body, self.capabilities.image_tokens)
        reply = await send(self._embedding_endpoint or self._endpoint, "/embeddings", body, most)
        try:
            row = embedding_rows(reply, 1)[0].astype(np.float16)
        except ValueError as error:
            problem = str(error)
        else:
            return row, counted_usage(reply) or most.most
        raise ModelReplyInvalid(f"{problem}, {body['model']!r} sent none", "choose another with --embedding-model")

    async def _with_pictures(self, body_of: Callable[[Shown], Json]) -> Json:
        """Decoding takes milliseconds and blocks: not on the loop that keeps the other calls going."""
        return await asyncio.to_thread(body_of, self._shown)

    def _shown(self, image_id: str, side_px: int) -> Json:
        key = (image_id, side_px)
        with self._decoding[hash(image_id) % DECODING_LOCKS]:  # five interests of one picture decode it once
            with self._guard:
                if key in self._pictures:
                    self._pictures.move_to_end(key)
                    return self._pictures[key]
            part = picture_part(self._jpeg(image_id, side_px))
            with self._guard:
                self._pictures[key] = part
                if len(self._pictures) > PICTURES_KEPT:
                    self._pictures.popitem(last=False)
            return part

    def _jpeg(self, image_id: str, side_px: int) -> bytes:
        try:
            return self._images.jpeg(image_id, side_px, JPEG_QUALITY)
        except ImageUnreadable as error:
            problem = ModelError(error.rule, error.hint)
        raise problem


async def _each(
    requests: Sequence[_Request], ask: Callable[[_Request], Awaitable[_Reply]]
) -> list[_Reply | ModelError]:
    """Side by side; a failure takes its request's place."""

    async def one(request: _Request) -> _Reply | ModelError:
        try:
            return await ask(request)
        except ModelError as error:
            # What it was raised through holds pictures; the error may be kept for the whole run.
            return error.with_traceback(None)

    return list(await asyncio.gather(*(one(request) for request in requests)))
