"""Before the graph and the walks: what the judge's probabilities and the similarities mean for this interest.

In: looks. Out: a `Calibration` that turns the judge's probabilities into ones that mean what they say, and beta and b
(`EdgeScale`) that make an edge's weight the probability that two images belong together. Promise: pure; no labels.

Controls are images against the group of their own description (mostly yes) and against the group of another one (mostly
no). A judge who says yes to all, no to all, or anything to anything comes out near one half, so the stages that weigh
its answers fall back on descriptions; a good one is left as it is. Then a few dozen pairs, spread over the range of
similarities: does the one image belong with the group whose only exemplar is the other?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manylens.evidence import (
    Ask,
    EdgeScale,
    Looks,
    Profile,
    Question,
    Steps,
    draw_profile,
    log_odds,
    seeded_share,
    without,
)
from manylens.records import Settings

_FEWEST_IMAGES = 40
_FEWEST_IN_GROUP = 4
_FEWEST_CONTROLS = 6
_MOST_CONTROLS = 12
_IMAGES_PER_CONTROL = 20

_LAPSES = 0.05
"""The share of answers and expectations taken to be wrong whatever the fit says."""

_SCALE_SD, _OFFSET_SD = 1.0, 1.0

_PAIRED = 512
_LOWEST_SHARE = 0.25
_EDGE_SCALE_SD, _EDGE_MIDDLE_SD = 0.5, 0.15
_GRID = 121

_LEAST = 0.01
"""A judge's probability says no more than 99 to 1."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """p -> sigmoid(scale * logit(p) + offset) (Platt). The identity where there was nothing to learn from."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_telling(self) -> bool:
        """Whether a sure yes and a sure no still mean different things: at least .65 apart. Less could not outweigh
        what a sure look says, so such a judge is not asked further."""
        return self.apply(0.95) - self.apply(0.05) >= 0.65

    def apply(self, probability: float) -> float:
        score = self.scale * log_odds(probability, _LEAST) + self.offset
        return 1 / (1 + math.exp(-score))


def calibrate_judge(looks: Looks, settings: Settings) -> Steps[Calibration]:
    """Put at most 12 controls of either kind, one per 20 images; identity where descriptions form no two groups.

    A judge who comes out as telling nothing is not asked again in this run, so it gets as many controls once more:
    of 12 a good one can miss two by bad luck.
    """
    groups: dict[str, list[int]] = {}
    for image, words in enumerate(looks.words):
        if words:
            groups.setdefault(words, []).append(image)
    groups = {words: members for words, members in groups.items() if len(members) >= _FEWEST_IN_GROUP}
    if len(groups) < 2 or len(looks) < _FEWEST_IMAGES:
        return Calibration()
    count = min(_MOST_CONTROLS, max(_FEWEST_CONTROLS, len(looks) // _IMAGES_PER_CONTROL))
    names = sorted(groups)
    profiles = {words: draw_profile(looks, groups[words], settings.exemplars + 1) for words in names}
    eligible = sorted(image for members in groups.values() for image in members)
    drawn = sorted(eligible, key=lambda image: seeded_share(settings.seed, "control", looks.image_ids[image]))
    known: list[tuple[float, bool]] = []
    for batch in (drawn[:count], drawn[count : 2 * count]):
        answers = yield Ask(_controls(looks, batch, profiles, settings))
        answered = [(answer.probability, turn % 2 == 0) for turn, answer in enumerate(answers)]
        known += [(p, expected) for p, expected in answered if p is not None]
        if min(sum(expected for _, expected in known), sum(not expected for _, expected in known)) < _FEWEST_CONTROLS:
            return Calibration()
        found = fit(known)
        if found.is_telling:
            break
    return found


def _controls(looks: Looks, images: Sequence[int], profiles: dict[str, Profile], settings: Settings) -> list[Question]:
    """Each image against the group of its own description, then against another one."""
    names = sorted(profiles)
    questions: list[Question] = []
    for image in images:
        own = looks.words[image]
        # Drawn at random, not the nearest: that may be the same kind in other words.
        others = [words for words in names if words != own]
        other = others[int(seeded_share(settings.seed, "other", looks.image_ids[image]) * len(others))]
        questions += [Question(without(profiles[words], image, settings.exemplars), image) for words in (own, other)]
    return questions


def fit(controls: Sequence[tuple[float, bool]]) -> Calibration:
    """Platt scaling, (probability, expected yes), at the maximum of the posterior; prior scale 1, offset 0 (normal).

    One control in twenty may be a lapse, of the look that says what to expect or of the judge: without that, two sure
    wrong answers among 24 make a good judge look like one who tells nothing. A grid, which needs no derivative, no
    starting point and has no trouble with two maxima. A judge who is wrong more often than right is not turned round
    (the scale is not negative): it is not understood.
    """
    scales = np.linspace(0.0, 2.5, 126)
    offsets = np.linspace(-4.0, 4.0, 161)
    logits = np.array([log_odds(p, _LEAST) for p, _ in controls])
    target = np.array([float(expected) for _, expected in controls])
    score = scales[:, None, None] * logits + offsets[None, :, None]
    prior = ((scales[:, None] - 1.0) / _SCALE_SD) ** 2 + (offsets[None, :] / _OFFSET_SD) ** 2
    posterior = _log_likelihood(score, target) - prior / 2
    row, column = np.unravel_index(int(np.round(posterior, 9).argmax()), posterior.shape)
    return Calibration(round(float(scales[row]), 6), round(float(offsets[column]), 6))


def _log_likelihood(score: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of targets in [0, 1] under sigmoid(score), one in twenty being a lapse; summed over the last axis."""
    p = _LAPSES / 2 + (1 - _LAPSES) / (1 + np.exp(-np.clip(score, -60, 60)))
    total: NDArray[np.float64] = (target * np.log(p) + (1 - target) * np.log(1 - p)).sum(axis=-1)
    return total


def calibrate_edges(looks: Looks, known: EdgeScale, judge: Calibration, settings: Settings) -> Steps[EdgeScale]:
    """Ask about at most `edge_questions` pairs, one per 20 images, and fit beta and b to the answers. `known`, the
    model's own pair, where the judge tells nothing, where too few answer, and in collections too small to pay for it.

    Answers come with probabilities that `judge` has made mean what they say; they are the targets of the fit.
    """
    if not judge.is_telling or len(looks) < _FEWEST_IMAGES or settings.edge_questions == 0:
        return known
    count = min(settings.edge_questions, max(_FEWEST_CONTROLS, len(looks) // _IMAGES_PER_CONTROL))
    pairs = draw_pairs(looks, count, settings.seed)
    answers = yield Ask([Question(draw_profile(looks, [group], 1), candidate) for group, candidate, _ in pairs])
    judged = [
        (similarity, answer.probability)
        for (_, _, similarity), answer in zip(pairs, answers, strict=True)
        if answer.probability is not None
    ]
    return fit_edges(judged, known) if len(judged) >= _FEWEST_CONTROLS else known


def draw_pairs(looks: Looks, count: int, seed: int) -> list[tuple[int, int, float]]:
    """At most `count` pairs (group's exemplar, candidate, similarity), spread evenly over the range of similarities
    among a seeded sample of 512 images, the lowest quarter left out; no image is the candidate, or the exemplar, of
    two."""
    ids = looks.image_ids
    described = [image for image in range(len(looks)) if looks.words[image]]
    drawn = sorted(sorted(described, key=lambda image: seeded_share(seed, "pair", ids[image]))[:_PAIRED])
    if len(drawn) < 2:
        return []
    rows = looks.embeddings[np.array(drawn, dtype=np.intp)].astype(np.float64)
    first, second = np.triu_indices(len(drawn), 1)
    similarity = np.round((rows @ rows.T)[first, second], 6)
    order = np.argsort(similarity, kind="stable")
    ranked = similarity[order]
    pairs: list[tuple[int, int, float]] = []
    groups: set[int] = set()
    candidates: set[int] = set()
    for target in np.linspace(ranked[int(_LOWEST_SHARE * len(ranked))], ranked[-1], count):
        start = int(np.searchsorted(ranked, target))
        for at in sorted(range(max(0, start - count), min(len(ranked), start + count)),
                         key=lambda k: (abs(ranked[k] - target), k)):  # fmt: skip
            one, other = drawn[first[order[at]]], drawn[second[order[at]]]
            if seeded_share(seed, "turn", ids[one], ids[other]) < 0.5:
                one, other = other, one
            if one not in groups and other not in candidates:
                groups.add(one)
                candidates.add(other)
                pairs.append((one, other, float(ranked[at])))
                break
    return pairs


def fit_edges(judged: Sequence[tuple[float, float]], known: EdgeScale) -> EdgeScale:
    """Platt scaling of similarities, (similarity, probability), at the maximum of the posterior.

    The prior is the model's own pair: log beta within .5 of its own, and the similarity of even odds, -b / beta, within
    .15 (normal). One pair in twenty may be an outlier, whose answer says nothing of its similarity: without that, a
    single far image of the same kind turns the slope.
    """
    if not judged:
        return known
    similarity, target = (np.array(column, dtype=np.float64) for column in zip(*judged, strict=True))
    middle = -known.offset / known.scale
    steps = np.linspace(-3.0, 3.0, _GRID)
    scales = known.scale * np.exp(_EDGE_SCALE_SD * steps)
    middles = middle + _EDGE_MIDDLE_SD * steps
    score = scales[:, None, None] * (similarity - middles[None, :, None])
    posterior = _log_likelihood(score, target) - (steps[:, None] ** 2 + steps[None, :] ** 2) / 2
    at, where = np.unravel_index(int(np.round(posterior, 9).argmax()), posterior.shape)
    scale = float(scales[at])
    return EdgeScale(round(scale, 6), round(-scale * float(middles[where]), 6))
