"""A checkpoint in memory: messages in; greedy texts, confidences, logits and hidden states out.

In: a `Checkpoint`, and messages made of texts and pictures. Out: `Decoded`. Promises: nothing is sampled; torch and
transformers are imported here, when used; their errors at loading are explained.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image as Picture

from manylens.errors import ModelUnavailable
from manylens.models.huggingface.checkpoint import Checkpoint, missing_extra, single_line
from manylens.sync import within

FloatArray: TypeAlias = NDArray[np.float32]
Part: TypeAlias = str | Picture
"""A piece of a message."""

TEMPLATE_S = 20.0
"""A chat template is a program of its checkpoint's, and may loop; it words a message in milliseconds."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of b messages. texts: the answers. confidence: product of the chosen tokens' probabilities.
    first_logits: (b, vocabulary) at the first answered token. states: (b, width) hidden states, of the embedding token
    if one was asked for, else of the last prompt token. tokens_in, tokens_out: counts."""

    texts: list[str]
    confidence: list[float]
    first_logits: FloatArray
    states: FloatArray
    tokens_in: list[int]
    tokens_out: list[int]


class Loaded:
    """Model and processor of one checkpoint, on its device. Not for several threads at once.

    Raises ModelUnavailable where they cannot be loaded.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._device = checkpoint.device
        problem: ModelUnavailable | None = None
        try:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
            from transformers.utils import logging

            logging.disable_progress_bar()
            self._torch = torch
            self.model: Any = AutoModelForImageTextToText.from_pretrained(
                checkpoint.folder, dtype=getattr(torch, checkpoint.dtype)
            )
            if checkpoint.adapter is not None:
                self.model.load_adapter(str(checkpoint.adapter))
            self.model = self.model.to(checkpoint.device).eval()
            self.processor: Any = AutoProcessor.from_pretrained(checkpoint.folder)
        except ImportError as error:
            problem = missing_extra(error.name or single_line(error))
        except Exception as error:  # what a damaged or unknown checkpoint sets off has no common class
            if is_out_of_memory(error):
                rule, hint = f"weights must fit into the memory of {checkpoint.device}", "use a smaller checkpoint"
            else:
                rule, hint = f"{checkpoint.folder} cannot be loaded: {single_line(error)}", "is the folder whole?"
            problem = ModelUnavailable(rule, hint)
        if problem is not None:
            raise problem
        self._tokenizer: Any = getattr(self.processor, "tokenizer", self.processor)
        self._tokenizer.padding_side = "left"
        self._ends = self._end_tokens()
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token_id = self._ends[0]
        # A checkpoint's own sampling settings, penalties and end tokens would be merged into every call.
        self.model.generation_config = GenerationConfig(do_sample=False, pad_token_id=self._tokenizer.pad_token_id)

    def _end_tokens(self) -> list[int]:
        """Tokens that end a turn; the first stands for the embedding token."""
        given = self.model.generation_config.eos_token_id
        ends = [given] if isinstance(given, int) else list(given or ())
        if not ends and self._tokenizer.eos_token_id is not None:
            ends = [self._tokenizer.eos_token_id]
        if not ends:
            raise ModelUnavailable(
                "a checkpoint has a token that ends an answer, this one names none",
                "set eos_token_id in its generation_config.json",
            )
        return ends

    def free_memory(self) -> None:
        """Give back what a failed batch held."""
        gc.collect()
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()

    def whole_token(self, word: str) -> list[int]:
        """The token that is this word, alone in a list; empty where the tokenizer cuts it up."""
        ids: list[int] = self._tokenizer.encode(word, add_special_tokens=False)
        return ids if len(ids) == 1 and self._tokenizer.decode(ids).strip() == word.strip() else []

    # Learning

    def answer_ids(self, answer: str, messages: Sequence[Part]) -> list[int]:
        """The tokens of an answer to a message, and the one that ends it: what the model is to write."""
        # A word that follows a colon has its space; one that begins a line, or follows a token, has none.
        space = " " if self._chat_text(messages)[-1:] in (":", "") else ""
        ids: list[int] = self._tokenizer.encode(f"{space}{answer}", add_special_tokens=False)
        return [*ids, self._ends[0]]

    # Messages

    def inputs(self, messages: Sequence[Sequence[Part]]) -> Any:
        """The model's inputs for these messages, padded on the left, on the device."""
        inputs = self._chat_inputs(messages)
        return inputs.to(self._device, self.model.dtype)  # floats only: ids stay whole numbers

    def _chat_inputs(self, messages: Sequence[Sequence[Part]]) -> Any:
        pictures = [[part for part in message if not isinstance(part, str)] for message in messages]
        texts = [self._chat_text(message) for message in messages]
        start = self._tokenizer.bos_token
        more = {"add_special_tokens": False} if start and texts[0].startswith(start) else {}
        return self.processor(
            text=texts, images=pictures if any(pictures) else None, padding=True, return_tensors="pt", **more
        )

    def _chat_text(self, message: Sequence[Part]) -> str:
        """One user's turn in the checkpoint's own chat format; without one, its parts one a line."""
        if getattr(self.processor, "chat_template", None) or getattr(self._tokenizer, "chat_template", None):
            content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in message]
            turns = [{"role": "user", "content": content}]
            try:
                text: str = within(
                    TEMPLATE_S,
                    lambda: self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False),
                )
            except Exception as error:  # a template is a program of its checkpoint's, and may raise what it likes
                problem = type(error).__name__
            else:
                return text
            raise ModelUnavailable(
                f"a checkpoint's chat template words what is asked, this one fails ({problem})",
                "take another chat_template.jinja into its folder",
            )
        image = getattr(self.processor, "image_token", None)
        if image is None:
            raise ModelUnavailable(
                "a checkpoint has a chat template or names its image token, this one does neither",
                "add a chat_template.jinja to its folder",
            )
        return "\n".join(part if isinstance(part, str) else str(image) for part in message) + "\n"

    # Decoding

    def decode(self, messages: Sequence[Sequence[Part]], limit: int, *, embedding_token: bool = False) -> Decoded:
        """Greedy answers of at most `limit` tokens. embedding_token: after each answer, read the end token too and give
        its hidden state."""
        torch = self._torch
        inputs = self.inputs(messages)
        watch = _Watch(torch, self._ends, limit, embedding_token=embedding_token)
        states: list[Any] = []

        def keep_state(module: Any, arguments: Any, output: Any) -> None:
            states.append(output[0][:, -1].float().cpu())

        hook = self.model.base_model.register_forward_hook(keep_state)
        try:
            with torch.inference_mode():
                self.model.generate(
                    **inputs,
                    max_new_tokens=limit + 2 * embedding_token,
                    do_sample=False,
                    logits_processor=[watch.choose],
                    stopping_criteria=[watch.is_over],
                )
        finally:
            hook.remove()
        chosen = torch.stack(watch.chosen, 1).tolist()
        lengths = watch.lengths.tolist()
        answers = [row[:length] for row, length in zip(chosen, lengths, strict=True)]
        # The state of step n + 1 is that of the token chosen at step n.
        steps = [length + 1 if embedding_token else 0 for length in lengths]
        return Decoded(
            texts=[self._tokenizer.decode(answer, skip_special_tokens=True) for answer in answers],
            confidence=watch.log_confidence.exp().tolist(),
            first_logits=watch.first_logits.cpu().numpy(),
            states=torch.stack([states[step][row] for row, step in enumerate(steps)]).numpy(),
            tokens_in=inputs["attention_mask"].sum(1).tolist(),
            tokens_out=lengths,
        )


class _Watch:
    """Chooses greedily, and sees what transformers' generate does not give out without keeping everything.

    lengths: (b,) tokens before the end token, at most `limit`. With an embedding token, each row goes on until its end
    token was read: forced after `limit` tokens, and one step more.
    """

    def __init__(self, torch: Any, ends: Sequence[int], limit: int, *, embedding_token: bool) -> None:
        self._torch, self._limit, self._reads_end = torch, limit, embedding_token
        self._end_ids = list(ends)
        self.chosen: list[Any] = []
        self.first_logits: Any = None
        self.lengths: Any = None
        self.log_confidence: Any = None
        self._ended: Any = None
        self._ended_before: Any = None

    def choose(self, ids: Any, scores: Any) -> Any:
        """A logits processor: leaves the chosen token only."""
        torch, step = self._torch, len(self.chosen)
        logits = scores.float()
        best, token = logits.log_softmax(-1).max(-1)
        if self.first_logits is None:
            self.first_logits = logits
            self._ended = torch.zeros_like(token, dtype=torch.bool)
            self.lengths = torch.zeros_like(token)
            self.log_confidence = torch.zeros_like(best)
        ends = torch.tensor(self._end_ids, device=token.device)
        if step < self._limit:
            self.log_confidence += torch.where(self._ended, 0.0, best)
            stops = torch.isin(token, ends)
        else:
            stops = torch.ones_like(self._ended)
        self._ended_before = self._ended
        self._ended = self._ended | stops
        self.lengths += (~self._ended).long()
        token = torch.where(self._ended, ends[0], token)
        self.chosen.append(token)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)

    def is_over(self, ids: Any, scores: Any, **rest: Any) -> Any:
        """A stopping criterion, over all rows at once: a row that ended reads end tokens until the others have."""
        over = self._ended_before if self._reads_end else self._ended
        if not self._reads_end and len(self.chosen) >= self._limit:
            over = self._torch.ones_like(over)
        return over if bool(over.all()) else self._torch.zeros_like(over)


def unit_rows(states: FloatArray) -> FloatArray:
    """H(u), (b, d), unit length, of hidden states."""
    unit: FloatArray = states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    return unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says, in one of its ways, that memory is full."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in said or "can't allocate memory" in said or "alloc_failed" in said)
    )
