"""Finding out what one model on one server can do.

In: an `Endpoint`. Out: a `Dialect`. Promise: probe, never assume (servers ignore what they do not know, silently); a
handful of small requests; a model that cannot be used is told by one line with the cure. The pictures are drawn here,
so the right answers are known.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import json
import re
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image as PillowImage
from PIL import ImageDraw

from manylens.errors import BudgetSpent, ModelBusy, ModelError, ModelUnavailable
from manylens.models import prompts
from manylens.models.base import MOST_EXEMPLARS, Capabilities
from manylens.models.metering import FIRST_IMAGE_TOKENS, Bound, current_call
from manylens.models.openai_compatible.addresses import say_the_right_one
from manylens.models.openai_compatible.dialect import (
    ANSWER_TOKENS,
    EXEMPLARS_SHOWN,
    QUIET,
    TOP_LOGPROBS,
    Dialect,
    alike_texts,
    edge_scale_of,
    embedding_body,
    look_messages,
    picture_part,
    pictures_of,
    text_part,
    words_of,
)
from manylens.models.openai_compatible.endpoint import Endpoint, Json
from manylens.models.openai_compatible.faults import Nobody, NotJson, PageMissing
from manylens.models.openai_compatible.replies import (
    answer_logprobs,
    answer_text,
    counted_usage,
    embedding_rows,
    thoughts_of,
    was_cut,
)
from manylens.models.text_embedder import TextEmbedder

_COLORS = {"red": (220, 30, 30), "green": (30, 170, 60), "blue": (40, 80, 210), "yellow": (245, 215, 40)}
_COLOR_QUESTION = "What is the color of the disc in this picture?"
_COLOR_SCHEMA = {
    "type": "object",
    "properties": {"color": {"type": "string"}},
    "required": ["color"],
    "additionalProperties": False,
}
_SIGHT_HINT = "use a vision model, or start the server with the model's vision part"
_NO_SIGHT = re.compile(r"image|picture|vision|visual|multimodal|multi-modal|mmproj|content", re.IGNORECASE)


def colored_disc(color: str, side_px: int = 128) -> bytes:
    """A JPEG of a disc on light grey. A picture without an edge in it is a thing that small models have never seen."""
    picture = PillowImage.new("RGB", (side_px, side_px), (225, 225, 225))
    margin = side_px // 16
    box = (margin, margin, side_px - 1 - margin, side_px - 1 - margin)
    ImageDraw.Draw(picture).ellipse(box, fill=_COLORS[color])
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


MOST_NAMES = 5_000
"""Of a server's list of models: some have thousands, and names like the one asked for are looked for among them."""


def list_models(endpoint: Endpoint) -> tuple[str, ...] | None:
    """The names the server gives, or None where it keeps no list. Raises ModelUnavailable: nobody there, wrong key."""
    try:
        reply = endpoint.ask_now("/models")
    except PageMissing:
        return None
    except ModelUnavailable:
        raise
    except ModelError:
        return None
    data = reply.get("data")
    if not isinstance(data, list):
        return None
    names = [str(entry["id"]) for entry in data[:MOST_NAMES] if isinstance(entry, dict) and "id" in entry]
    return tuple(name for name in names if len(name) <= 500)


def check_listed(endpoint: Endpoint, names: Sequence[str] | None) -> None:
    """Raises ModelUnavailable, with the names most like it, where the server lists its models and not this one."""
    if not names or endpoint.model in names or f"{endpoint.model}:latest" in names:  # Ollama's names end in a tag
        return
    close = difflib.get_close_matches(endpoint.model, names, n=3, cutoff=0.4) or sorted(names)[:3]
    more = f" and {len(names) - len(close):,} more" if len(names) > len(close) else ""
    raise ModelUnavailable(
        f"{endpoint.host} knows no model {endpoint.model!r}; it has {', '.join(map(repr, close))}{more}",
        f"pass --model {close[0]}",
    )


def probe(endpoint: Endpoint, embedding_endpoint: Endpoint | None = None) -> Dialect:
    """Ask the server what it can do. Raises ModelUnavailable where it cannot be used.

    embedding_endpoint: the server and model that embed; None tries the same server: the model itself, then a model of
    its list whose name says that it embeds.
    """
    try:
        names = list_models(endpoint)
        check_listed(endpoint, names)
        dialect = _probe_sight(endpoint)
    except ModelUnavailable as error:
        if isinstance(error, Nobody | PageMissing) or not endpoint.spoke_json:
            raise _elsewhere(endpoint, error) from None
        raise
    dialect = _probe_pictures(endpoint, dialect)
    dialect = _probe_logprobs(endpoint, dialect)
    dialect = _probe_words(endpoint, dialect)
    if embedding_endpoint is not None:
        return _probe_embeddings(embedding_endpoint, dialect, [embedding_endpoint.model])
    embedders = [name for name in sorted(names or ()) if "embed" in name.lower()]
    return _probe_embeddings(endpoint, dialect, [endpoint.model, *embedders[:2]])


LOOK_AROUND_S = 5.0
"""What one of the addresses that may have been meant has to answer in."""


def _elsewhere(endpoint: Endpoint, problem: ModelUnavailable) -> ModelUnavailable:
    def answers(address: str, may_have_key: bool) -> bool:
        timeout_s = min(LOOK_AROUND_S, endpoint.timeout_s)
        other = Endpoint(address, endpoint.model, timeout_s, keyless=not may_have_key)
        try:
            return isinstance(other.ask_now("/models").get("data"), list)
        except ModelError as error:
            return other.spoke_json and "refuses the key" in error.rule

    return say_the_right_one(endpoint.url, problem, answers, unheard=not endpoint.was_answered)


def _ask(endpoint: Endpoint, dialect: Dialect, question: str, colors: Sequence[str], **how: Any) -> Json:
    parts = [picture_part(colored_disc(color)) for color in colors]
    messages = [{"role": "user", "content": [*parts, text_part(question)]}]
    return _ask_patiently(endpoint, dialect.chat(endpoint.model, messages, 60, **how))


TRIES = 4
PATIENCE_S = 1.0
"""The first wait for a busy server; it doubles."""

LONGEST_PROBE_WAIT_S = 60.0
"""What a limit for a minute asks for at most."""


def _ask_once(endpoint: Endpoint, path: str, body: Json) -> Json:
    """One request of the probe, with the account of the run told of it. Raises ModelUnavailable where its budget is
    spent: half a probe tells nothing."""
    call = current_call()
    if call is None:
        return endpoint.ask_now(path, body)
    reply = body.get("max_tokens") or body.get("max_completion_tokens") or 0
    known = Capabilities()
    text = len(words_of(body).encode("utf-8", "surrogatepass")) + len(json.dumps(body.get("response_format", "")))
    try:
        call.send(Bound("probe", text, len(pictures_of(body)), known.image_tokens, reply, FIRST_IMAGE_TOKENS))
    except BudgetSpent as error:
        problem = ModelUnavailable(
            f"{error.rule} before it is known what {endpoint.model} at {endpoint.host} can do", "allow more"
        )
    else:
        try:
            answer = endpoint.ask_now(path, body)
        except ModelError as error:
            call.failed(error)
            raise
        call.took(counted_usage(answer))
        return answer
    raise problem


def _ask_patiently(endpoint: Endpoint, body: Json) -> Json:
    """One chat request of the probe. Raises ModelBusy where the server stays busy."""
    wait_s = PATIENCE_S
    for left in reversed(range(TRIES)):
        try:
            return _ask_once(endpoint, "/chat/completions", body)
        except ModelBusy as error:
            hopeless = (
                error.cause == "time"
                or _NO_SIGHT.search(error.rule)  # llama.cpp says that with a 500
                or (isinstance(error, NotJson) and not endpoint.spoke_json)
            )
            if not left or hopeless:
                raise
            time.sleep(wait_s if error.retry_after_s is None else min(error.retry_after_s, LONGEST_PROBE_WAIT_S))
            wait_s *= 2
    raise AssertionError("the last try raises")


def _probe_sight(endpoint: Endpoint) -> Dialect:
    """Does it see, is a JSON schema honoured, which fields does it take? One question where all is well.

    The question says nothing of JSON: an answer in JSON shows that the schema was honoured.
    """
    dialect = Dialect(structured="json_schema")
    doubted = False
    for _ in range(7):  # every refusal takes one thing away
        try:
            reply = _ask(endpoint, dialect, _COLOR_QUESTION, ["green"], schema=("color", _COLOR_SCHEMA))
            text = answer_text(reply)
        except ModelUnavailable:
            raise
        except ModelError as error:
            simpler = _without_what_it_refuses(dialect, error)
            if simpler is None:
                raise _unusable(endpoint, error) from None
            dialect = simpler
            continue
        if _thinks(reply) and not dialect.thinks:
            dialect = dataclasses.replace(dialect, thinks=True)
            quieter = _quieted(endpoint, dialect)
            dialect = quieter or dialect
            if quieter or not prompts.after_thoughts(text).strip() or was_cut(reply):
                continue  # asked otherwise now; or its thoughts took all the room
        text = prompts.after_thoughts(text)
        if dialect.structured == "json_schema" and not _is_json_color(text):
            dialect = dataclasses.replace(dialect, structured="none")
            if _offers_json_object(endpoint, dialect):
                dialect = dataclasses.replace(dialect, structured="json_object")
        if not _says(text, "green") and not doubted:
            doubted = True  # anyone may slip once
            continue
        if not _says(text, "green"):
            raise _blind(endpoint, "green", text)
        return dialect
    raise ModelUnavailable(
        f"{endpoint.model} at {endpoint.host} gave no usable answer to a test question",
        "see the server's log, or use another model",
    )


def _thinks(reply: Json) -> bool:
    text = answer_text(reply)
    return "<think>" in text or "</think>" in text or bool(thoughts_of(reply)) or was_cut(reply)


def _quieted(endpoint: Endpoint, dialect: Dialect) -> Dialect | None:
    """The dialect of a model that thinks, with what keeps it from that; None where nothing was found that does."""
    for name in QUIET:
        trial = dataclasses.replace(dialect, thinks=False, quiet=name)
        try:
            reply = _ask(endpoint, trial, _COLOR_QUESTION, ["green"], schema=("color", _COLOR_SCHEMA))
        except ModelUnavailable:
            raise
        except ModelError:
            continue
        if not _thinks(reply) and _says(answer_text(reply), "green"):
            return trial
    return None


def _without_what_it_refuses(dialect: Dialect, error: ModelError) -> Dialect | None:
    """The dialect without the part that an error names; None where it names none, or what cannot be left out. A plain
    refusal that does not say why is taken to be about the format, unless it may be about the picture."""
    said = error.rule
    if "max_completion_tokens" in said and dialect.limit == "max_tokens":
        return dataclasses.replace(dialect, limit="max_completion_tokens")
    if "temperature" in said and dialect.temperature:
        return dataclasses.replace(dialect, temperature=False)
    about_format = re.search(r"response_format|json_schema|schema|grammar|structured", said)
    unexplained = not isinstance(error, ModelBusy) and not _NO_SIGHT.search(said)
    if dialect.structured != "none" and (about_format or unexplained):
        return dataclasses.replace(dialect, structured="json_object" if dialect.structured == "json_schema" else "none")
    return None


def _offers_json_object(endpoint: Endpoint, dialect: Dialect) -> bool:
    try:
        trial = dataclasses.replace(dialect, structured="json_object")
        question = f'{_COLOR_QUESTION} Reply in JSON: {{"color": "..."}}'
        text = answer_text(_ask(endpoint, trial, question, ["green"], schema=("color", _COLOR_SCHEMA)))
        return _is_json_color(prompts.after_thoughts(text))
    except ModelUnavailable:
        raise
    except ModelError:
        return False


def _is_json_color(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and "color" in value


def _says(text: str, color: str) -> bool:
    said = set(re.findall(r"[a-z]+", text.lower()))
    return color in said and not (set(_COLORS) - {color}) & said


def _unusable(endpoint: Endpoint, error: ModelError) -> ModelUnavailable:
    if _NO_SIGHT.search(str(error)):
        return ModelUnavailable(
            f"{endpoint.model} at {endpoint.host} takes no pictures ({prompts.cut(error.rule, 160)})",
            _SIGHT_HINT,
        )
    return ModelUnavailable(error.rule, error.hint)


def _blind(endpoint: Endpoint, color: str, text: str) -> ModelUnavailable:
    said = prompts.cut(prompts.one_line(text), 60)
    return ModelUnavailable(
        f'{endpoint.model} at {endpoint.host} does not see pictures (shown a {color} disc, it says "{said}")',
        _SIGHT_HINT,
    )


def _probe_pictures(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    """May a request hold the pictures of a choice, or else of a judgement, in their order? And does the model really
    look? A model that says green to everything has passed so far."""
    for count in (MOST_EXEMPLARS + 1, EXEMPLARS_SHOWN + 1):
        colors = [("red", "green", "blue")[number % 3] for number in range(count - 1)] + ["yellow"]
        try:
            text = answer_text(_ask(endpoint, dialect, "What is the color of the last picture?", colors))
            if _says(prompts.after_thoughts(text), "yellow"):
                return dataclasses.replace(dialect, pictures=count)
        except ModelUnavailable:
            raise
        except ModelError:
            pass
    try:
        text = prompts.after_thoughts(answer_text(_ask(endpoint, dialect, _COLOR_QUESTION, ["blue"])))
    except ModelError as error:
        raise _unusable(endpoint, error) from None
    if not _says(text, "blue"):
        raise _blind(endpoint, "blue", text)
    return dialect


def _probe_logprobs(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    """Are there log-probabilities from which a yes can be read?"""
    question = "Is this picture blue? Answer with one word: yes or no."
    for top in TOP_LOGPROBS:
        trial = dataclasses.replace(dialect, logprobs=top)
        try:
            reply = _ask(endpoint, trial, question, ["blue"], logprobs=True)
        except ModelUnavailable:
            raise
        except ModelError:
            continue
        if prompts.yes_probability(answer_logprobs(reply)) is not None:
            return trial
        break
    return dialect


def _probe_words(endpoint: Endpoint, dialect: Dialect) -> Dialect:
    """Where no format is honoured: does the model write JSON because it is told to?"""
    if dialect.structured != "none":
        return dialect
    messages = look_messages(dialect, picture_part(colored_disc("blue")), "color")
    try:
        prompts.parse_look(
            answer_text(_ask_patiently(endpoint, dialect.chat(endpoint.model, messages, ANSWER_TOKENS["look"])))
        )
    except ModelUnavailable:
        raise
    except (ModelError, prompts.ReplyProblem):
        return dataclasses.replace(dialect, words="plain")
    return dialect


def _probe_embeddings(endpoint: Endpoint, dialect: Dialect, models: Sequence[str]) -> Dialect:
    for model in models:
        if _embeds_pictures(endpoint, model):
            return dataclasses.replace(dialect, embeddings="messages", embedding_model=model)
        try:
            body = {"model": model, "input": alike_texts(), "encoding_format": "float"}
            edges = edge_scale_of(embedding_rows(_ask_once(endpoint, "/embeddings", body), len(alike_texts())))
        except (ModelError, ValueError):
            continue
        if edges is not None:
            return dataclasses.replace(
                dialect, embeddings="text", embedding_model=model, edge_scale=edges[0], edge_offset=edges[1]
            )
    return dataclasses.replace(
        dialect,
        embeddings="local",
        embedding_model=TextEmbedder.name,
        edge_scale=TextEmbedder.edge_scale,
        edge_offset=TextEmbedder.edge_offset,
    )


def _embeds_pictures(endpoint: Endpoint, model: str) -> bool:
    """Whether two pictures get two embeddings: a server may take the field and not look at it."""
    rows = []
    for color in ("red", "blue"):
        try:
            reply = _ask_once(endpoint, "/embeddings", embedding_body(model, colored_disc(color), "color"))
            rows.append(embedding_rows(reply, 1)[0])
        except (ModelError, ValueError):
            return False
    return rows[0].shape == rows[1].shape and float(rows[0] @ rows[1]) < 0.9999
