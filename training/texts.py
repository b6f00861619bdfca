"""Prompts and answers for random rows, written by processes of their own ahead of the GPU.

In: tasks, their weights, the tokenizer. Out: `TextBatch`es of NumPy arrays. Promise: no torch is imported here, so that
a writer starts quickly and never holds up the training loop; the same seeds give the same batches in the same order.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from multiprocessing.queues import Queue

import numpy as np
from data import Task
from tokenizers import Tokenizer

ANSWER = "\nAnswer:"
START_ID, END_ID, VISUAL_TOKENS = 1, 2, 9


@dataclass
class TextBatch:
    """One step's prompts and answers, all int64.

    rows: (b,) rows of the pool. ids: (b, t), right-padded. answer_places: (a,) places in the flattened (b * t,) whose
    next token is answer_tokens (a,). prompt_end: (b,) place of the last prompt token in its row. group: (b,) group
    number of describing rows, -1 for judging rows. answer_id: (b,) number of the answer's word.
    """

    rows: np.ndarray
    ids: np.ndarray
    answer_places: np.ndarray
    answer_tokens: np.ndarray
    prompt_end: np.ndarray
    group: np.ndarray
    answer_id: np.ndarray


class TextWriter:
    """A batch describes, in groups of rows that share one interest, or it judges.

    Of one kind, its prompts are of like length.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        weights: Mapping[str, float],
        colors: AbstractSet[str],
        tokenizer: Tokenizer,
        image_token: int,
        *,
        groups: int,
        group_rows: int,
        judge_share: float,
    ) -> None:
        self.tasks = {t.key: t for t in tasks if (~t.held_out).any()}
        self.tokenizer, self.image_token = tokenizer, image_token
        self.groups, self.group_rows, self.judge_share = groups, group_rows, judge_share
        self.train_rows = {k: np.flatnonzero(~t.held_out) for k, t in self.tasks.items()}
        self.keys = list(self.tasks)
        self.weights = [weights[k] for k in self.keys]
        self.colors = [k for k in self.keys if k in colors]
        self.cache: dict[str, list[int]] = {}
        words = sorted({answer for task in self.tasks.values() for answer in task.answers})
        self.answer_number = {word: i for i, word in enumerate(words)}
        self.tail = self.tokens(ANSWER)

    def tokens(self, text: str) -> list[int]:
        if text not in self.cache:
            self.cache[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.cache[text]

    def describe_prompt(self, phrase: str) -> list[int]:
        return [START_ID, *self.tokens(phrase)] + [self.image_token] * VISUAL_TOKENS + self.tail

    def judge_prompt(self, phrase: str, name: str) -> list[int]:
        return self.describe_prompt(f"{phrase}\nGroup: {name}\nBelongs, yes or no?")

    def draw(self, key: str, rng: random.Random) -> tuple[int, str]:
        """A training row of a task: (pool row, answer)."""
        task, rows = self.tasks[key], self.train_rows[key]
        i = int(rows[rng.randrange(len(rows))])
        return int(task.rows[i]), task.answers[i]

    def batch(self, rng: random.Random) -> TextBatch:
        rows: list[int] = []
        prompts: list[list[int]] = []
        answers: list[list[int]] = []
        group: list[int] = []
        words: list[int] = []
        judges = rng.random() < self.judge_share
        for g in range(0 if judges else self.groups):
            key = rng.choices(self.keys, self.weights)[0]
            mixed = key in self.colors and rng.random() < 0.35
            for _ in range(self.group_rows):
                source = rng.choice(self.colors) if mixed else key
                row, answer = self.draw(source, rng)
                rows.append(row)
                prompts.append(self.describe_prompt(self.tasks[source].phrasings.draw(rng)))
                answers.append([*self.tokens(" " + answer), END_ID])
                group.append(g)
                words.append(self.answer_number[answer])
        for _ in range(self.groups * self.group_rows if judges else 0):
            key = rng.choices(self.keys, self.weights)[0]
            task = self.tasks[key]
            row, answer = self.draw(key, rng)
            belongs = rng.random() < 0.5 or len(task.values) < 2
            name = answer
            while not belongs and name == answer:
                name = rng.choice(task.values)
            rows.append(row)
            prompts.append(self.judge_prompt(task.phrasings.draw(rng), name))
            answers.append([*self.tokens(" yes" if belongs else " no"), END_ID])
            group.append(-1)
            words.append(-1)
        longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        longest = (longest + 7) // 8 * 8
        ids = np.full((len(rows), longest), END_ID, dtype=np.int64)
        places: list[int] = []
        for i, (p, a) in enumerate(zip(prompts, answers, strict=True)):
            ids[i, : len(p)] = p
            ids[i, len(p) : len(p) + len(a)] = a
            places.extend(range(i * longest + len(p) - 1, i * longest + len(p) - 1 + len(a)))

        def array(values: list[int]) -> np.ndarray:
            return np.array(values, dtype=np.int64)

        return TextBatch(
            array(rows),
            ids,
            array(places),
            array([t for a in answers for t in a]),
            array([len(p) - 1 for p in prompts]),
            array(group),
            array(words),
        )


def written_ahead(writer: TextWriter, seeds: Sequence[int]) -> Iterator[TextBatch]:
    """Batches without end, taken in turn from one process per seed. Closing the iterator ends the processes."""
    context = multiprocessing.get_context("spawn")
    queues: list[Queue[TextBatch]] = [context.Queue(maxsize=8) for _ in seeds]
    processes = [
        context.Process(target=_write, args=(writer, seed, queue), daemon=True)
        for seed, queue in zip(seeds, queues, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        while True:
            for queue in queues:
                yield queue.get()
    finally:
        for process in processes:
            process.terminate()


def _write(writer: TextWriter, seed: int, queue: Queue[TextBatch]) -> None:
    rng = random.Random(seed)
    while True:
        queue.put(writer.batch(rng))
