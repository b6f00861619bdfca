"""A checkpoint that learns: LoRA on its language model and projector, and beta and b.

In: a checkpoint, and batches of lessons. Out: losses, and an adapter's folder. Promises: the checkpoint itself stays as
it is; the vision tower is never touched; torch and peft are imported here, when used.

Three losses (the paper's fine-tuning, with beta and b learned, too): cross-entropy on the teacher's descriptions;
cross-entropy on yes against no of its judgements; and binary cross-entropy on w = sigmoid(beta * H.H + b) over the
pairs of a batch.
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage
from PIL.Image import Image as Picture

from manylens.collection.pictures import ImageSource
from manylens.errors import ModelUnavailable
from manylens.files import write_atomically
from manylens.method.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE
from manylens.models.base import LookRequest, ModelOptions
from manylens.models.huggingface.checkpoint import DIALECT_FILE, find_checkpoint, single_line
from manylens.models.huggingface.decoding import FloatArray, Part, is_out_of_memory
from manylens.models.huggingface.model import HF_PREFIX, HuggingFace
from manylens.tuning.pseudo_labels import Batch, PseudoLabel

PAIR_WEIGHT = 1.0
VIEWS = 2
"""Of each picture: the whole, and a crop of it. Turning or re-coloring would change what some interests ask for."""

SMALLEST_CROP = 0.85
SEEN_AT_ONCE = 32
RANK, ALPHA = 16, 32
PROJECTOR_RANK = 256
"""The projector is small, and what it lets through decides what can be learned."""

LORA_RATE, EDGE_RATE = 1e-3, 5e-3
AVERAGING = 0.9
"""Weights are averaged over some 1 / (1 - AVERAGING) steps: single ones follow the teacher's errors in their batch."""
WEIGHT_DECAY, LONGEST_GRADIENT = 0.01, 1.0


@dataclass(frozen=True, slots=True)
class Losses:
    """Sums over `rows` looks, `judged` judgements, and `pairs` pairs; see `total`."""

    describe: float = 0.0
    judge: float = 0.0
    pair: float = 0.0
    rows: int = 0
    judged: int = 0
    pairs: int = 0

    @property
    def total(self) -> float:
        """The mean of each kind, summed as in training."""
        means = (self.describe / max(self.rows, 1), self.judge / max(self.judged, 1), self.pair / max(self.pairs, 1))
        return means[0] + means[1] + PAIR_WEIGHT * means[2]

    def __add__(self, other: Losses) -> Losses:
        return Losses(
            self.describe + other.describe,
            self.judge + other.judge,
            self.pair + other.pair,
            self.rows + other.rows,
            self.judged + other.judged,
            self.pairs + other.pairs,
        )


class Student:
    """name: `hf:FOLDER_OR_ID`. options: `device`, `image_px`. It is trained in the number format that it runs in.
    Raises ModelUnavailable where the extra `[tune]` is missing or the checkpoint cannot be loaded."""

    def __init__(self, name: str, images: ImageSource, options: ModelOptions, seed: int) -> None:
        try:
            import peft
            import torch
        except ImportError as error:
            raise ModelUnavailable(
                f"tuning needs the package {error.name}, it is not installed", "pip install 'manylens[tune]'"
            ) from error
        self._torch = torch
        self.checkpoint = find_checkpoint(name.removeprefix(HF_PREFIX), options.device)
        self._model = HuggingFace(name, images, options, checkpoint=self.checkpoint)
        self._loaded = self._model.loaded
        # The model finds out about itself when first asked, by decoding. Asked within a step, that would go through the
        # step's dropout and take random numbers from it, in a resumed tuning only: another one finds out before.
        self.sees_exemplars = self._model.capabilities.sees_exemplars
        torch.manual_seed(seed)
        # Random numbers are drawn where the weights lie: drawn on the processor, they are the same for every device.
        self._net: Any = self._loaded.model
        language, projector = _targets(torch, self._net)
        config = peft.LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=f"(.*\\.)?({'|'.join([language, *projector])})",
            rank_pattern=dict.fromkeys(projector, PROJECTOR_RANK),
            alpha_pattern=dict.fromkeys(projector, 2 * PROJECTOR_RANK),
            task_type="CAUSAL_LM",
        )
        self._adapted: Any = peft.get_peft_model(self._net, config)
        self._net.eval()  # batch norms and dropouts stay as they are when the model is used
        device = self.checkpoint.device
        known = self.checkpoint
        edge = (
            DEFAULT_EDGE_SCALE if known.edge_scale is None else known.edge_scale,
            DEFAULT_EDGE_OFFSET if known.edge_offset is None else known.edge_offset,
        )
        self._edge: list[Any] = [torch.nn.Parameter(torch.tensor(float(number), device=device)) for number in edge]
        self._lora = {name: p for name, p in self._adapted.named_parameters() if p.requires_grad}
        self._steps = 0
        self.optimizer: Any = torch.optim.AdamW(
            [
                {"params": list(self._lora.values()), "peak": LORA_RATE},
                {"params": self._edge, "peak": EDGE_RATE, "weight_decay": 0.0},
            ],
            lr=LORA_RATE,
            weight_decay=WEIGHT_DECAY,
            betas=(0.9, 0.98),
        )
        self._average = self.weights()

    @property
    def identity(self) -> str:
        """Of the checkpoint before it learns."""
        return self._model.identity

    @property
    def edge_scale(self) -> float:
        return float(self._edge[0].detach())

    @property
    def edge_offset(self) -> float:
        return float(self._edge[1].detach())

    # What it holds

    def _tensors(self) -> dict[str, Any]:
        return {**self._lora, "edge_scale": self._edge[0], "edge_offset": self._edge[1]}

    def weights(self) -> dict[str, Any]:
        """A copy of all that learns, by name."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    def averaged(self) -> dict[str, Any]:
        """A copy of the average over the last steps, which is what is examined and kept."""
        return {name: tensor.clone() for name, tensor in self._average.items()}

    def put_weights(self, weights: dict[str, Any]) -> None:
        with self._torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(weights[name])

    def dump(self, values: dict[str, Any]) -> bytes:
        """Tensors and plain values as bytes, and the optimizer's state with them."""
        buffer = io.BytesIO()
        own = {"weights": self.weights(), "average": self._average, "learner_steps": self._steps}
        self._torch.save({**values, **own, "optimizer": self.optimizer.state_dict()}, buffer)
        return buffer.getvalue()

    def restore(self, data: bytes) -> dict[str, Any]:
        """Goes on from what `dump` gave; returns its values."""
        values: dict[str, Any] = self._torch.load(
            io.BytesIO(data), map_location=self.checkpoint.device, weights_only=True
        )
        self.put_weights(values.pop("weights"))
        self._average, self._steps = values.pop("average"), values.pop("learner_steps")
        self.optimizer.load_state_dict(values.pop("optimizer"))
        return values

    # Learning

    def learn(self, batch: Batch, rate: float) -> Losses:
        """One step. rate: the share, in (0, 1], of the peak learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        loss, losses = self._losses(batch)
        loss.backward()
        learning = list(self._tensors().values())
        self._torch.nn.utils.clip_grad_norm_(learning, LONGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._steps += 1
        share = 1 - min(AVERAGING, self._steps / (self._steps + 5))
        with self._torch.no_grad():
            for name, tensor in self._tensors().items():
                self._average[name].lerp_(tensor, share)
        return losses

    def examine(self, batches: Iterable[Batch]) -> Losses:
        """The losses of the averaged weights on batches that it does not learn from."""
        current = self.weights()
        self.put_weights(self._average)
        try:
            with self._torch.no_grad():
                return sum((self._losses(batch)[1] for batch in batches), Losses())
        finally:
            self.put_weights(current)

    def _losses(self, batch: Batch) -> tuple[Any, Losses]:
        torch = self._torch
        try:
            words, verdicts, embeddings = self._read(batch.lessons)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelUnavailable(
                f"a batch of {len(batch.lessons)} lessons must fit into the memory of {self.checkpoint.device} "
                f"({single_line(error, 80)})",
                "pass a smaller --batch",
            ) from None
        looks = [row for row, lesson in enumerate(batch.lessons) if isinstance(lesson.request, LookRequest)]
        judged = [row for row in range(len(batch.lessons)) if row not in set(looks)]
        zero = torch.zeros((), device=words.device)
        describe = words[looks].sum() if looks else zero
        target = torch.tensor([batch.lessons[row].probability for row in judged], device=words.device)
        entropy = torch.nn.functional.binary_cross_entropy_with_logits
        judge = entropy(verdicts[judged], target, reduction="sum") if judged else zero
        pair = zero
        if batch.pairs:
            first, second, same = (list(column) for column in zip(*batch.pairs, strict=True))
            likeness = (embeddings[first] * embeddings[second]).sum(1)
            weight = self._edge[0] * likeness + self._edge[1]
            pair = entropy(weight, torch.tensor(same, device=words.device), reduction="sum")
        counts = (len(looks), len(judged), len(batch.pairs))
        means = [value / max(count, 1) for value, count in zip((describe, judge, pair), counts, strict=True)]
        found = Losses(float(describe.detach()), float(judge.detach()), float(pair.detach()), *counts)
        return means[0] + means[1] + PAIR_WEIGHT * means[2], found

    def _read(self, lessons: Sequence[PseudoLabel]) -> tuple[Any, Any, Any]:
        """For b rows: the mean cross-entropy of the description's tokens (b,), the log-odds of yes (b,), H (b, d)."""
        torch = self._torch
        inputs, messages = self._inputs(lessons)
        choices = [
            [(self._loaded.answer_ids(text, message), p) for text, p in lesson.descriptions or (("yes", 1.0),)]
            for lesson, message in zip(lessons, messages, strict=True)
        ]
        answers = [choice[0][0] for choice in choices]
        longest = max(map(len, answers))
        end = answers[0][-1]
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in answers], device=self.checkpoint.device)
        mask = torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in answers], device=self.checkpoint.device
        )
        shape = inputs["input_ids"].shape
        for name, values in inputs.items():
            if values.shape == shape:  # token by token: ids, mask, and kinds, of which an answer has none
                more = {"input_ids": ids, "attention_mask": mask}.get(name, torch.zeros_like(ids))
                inputs[name] = torch.cat([values, more.to(values.dtype)], 1)
        kept: list[Any] = []
        hook = self._net.base_model.register_forward_hook(lambda module, arguments, output: kept.append(output[0]))
        try:
            logits = self._net(**inputs, logits_to_keep=longest + 1, use_cache=False).logits.float()
        finally:
            hook.remove()
        rows, places, tokens, shares = zip(*targets_by_token(choices), strict=True)
        likely = logits[:, :-1].log_softmax(-1)[list(rows), list(places), list(tokens)]
        share = torch.tensor(shares, device=likely.device)
        words = torch.zeros(len(lessons), device=likely.device)
        words = words.index_add(0, torch.tensor(rows, device=likely.device), -likely * share) / mask.sum(1)
        yes, no = (torch.logsumexp(logits[:, 0, tokens], -1) for tokens in self._model.yes_no)
        prompt = shape[1]
        # The embedding token follows the description.
        places = torch.tensor([prompt + len(row) - 1 for row in answers], device=ids.device)
        states = kept[0][torch.arange(len(places), device=ids.device), places]
        return words, yes - no, torch.nn.functional.normalize(states.float(), dim=-1)

    def _message(self, lesson: PseudoLabel) -> list[Part]:
        parts = self._model.message(lesson.request)
        pictures = [(place, part) for place, part in enumerate(parts) if not isinstance(part, str)]
        place, last = pictures[-1]  # exemplars come before it
        parts[place] = _crop(last, *_view_key(lesson))
        return parts

    def _inputs(self, lessons: Sequence[PseudoLabel]) -> tuple[dict[str, Any], list[list[Part]]]:
        messages = [self._message(lesson) for lesson in lessons]
        return dict(self._loaded.inputs(messages)), messages

    def features(self, image_ids: Sequence[str], interest: str) -> FloatArray:
        """(n, d) float32: what the checkpoint, before it learns, sees in whole pictures; averaged over each picture, at
        several depths, because what an interest asks for may be gone at the last."""
        found: list[FloatArray] = []
        for start in range(0, len(image_ids), SEEN_AT_ONCE):
            lessons = [PseudoLabel(LookRequest(interest, i)) for i in image_ids[start : start + SEEN_AT_ONCE]]
            inputs = self._loaded.inputs([self._message(lesson) for lesson in lessons])
            with self._torch.no_grad():
                found.append(self._depths(inputs).float().cpu().numpy())
        return np.concatenate(found)

    def _depths(self, inputs: Any) -> Any:
        torch = self._torch
        states = self._net(**inputs, output_hidden_states=True, logits_to_keep=1, use_cache=False).hidden_states
        token = getattr(self._net.config, "image_token_id", None)
        there = inputs["attention_mask"].bool() if token is None else inputs["input_ids"] == token
        share = there / there.sum(1, keepdim=True).clamp(min=1)
        chosen = (states[0], states[len(states) // 2], states[-1])
        return torch.cat([torch.einsum("btd,bt->bd", of.float(), share) for of in chosen], 1)

    # What comes out

    def write_adapter(self, folder: Path, base_name: str) -> None:
        """A folder that `--adapter` reads: the LoRA matrices in peft's format, and beta and b.

        base_name: what the adapter is said to belong to. An earlier folder is replaced as a whole.
        """
        aside = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for config in self._adapted.peft_config.values():
            config.base_model_name_or_path = base_name
        self._adapted.save_pretrained(aside, save_embedding_layers=False)
        (aside / "README.md").unlink(missing_ok=True)  # peft's template of a model card
        dialect = {
            "dialect": "chat",
            "edge_scale": round(self.edge_scale, 4),
            "edge_offset": round(self.edge_offset, 4),
        }
        write_atomically(aside / DIALECT_FILE, json.dumps(dialect, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def targets_by_token(choices: Sequence[Sequence[tuple[list[int], float]]]) -> Iterator[tuple[int, int, int, float]]:
    """(row, place, token, share): what is to stand at each place of the most probable answer of each row. Where answers
    part, each way gets the share of what is probable so far."""
    for row, choice in enumerate(choices):
        answer = choice[0][0]
        for place in range(len(answer)):
            shares: dict[int, float] = {}
            for ids, p in choice:
                if ids[:place] == answer[:place]:
                    shares[ids[place]] = shares.get(ids[place], 0.0) + p
            whole = sum(shares.values())
            yield from ((row, place, token, p / whole) for token, p in shares.items())


def _targets(torch: Any, net: Any) -> tuple[str, list[str]]:
    """Patterns of the names of the linear layers that get LoRA: the language model's, and those of the projector, where
    it stands by itself: a part of the model without a convolution, as every vision tower has one."""
    decoder = net.get_decoder()
    place = next(name for name, module in net.named_modules() if module is decoder)
    last = {name.rpartition(".")[2] for name, module in decoder.named_modules() if isinstance(module, torch.nn.Linear)}
    if not last:
        raise ModelUnavailable("a student's language model has linear layers, none was found", "use another checkpoint")
    projector: list[str] = []
    convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    for name, part in net.base_model.named_children():
        if any(module is decoder or isinstance(module, convolutions) for module in part.modules()):
            continue
        linear = [below for below, module in part.named_modules() if isinstance(module, torch.nn.Linear)]
        projector += [re.escape(f"{name}.{below}".rstrip(".")) for below in linear]
    return rf"{re.escape(place)}\..*\.({'|'.join(sorted(last))})", projector


def _view_key(lesson: PseudoLabel) -> tuple[str, int]:
    return lesson.image_id, lesson.view


def _crop(picture: Picture, image_id: str, view: int) -> Picture:
    """View 0 is the whole picture; others leave out up to 15% of each side, by the image's id."""
    if view == 0:
        return picture
    random = np.random.default_rng([view, *image_id.encode()])
    width, height = picture.size
    share = random.uniform(SMALLEST_CROP, 1)
    wide, high = max(1, round(width * share)), max(1, round(height * share))
    left, top = (int(random.integers(free + 1)) for free in (width - wide, height - high))
    return picture.resize((width, height), PillowImage.Resampling.BICUBIC, (left, top, left + wide, top + high))
