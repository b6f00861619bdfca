"""Train the interest-conditioned encoder, then print the table of what it can do.

In: `pack.py`'s folder (`--data`), the parts (`--vision` the package's .pth, `--text` MiniLM's folder, `--levels`).
Out: `OUT/encoder.pt` (float16), `OUT/results.json`, the table on standard output.

A step asks some groups of pictures about their labels (softmax over the label texts), some captions (InfoNCE), and some
groups about kinds of object that the untrained network believes to see; see docs/explanation/nano.md for the recipe.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from embed import TextEmbedder
from encoder import Encoder, load_imagenet
from evaluate_encoder import evaluate, print_table
from PIL import Image
from tasks import (
    CANNOT_TELL,
    KIND_OF_SET,
    KIND_WORDS,
    LEFT_OUT,
    NOT_APPLICABLE,
    OBJECT_WORDS,
    OBJECTS,
    OPEN,
    VAGUE_KINDS,
    Book,
    Corpus,
    Task,
    make_tasks,
)
from torch import Tensor, nn
from torch.nn import functional as F

NO_MIRROR = {"card", "cmuface", "road_signs", "writing_system", "handwritten_alphabet", "emoji_category"}
TURNED = {"textures": 180, "steel_defects": 180, "magnetic_tile_defects": 180, "pcb_defects": 180, "ucm_aerial_captions": 180, "blood_cells": 180, "card": 25, "tomato_leaf_disease": 90}  # fmt: skip
PLAIN = {"photo_quality"}  # its labels are what augmentation does
GENTLE = {
    "card",
    "cmuface",
    "road_signs",
    "writing_system",
    "handwritten_alphabet",
    "pcb_defects",
    "magnetic_tile_defects",
    "emotion",
}
"""Sets whose answer may lie at the edge: hardly cropped."""
GROUP = 16
MORE = {
    "card.rank": 3.0, "card.suit": 1.3, "emotion.emotion": 2.0, "fashion.color": 1.8, "fashion.type": 1.4, "cifar10.class": 1.8,
    "objects1000.main color": 1.5, "cifar10.main color": 2.0, "cmuface.glass": 1.5, "miniplaces100.place": 1.4,
    "human_actions15.action": 1.5, "coco_captions.activity": 1.3, "coco_captions.animal": 0.6, "miniplaces100.kind_of_place": 0.5,
    "miniplaces100.setting": 0.6, "cars_make_type.make": 0.5, "road_signs.road sign": 0.6, "art_medium.subject": 0.7,
}  # fmt: skip
"""Tasks asked more or less often than their size says: the hard ones of many pictures need more."""


def decode_all(folder: Path, where: np.ndarray, side: int, threads: int) -> Tensor:
    """(n, 3, side, side) uint8, squashed to a square as the run-time does."""
    shards = {k: (folder / f"shard-{k}.bin").read_bytes() for k in np.unique(where[:, 0])}
    pixels = np.zeros((len(where), 3, side, side), np.uint8)

    def one(i: int) -> None:
        shard, at, size = where[i]
        with Image.open(io.BytesIO(shards[shard][at : at + size])) as opened:
            picture = opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        pixels[i] = np.asarray(picture).transpose(2, 0, 1)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, range(len(where)), chunksize=256))
    return torch.from_numpy(pixels)


def normalize(pixels: Tensor) -> Tensor:
    return (pixels.float() - 127) / 128


def augment(pixels: Tensor, mirror: Tensor, turn: Tensor, plain: Tensor, gentle: Tensor) -> Tensor:
    """(b, 3, s, s) uint8 -> normalised floats. mirror, plain, gentle: (b,) bool; turn: (b,) degrees at most."""
    b, side, device = len(pixels), pixels.shape[-1], pixels.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(b, device=device) * (high - low) + low

    angle = uniform(-1, 1) * turn * (math.pi / 180)
    one = torch.ones(b, device=device)
    scale, aspect = 1 / uniform(0.85, 1.45).where(~plain, one).where(~gentle, uniform(0.85, 1.06)), uniform(0.85, 1.18)
    aspect = aspect.where(~gentle, uniform(0.94, 1.06))
    shift = 0.1 * one.where(~gentle, 0.3 * one)
    flip = torch.where(mirror & (torch.rand(b, device=device) < 0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * scale * aspect * flip, -sin * scale, uniform(-1, 1) * shift], 1),
            torch.stack([sin * scale * flip, cos * scale / aspect, uniform(-1, 1) * shift], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [b, 3, side, side], align_corners=False)
    x = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    few = torch.randperm(b, device=device)[: b // 8]
    small = F.interpolate(
        x[few], size=(random.randrange(64, 150),) * 2, mode="bilinear", antialias=True, align_corners=False
    )
    small = F.interpolate(small, size=(side, side), mode="bilinear", align_corners=False)
    x[few] = torch.where(plain[few].view(-1, 1, 1, 1), x[few], small)
    grey = x.mean(1, keepdim=True)
    soft = (~plain).float().view(b, 1, 1, 1)
    x = grey + (x - grey) * (1 + (uniform(0.75, 1.25).view(b, 1, 1, 1) - 1) * soft)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + (uniform(0.75, 1.25).view(b, 1, 1, 1) - 1) * soft)
    x = x * (1 + (uniform(0.75, 1.2).view(b, 1, 1, 1) - 1) * soft)
    x = x * (1 + (torch.rand(b, 3, 1, 1, device=device) - 0.5) * 0.12 * soft)
    center, half = torch.rand(b, 2, device=device) * side, uniform(0.05, 0.17).view(b, 1) * side
    axis = torch.arange(side, device=device).view(1, -1)
    hole = ((axis - center[:, :1]).abs() < half)[:, :, None] & ((axis - center[:, 1:]).abs() < half)[:, None, :]
    hole &= ((torch.rand(b, device=device) < 0.25) & ~plain).view(b, 1, 1)
    x = torch.where(hole[:, None], uniform(0, 255).view(b, 1, 1, 1), x)
    return normalize(x.clamp(0, 255))


def spoil(pixels: Tensor) -> Tensor:
    """Pictures in which nothing can be seen any more: blurred to a few pixels, black, white, or noise. (b, 3, s, s) uint8."""
    b, side = len(pixels), pixels.shape[-1]
    x = F.interpolate(pixels.float(), size=(3, 3), mode="area")
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    choice = torch.rand(b, 1, 1, 1, device=pixels.device)
    level = torch.rand(b, 1, 1, 1, device=pixels.device)
    x = torch.where(choice < 0.25, level * 12, x)
    x = torch.where((choice > 0.25) & (choice < 0.4), 255 - level * 8, x)
    noise = torch.randn_like(x)
    x = torch.where((choice > 0.4) & (choice < 0.6), 128 + noise * 60, x + noise * level * 10)
    return x.clamp(0, 255).to(torch.uint8)


class Sampler:
    """Draws steps. All rows are rows of the corpus, all texts numbers of the book."""

    def __init__(self, corpus: Corpus, tasks: list[Task], book: Book, levels: dict, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.corpus, self.book = corpus, book
        self.tasks = [task for task in tasks if not task.left_out and len(task.rows) >= 8]
        # Large tasks more often, but not in proportion: small ones would be forgotten. Many classes need more pictures.
        weight = np.asarray(
            [min(len(t.rows), 8000) ** 0.5 * min(len(t.labels), 60) ** 0.25 * MORE.get(t.key, 1.0) for t in self.tasks]
        )
        self.task_weight = weight / weight.sum()
        hidden = {key.split(".")[0] for key in LEFT_OUT} if any(t.left_out for t in tasks) else set()
        self.usable = np.asarray([name not in hidden for name in corpus.sets])[corpus.set_of] & ~corpus.valid
        self.rows_of_set = [np.flatnonzero((corpus.set_of == i) & self.usable) for i in range(len(corpus.sets))]
        self.by_label = [[task.rows[task.answers == k] for k in range(len(task.labels))] for task in self.tasks]
        self.by_label = [[rows for rows in groups if len(rows)] for groups in self.by_label]
        self.label_of = [dict(zip(task.rows.tolist(), task.answers.tolist(), strict=True)) for task in self.tasks]
        of_set = [task.key.split(".")[0] for task in self.tasks]
        self.beside = [
            [k for k, name in enumerate(of_set) if name == own and k != number] for number, own in enumerate(of_set)
        ]
        self.captioned = np.asarray([row for row in corpus.captions if self.usable[row]])
        self.caption_ids = {row: book.all(corpus.captions[row]) for row in self.captioned.tolist()}
        self.open = book.all(OPEN)
        self.not_applicable, self.cannot_tell = book(NOT_APPLICABLE), book(CANNOT_TELL)
        self.names = book.all(levels["names"])
        self.object_words = book.all(OBJECT_WORDS)
        self.kinds = []
        for kind, classes in levels["kinds"].items():
            if kind not in VAGUE_KINDS:
                words = book.all([template.format(k=kind) for template in KIND_WORDS])
                self.kinds.append((kind, np.asarray(classes), words))
        commons = sorted({name for name in levels["common"] if name})
        self.common_ids = book.all(commons)
        self.common_of = np.asarray([commons.index(name) if name else -1 for name in levels["common"]])
        listed = corpus.columns["coco_captions.objects"]
        self.object_sets = {}
        names: dict[str, int] = {}
        for row, value in listed.tolist():
            if self.usable[row]:
                parts = [p.strip() for p in corpus.values["coco_captions.objects"][value].split(";")]
                self.object_sets[row] = [names.setdefault(p, len(names)) for p in parts]
        self.object_ids = book.all(list(names))
        self.object_interests = book.all(OBJECTS)
        self.object_rows = np.asarray(list(self.object_sets))
        self.kind_rows: list[np.ndarray] = []

    def learn_kinds(self, belief: np.ndarray) -> None:
        """belief: (n, 1000) of the untrained network. Which pictures each kind can be asked about."""
        natural = np.isin(
            self.corpus.set_of,
            [
                i
                for i, n in enumerate(self.corpus.sets)
                if KIND_OF_SET[n]
                in (
                    "scene",
                    "people",
                    "vehicle",
                    "animal",
                    "furniture",
                    "food",
                    "clothes",
                    "product",
                    "mixed",
                    "flower",
                )
                and n not in ("kind_of_image", "photo_quality", "cifar10", "human_actions15")
            ],
        )
        natural &= self.usable
        self.natural = np.flatnonzero(natural)
        # the photographs of ImageNet's classes carry their class by name
        self.belief = belief
        keep = []
        for kind, classes, words in self.kinds:
            mass = belief[:, classes].sum(1)
            rows = np.flatnonzero(natural & (mass > 0.55))
            if len(rows) >= 24:
                keep.append((kind, classes, words))
                self.kind_rows.append(rows)
        self.kinds = keep
        weight = np.asarray([min(len(rows), 3000) ** 0.5 for rows in self.kind_rows])
        self.kind_weight = weight / weight.sum()
        sure = np.flatnonzero(natural & (belief.max(1) > 0.25))
        self.object_natural = sure

    def again(self, number: int, chosen: np.ndarray, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same pictures asked about another attribute of their set: interests, labels, goals (0 where unknown)."""
        beside = [k for k in self.beside[number] if any(row in self.label_of[k] for row in chosen.tolist())]
        if not beside:
            return (
                np.resize(self.tasks[number].wordings[:1], GROUP),
                self.tasks[number].labels[:1],
                np.zeros((GROUP, 1), np.float32),
            )
        other = int(self.rng.choice(beside))
        task = self.tasks[other]
        labels = np.concatenate([task.labels, [self.not_applicable, self.cannot_tell]])
        target = np.zeros((GROUP, len(labels)), np.float32)
        for i, row in enumerate(chosen.tolist()):
            place = self.label_of[other].get(row)
            if bad[i]:
                target[i, -1] = task.attribute not in ("photo_quality", "kind_of_image")
            elif place is not None:
                target[i, place] = 1
            elif self.corpus.set_of[row] in task.unlike:
                target[i, -2] = 1
        return np.resize(self.rng.choice(task.wordings, GROUP if self.rng.random() < 0.5 else 1), GROUP), labels, target

    def step(self, groups: int, captions: int, kind_groups: int) -> dict[str, np.ndarray]:
        rng = self.rng
        rows, interests, spoiled = [], [], []
        candidates: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        more_interests: list[np.ndarray] = []

        def add(group_rows, group_words, labels, target, bad=None) -> None:
            rows.append(group_rows)
            interests.append(group_words)
            spoiled.append(np.zeros(len(group_rows), bool) if bad is None else bad)
            for i in range(len(group_rows)):
                candidates.append(labels if not isinstance(labels, list) else labels[i])
                targets.append(target[i])

        second: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for number in rng.choice(len(self.tasks), groups, p=self.task_weight):
            task = self.tasks[number]
            if rng.random() < 0.5:  # every label alike, or as they come
                chosen = np.asarray(
                    [rng.choice(self.by_label[number][k]) for k in rng.integers(0, len(self.by_label[number]), GROUP)]
                )
            else:
                chosen = rng.choice(task.rows, GROUP)
            answer = np.asarray([self.label_of[number][row] for row in chosen.tolist()])
            if rng.random() < 0.35 and len(task.labels) > 4:  # fewer names, as a closed list has
                names = np.unique(
                    np.concatenate([np.unique(answer), rng.choice(len(task.labels), max(1, len(task.labels) // 3))])
                )
            else:
                names = np.arange(len(task.labels))
            labels = np.concatenate([task.labels[names], [self.not_applicable, self.cannot_tell]])
            place = np.searchsorted(names, answer)
            bad = np.zeros(GROUP, bool)
            if rng.random() < 0.6:
                bad[rng.random(GROUP) < 0.05] = task.attribute not in ("photo_quality", "kind_of_image")
            for i in range(GROUP):
                if bad[i]:
                    place[i] = len(names) + 1
                elif task.unlike and rng.random() < 0.10:
                    others = self.rows_of_set[task.unlike[rng.integers(len(task.unlike))]]
                    if len(others):
                        chosen[i], place[i] = rng.choice(others), len(names)
            target = np.zeros((GROUP, len(labels)), np.float32)
            target[np.arange(GROUP), place] = 1
            words = rng.choice(task.wordings, GROUP if rng.random() < 0.5 else 1)
            add(chosen, np.resize(words, GROUP), labels, target, bad)
            second.append(self.again(number, chosen, bad))
        for number in rng.choice(len(self.kinds), kind_groups - 3, p=self.kind_weight):
            _, classes, words = self.kinds[number]
            chosen = rng.choice(self.kind_rows[number], GROUP)
            belief = self.belief[chosen][:, classes].astype(np.float32)
            target = np.concatenate([belief / belief.sum(1, keepdims=True), np.zeros((GROUP, 2), np.float32)], 1)
            for i in np.flatnonzero(rng.random(GROUP) < 0.12):
                other = rng.choice(self.natural)
                if self.belief[other][classes].sum() < 0.02:
                    chosen[i], target[i] = other, 0
                    target[i, -2] = 1
            labels = np.concatenate([self.names[classes], [self.not_applicable, self.cannot_tell]])
            if len(labels) > 130:
                part = np.sort(rng.choice(len(classes), 120, replace=False))
                keep = np.concatenate([part, [len(classes), len(classes) + 1]])
                left = target[:, keep]
                fine = left.sum(1) > 0.5
                target = np.where(fine[:, None], left / np.maximum(left.sum(1, keepdims=True), 1e-6), 1 / len(keep))
                labels = labels[keep]
            add(chosen, np.resize(rng.choice(words, 4), GROUP), labels, target)
        # everyday names, and every object of a photograph
        chosen = rng.choice(self.object_natural, GROUP)
        belief = self.belief[chosen].astype(np.float32)
        common = np.zeros((GROUP, len(self.common_ids)), np.float32)
        for k in np.flatnonzero(self.common_of >= 0):
            common[:, self.common_of[k]] += belief[:, k]
        common = common + 1e-6
        add(
            chosen,
            np.resize(rng.choice(self.object_words, 4), GROUP),
            self.common_ids,
            common / common.sum(1, keepdims=True),
        )
        for _ in range(2):
            chosen = rng.choice(self.object_rows, GROUP)
            target = np.zeros((GROUP, len(self.object_ids)), np.float32)
            for i, row in enumerate(chosen.tolist()):
                target[i, self.object_sets[row]] = 1 / len(self.object_sets[row])
            add(chosen, np.resize(rng.choice(self.object_interests, 4), GROUP), self.object_ids, target)
        for words, labels, target in second:
            more_interests.append(words)
            for i in range(GROUP):
                candidates.append(labels)
                targets.append(target[i])
        told = rng.choice(self.captioned, captions, replace=False)
        caption = np.asarray([rng.choice(self.caption_ids[row]) for row in told.tolist()])
        named = rng.choice(self.object_natural, 3 * GROUP)
        most = max(map(len, candidates))
        padded = np.full((len(candidates), most), -1, np.int64)
        goal = np.zeros((len(candidates), most), np.float32)
        for i, (labels, target) in enumerate(zip(candidates, targets, strict=True)):
            padded[i, : len(labels)], goal[i, : len(labels)] = labels, target
        asked = sum(map(len, rows))
        return {
            "rows": np.concatenate([*rows, named, told]),
            "of": np.concatenate([np.arange(asked), np.arange(GROUP * groups), np.arange(asked, asked + len(named) + captions)]),
            "interests": np.concatenate([*interests, *more_interests, rng.choice(self.object_words, len(named)), rng.choice(self.open, captions)]),
            "spoiled": np.concatenate([*spoiled, np.zeros(len(named) + captions, bool)]),
            "candidates": padded, "goal": goal, "caption": caption,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "vision", "text", "levels", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--until", type=float, help="instead of --seconds: training ends so long after the start")
    parser.add_argument("--pixels", type=Path, help="decoded already, by decode.py")
    parser.add_argument(
        "--save-at", type=float, help="seconds after the start when the weights are saved once before the end"
    )
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--adapter", action="store_true", help="a learned change of the label texts' embeddings")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--groups", type=int, default=36)
    parser.add_argument("--kind-groups", type=int, default=10)
    parser.add_argument("--captions", type=int, default=80)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="pictures at most, for a trial on the CPU")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--wordings", type=int, default=150)
    o = parser.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(o.seed)
    random.seed(o.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    def say(text: str) -> None:
        print(f"[{time.time() - began:5.0f} s] {text}", flush=True)

    corpus = Corpus.read(o.data)
    if o.limit:
        keep = np.sort(np.random.default_rng(0).choice(len(corpus.where), o.limit, replace=False))
        new = np.full(len(corpus.where), -1)
        new[keep] = np.arange(o.limit)
        corpus.where, corpus.set_of, corpus.valid = corpus.where[keep], corpus.set_of[keep], corpus.valid[keep]
        corpus.columns = {k: np.stack([new[v[:, 0]], v[:, 1]], 1)[new[v[:, 0]] >= 0] for k, v in corpus.columns.items()}
        corpus.captions = {int(new[row]): texts for row, texts in corpus.captions.items() if new[row] >= 0}
        corpus.held_colors = new[corpus.held_colors]
    levels = json.loads(o.levels.read_text())
    book = Book()
    here = Path(__file__).parent
    tasks = make_tasks(corpus, book, here, leave_out=o.leave_out, wordings=o.wordings, seed=o.seed)
    sampler = Sampler(corpus, tasks, book, levels, o.seed)
    say(f"{len(corpus.where)} pictures, {len(tasks)} tasks, {len(book.texts)} texts")
    texts = TextEmbedder(o.text, device).embed(book.texts)
    texts = torch.from_numpy(texts).to(device)
    say("texts embedded")
    if o.pixels:
        pixels = torch.from_numpy(np.memmap(o.pixels, np.uint8, "r", shape=(len(corpus.where), 3, o.side, o.side))).to(
            device
        )
    else:
        pixels = decode_all(o.data, corpus.where, o.side, o.threads).to(device)
    say(f"pictures decoded, {pixels.nbytes / 1e9:.1f} GB")

    model = Encoder(o.side)
    load_imagenet(model, torch.load(o.vision, map_location="cpu", weights_only=True))
    model = model.to(device, memory_format=torch.channels_last)
    model.eval()
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    # what the untrained network sees: its features are the bar to beat, its beliefs a teacher
    belief = torch.zeros(len(pixels), 1000, dtype=torch.float16, device=device)
    untrained = torch.zeros(len(pixels), 1280, dtype=torch.float16, device=device)
    total, square = torch.zeros(model.head.pooled_norm.num_features, device=device), 0.0
    with torch.inference_mode(), torch.autocast(device.type, half):
        for at in range(0, len(pixels), 512):
            _, pooled = model.eyes(normalize(pixels[at : at + 512]).to(memory_format=torch.channels_last))
            untrained[at : at + 512] = pooled[:, :1280].half()
            belief[at : at + 512] = model.classes(pooled[:, :1280]).softmax(1).half()
            total += pooled.sum(0)
            square = square + (pooled**2).sum(0)
    mean = total / len(pixels)
    model.head.pooled_norm.running_mean.copy_(mean)
    model.head.pooled_norm.running_var.copy_(square / len(pixels) - mean**2)
    sampler.learn_kinds(belief.cpu().numpy())
    say(f"untrained network's beliefs; {len(sampler.kinds)} kinds to ask about")
    if o.resume:
        kept = torch.load(o.resume, map_location="cpu", weights_only=True)
        model.load_state_dict({k: v.float() for k, v in kept["model"].items()})
        say("weights of before")

    adapter = nn.Sequential(nn.Linear(384, 512), nn.GELU(), nn.Linear(512, 384)).to(device)
    nn.init.zeros_(adapter[2].weight)
    nn.init.zeros_(adapter[2].bias)
    if o.resume and kept.get("adapter"):
        adapter.load_state_dict({k: v.float() for k, v in kept["adapter"].items()})

    def answers(table: Tensor) -> Tensor:
        if not o.adapter:
            return table
        return F.normalize(table + adapter(F.dropout(table, 0.1, adapter.training)), dim=-1)

    scale = nn.Parameter(torch.tensor([3.0, 3.0, 3.0], device=device))  # labels, captions, ImageNet's names; exp
    if o.resume:
        scale.data.copy_(kept["scale"].to(device))
    backbone = list(model.eyes.backbone.parameters())
    fresh = [*model.eyes.positions.parameters(), *model.head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": backbone, "lr": o.lr, "weight_decay": 0.02},
            {"params": fresh, "lr": 1.5 * o.lr, "weight_decay": 0.05},
            {"params": adapter.parameters(), "lr": o.lr, "weight_decay": 0.2},
            {"params": [*model.classes.parameters()], "lr": 0.3 * o.lr, "weight_decay": 0.0},
            {"params": [scale], "lr": 2e-3, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    average = {k: v.detach().clone().float() for k, v in model.state_dict().items()}
    average_adapter = {k: v.detach().clone() for k, v in adapter.state_dict().items()}
    names = texts[torch.as_tensor(sampler.names, device=device)]
    mirror_set = torch.tensor([n not in NO_MIRROR for n in corpus.sets], device=device)
    turn_set = torch.tensor([float(TURNED.get(n, 8)) for n in corpus.sets], device=device)
    plain_set = torch.tensor([n in PLAIN for n in corpus.sets], device=device)
    gentle_set = torch.tensor([n in GENTLE for n in corpus.sets], device=device)
    set_of = torch.as_tensor(corpus.set_of.astype(np.int64), device=device)
    see = torch.compile(model.forward, dynamic=False) if o.compile else model.forward
    rows_labels, pictures_labels = (2 * o.groups + o.kind_groups) * GROUP, (o.groups + o.kind_groups) * GROUP

    def save(name: str) -> None:
        """The averaged weights."""
        half_of = {k: (average[k] if v.dtype.is_floating_point else v) for k, v in model.state_dict().items()}
        saved = {
            "model": {k: v.half().cpu() if v.dtype.is_floating_point else v.cpu() for k, v in half_of.items()},
            "adapter": {k: v.half().cpu() for k, v in average_adapter.items()} if o.adapter else {},
            "scale": scale.detach().cpu(), "side": o.side, "steps": step, "options": {k: str(v) for k, v in vars(o).items()},
        }  # fmt: skip
        torch.save(saved, o.out / f"{name}.tmp")
        (o.out / f"{name}.tmp").rename(o.out / name)

    draw = ThreadPoolExecutor(1)
    coming = draw.submit(sampler.step, o.groups, o.captions, o.kind_groups)
    model.train()
    start, step, sums = time.time(), 0, torch.zeros(5, device=device)
    log_at = 50
    while (share := (time.time() - start) / o.seconds) < 1:
        rate = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.004
        for group, base in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = base * rate
        drawn = coming.result()
        coming = draw.submit(sampler.step, o.groups, o.captions, o.kind_groups)
        batch = {k: torch.from_numpy(v).to(device, non_blocking=True) for k, v in drawn.items()}
        rows = batch["rows"]
        picture = pixels[rows]
        bad = batch["spoiled"]
        if drawn["spoiled"].any():
            picture[bad] = spoil(picture[bad])
        kind = set_of[rows]
        x = augment(picture, mirror_set[kind], turn_set[kind], plain_set[kind] | bad, gentle_set[kind]).to(
            memory_format=torch.channels_last
        )
        interest = F.normalize(
            texts[batch["interests"]] + 0.015 * torch.randn(len(batch["interests"]), 384, device=device), dim=1
        )
        with torch.autocast(device.type, half):
            h, pooled = see(x, interest, 0.1, batch["of"])
            classes = model.classes(pooled[:, :1280])
        h = h.float()
        factor = scale.exp().clamp(max=80)
        candidates = batch["candidates"]
        table = answers(texts)[candidates.clamp(min=0)] if o.adapter else texts[candidates.clamp(min=0)]
        logits = factor[0] * torch.einsum("bd,bcd->bc", h[:rows_labels], table)
        logits = logits.masked_fill(candidates < 0, -1e4)
        known = batch["goal"].sum(1) > 0
        goal = 0.97 * batch["goal"] + 0.03 * (candidates >= 0) / (candidates >= 0).sum(1, keepdim=True)
        asked = (-(goal * logits.log_softmax(1)).sum(1) * known).sum() / known.sum()
        told = h[-o.captions :]
        words = answers(texts[batch["caption"]])
        similar = factor[1] * told @ words.T
        same = batch["caption"][:, None] == batch["caption"][None]
        similar = similar.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool, device=device), -1e4)
        place = torch.arange(len(told), device=device)
        caption_loss = (F.cross_entropy(similar, place) + F.cross_entropy(similar.T, place)) / 2
        named = slice(rows_labels, rows_labels + 3 * GROUP)
        named_pictures = slice(pictures_labels, pictures_labels + 3 * GROUP)
        believed = belief[rows]
        named_logits = factor[2] * h[named] @ answers(names).T
        named_loss = -(believed[named_pictures].float() * named_logits.log_softmax(1)).sum(1).mean()
        natural = (~bad & (believed.float().amax(1) > 0.05)).float()
        kept_loss = (-(believed.float() * classes.float().log_softmax(1)).sum(1) * natural).mean()
        loss = 1.5 * asked + 0.3 * caption_loss + 0.15 * named_loss + 0.1 * kept_loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 2.0)
        optimizer.step()
        step += 1
        if step == 2:  # compiled by now: the clock starts here
            torch.cuda.synchronize() if device.type == "cuda" else None
            start = time.time()
            if o.until:
                o.seconds = o.until - (start - began)
            say(f"training for {o.seconds:.0f} s")
        if step % 5 == 0:
            keep_share = min(0.99, step / (step + 50))
            with torch.no_grad():
                for mine, state in ((average, model.state_dict()), (average_adapter, adapter.state_dict())):
                    for k, v in state.items():
                        if v.dtype.is_floating_point:
                            mine[k].lerp_(v.float(), 1 - keep_share)
        if o.save_at and time.time() - began > o.save_at:
            o.save_at = None
            save("halfway.pt")
        sums += torch.stack([loss, asked, caption_loss, named_loss, kept_loss]).detach()
        if step == 10 or step % log_at == 0:
            told_now = (
                (sums / (10 if step == 10 else log_at)).tolist() if step != log_at else (sums / (log_at - 10)).tolist()
            )
            say(
                f"step {step}: "
                + ", ".join(
                    f"{n} {v:.3f}"
                    for n, v in zip(("loss", "asked", "captions", "names", "kept"), told_now, strict=True)
                )
                + f"; scales {[round(v, 1) for v in factor.tolist()]}"
            )
            sums.zero_()
    say(f"{step} steps of {len(rows)} pictures")
    save("encoder.pt")
    if o.no_table:
        return
    model.load_state_dict(
        {**model.state_dict(), **{k: v for k, v in average.items() if model.state_dict()[k].dtype.is_floating_point}}
    )
    adapter.load_state_dict(average_adapter)
    model.eval()
    adapter.eval()
    with torch.inference_mode():
        results = evaluate(model, answers(texts).float(), texts, pixels, untrained, tasks, book, normalize, half)
    (o.out / "results.json").write_text(json.dumps(results))
    print_table(results)
    say("done")


if __name__ == "__main__":
    main()
