"""Worlds to try the method in: looks at images, a model that answers about them, and the truth.

Scripted worlds have stated error rates: one word a class at several noises (`NOISES`), or open words (`OPEN`). Replayed
ones are what real models said of real pictures (`bench.replay_model`). Everything is drawn by a seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.replay_model import SHORT_LOOK, ReplayModel, find_sets, read_looks
from manylens.events import Event
from manylens.method.observations import Looks
from manylens.models.base import Model
from manylens.models.scripted import DESIGN_NOISE, Noise, ScriptedModel
from manylens.models.wordings import Wordings
from manylens.pipeline.look import look_at_images
from manylens.types import Interest

INTEREST = Interest("kind")
CLASSES = 13


@dataclass(frozen=True, slots=True)
class World:
    """wordings: None is a closed set of words, one a class."""

    wordings: Wordings | None = None
    noise: Noise = DESIGN_NOISE


NOISES = {
    "closed words": World(),
    "12% wrong": World(noise=replace(DESIGN_NOISE, wrong_description=0.12)),
    "stubborn": World(noise=replace(DESIGN_NOISE, stubborn=0.6)),
    "10% wrong choices": World(noise=replace(DESIGN_NOISE, wrong_choice=0.1)),
    "25% wrong choices": World(noise=replace(DESIGN_NOISE, wrong_choice=0.25)),
    "judge at chance": World(noise=replace(DESIGN_NOISE, wrong_choice=13 / 14)),
    "30% synonyms": World(noise=replace(DESIGN_NOISE, synonym=0.3)),
    "spread 1.2": World(noise=replace(DESIGN_NOISE, spread=1.2)),
    "spread 2": World(noise=replace(DESIGN_NOISE, spread=2.0)),
    "no noise": World(noise=Noise()),
}
"""stubborn: the judge takes 60% of the wrongly described images for what the look took them for. spread: of embeddings
around their class's centre; 1.2 and 2 give cosines of .4 and .2 within a class."""

OPEN = {
    "10 wordings": World(Wordings(per_class=10)),
    "30 wordings": World(Wordings(per_class=30)),
    "free prose": World(Wordings(per_class=0)),
    "two levels": World(Wordings(levels=0.3)),
    "a third foreign": World(Wordings(foreign=1 / 3)),
    "correlated mistakes": World(Wordings(correlated=True), replace(DESIGN_NOISE, wrong_description=0.1)),
    "believed mistakes": World(Wordings(correlated=True), replace(DESIGN_NOISE, wrong_description=0.1, stubborn=0.5)),
    "no answers": World(Wordings(refusals=0.1)),
}
"""Correlated mistakes: always into the same other class. Believed ones: the judge makes half of them, too."""

WORLDS = NOISES | OPEN


def draw_labels(images: int, classes: int, seed: int, skew: float = 0.0) -> dict[str, str]:
    """Image id -> class; sizes fall by a power of the class number where skew > 0."""
    chance = random.Random(seed)
    names = [f"kind{number}" for number in range(classes)]
    weights = [(number + 1) ** -skew for number in range(classes)]
    return {f"{chance.getrandbits(128):032x}": chance.choices(names, weights)[0] for _ in range(images)}


def scripted(
    world: World,
    labels: Mapping[str, str],
    seed: int,
    writes: bool,
    sees_exemplars: bool = True,
    dimensions: int = 64,
) -> ScriptedModel:
    return ScriptedModel(
        {INTEREST.text: labels},
        noise=world.noise,
        seed=seed,
        dimensions=dimensions,
        writes_text=writes,
        sees_exemplars=sees_exemplars,
        wordings=world.wordings,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Looks at some images, the model that answers about them, and the truth, image by image."""

    looks: Looks
    model: Model
    truth: tuple[str, ...]


def see(model: Model, truth: Mapping[str, str], interest: Interest = INTEREST) -> Seen:
    looks = asyncio.run(look_at_images(list(truth), [interest], model, ignore))[interest]
    return Seen(looks, model, tuple(truth[image_id] for image_id in looks.image_ids))


def see_world(world: World, images: int, seed: int, writes: bool, classes: int = CLASSES, skew: float = 0.0) -> Seen:
    truth = draw_labels(images, classes, seed, skew)
    return see(scripted(world, truth, seed, writes), truth)


def see_replay(folder: Path, name: str, images: int | None, seed: int, writes: bool, column: str = SHORT_LOOK) -> Seen:
    """What a real model said of images drawn by the seed."""
    (path,) = find_sets(folder, [name])
    drawn = read_looks(path, column).draw(images, seed)
    rows = {f"{row:07d}": row for row in drawn.rows}
    model = ReplayModel(drawn, rows, writer=writes, seed=seed)
    return see(model, dict(zip(rows, drawn.truth, strict=True)), Interest(drawn.interest))


def ignore(event: Event) -> None:
    """Events are for progress bars."""
