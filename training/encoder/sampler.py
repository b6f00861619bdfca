"""Draws training steps: which pictures are asked what, which words compete, and which of them are right.

In: `tasks.py`'s corpus and tasks, the untrained network's beliefs. Out: a step, a dict of arrays: `rows` of the corpus, `of`
(which of them each question is about), `interests`, `candidates` and `caption` (numbers in the book), `goal`, `spoiled`.
"""

from __future__ import annotations

import numpy as np
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
)

GROUP = 16
MORE = {
    "card.rank": 3.5, "card.suit": 2.2, "card.color": 1.3, "emotion.emotion": 2.2, "fashion.color": 1.8, "fashion.type": 1.5, "cifar10.class": 2.2,
    "cifar10.type": 1.8, "cifar10.environment": 1.8, "objects1000.main color": 1.5, "cifar10.main color": 2.0, "vehicle_color9.color": 1.6,
    "cmuface.glass": 2.5, "cmuface.pose": 1.3, "face_attributes.glasses": 1.5, "fruit.species": 1.3, "fruit.color": 1.3, "flowers.species": 1.5, "flowers.color": 1.5,
    "miniplaces100.place": 1.4,
    "human_actions15.action": 1.5, "coco_captions.activity": 1.3, "coco_captions.animal": 0.6, "miniplaces100.kind_of_place": 0.5,
    "miniplaces100.setting": 0.6, "cars_make_type.make": 0.5, "road_signs.road sign": 0.6, "art_medium.subject": 0.7,
}  # fmt: skip
"""Tasks asked more or less often than their size says: the hard ones of many pictures need more."""


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
        self.nothing = [task.unlike_rows[self.usable[task.unlike_rows]] for task in self.tasks]
        self.nothing_of = [frozenset(rows.tolist()) for rows in self.nothing]
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
        member = np.zeros((belief.shape[1], len(self.kinds)), np.float32)
        for k, (_, classes, _) in enumerate(self.kinds):
            member[classes, k] = 1
        mass = belief[self.natural].astype(np.float32) @ member
        keep = []
        for k, kind in enumerate(self.kinds):
            rows = self.natural[mass[:, k] > 0.55]
            if len(rows) >= 24:
                keep.append(kind)
                self.kind_rows.append(rows)
        self.kinds = keep
        weight = np.asarray([min(len(rows), 3000) ** 0.5 for rows in self.kind_rows])
        self.kind_weight = weight / weight.sum()
        self.object_natural = self.natural[belief[self.natural].max(1) > 0.25]

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
            elif self.corpus.set_of[row] in task.unlike or row in self.nothing_of[other]:
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
                    if len(self.nothing[number]) and rng.random() < 0.5:
                        others = self.nothing[number]
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
            "candidates": padded.astype(np.int32), "goal": goal.astype(np.float16), "caption": caption,
        }  # fmt: skip
