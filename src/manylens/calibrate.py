"""Before the walks: how far the judge can be believed for this interest, from control questions.

In: looks. Out: a `Calibration` that turns the judge's probabilities into ones that mean what they say. Promise: pure;
no labels are used. Controls are images against the group of their own description (mostly yes) and against the group of
another one (mostly no). A judge who says yes to all, no to all, or anything to anything comes out near one half, so
the stages that weigh its answers fall back on descriptions; a good one is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from manylens.evidence import Ask, Looks, Profile, Question, Steps, draw_profile, seeded_share
from manylens.records import Settings

_FEWEST_IMAGES = 40
_FEWEST_IN_GROUP = 4
_FEWEST_CONTROLS = 6
_MOST_CONTROLS = 24
_IMAGES_PER_CONTROL = 20

_LABEL_ERROR = 0.02
"""Descriptions are wrong at times, so a control's expected answer is only this sure."""

_SCALE_SD, _OFFSET_SD = 1.0, 1.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """p -> sigmoid(scale * logit(p) + offset) (Platt). The identity where there was nothing to learn from."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def is_telling(self) -> bool:
        """Whether a sure yes and a sure no still mean different things: at least .6 apart."""
        return self.apply(0.95) - self.apply(0.05) >= 0.6

    def apply(self, probability: float) -> float:
        score = self.scale * _logit(probability) + self.offset
        return 1 / (1 + math.exp(-score))


def _logit(probability: float) -> float:
    p = min(max(probability, 0.01), 0.99)
    return math.log(p / (1 - p))


def calibrate_judge(looks: Looks, settings: Settings) -> Steps[Calibration]:
    """Put at most 24 controls of either kind, one per 20 images; identity where descriptions form no two groups."""
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
    drawn = sorted(eligible, key=lambda image: seeded_share(settings.seed, "control", looks.image_ids[image]))[:count]
    questions: list[Question] = []
    for image in drawn:
        own = looks.words[image]
        others = [words for words in names if words != own]
        other = others[int(seeded_share(settings.seed, "other", looks.image_ids[image]) * len(others))]
        questions += [Question(_without(profiles[words], image, settings), image) for words in (own, other)]
    answers = yield Ask(questions)
    answered = [(answer.probability, turn % 2 == 0) for turn, answer in enumerate(answers)]
    known = [(p, expected) for p, expected in answered if p is not None]
    if min(sum(expected for _, expected in known), sum(not expected for _, expected in known)) < _FEWEST_CONTROLS:
        return Calibration()
    return fit(known)


def _without(profile: Profile, image: int, settings: Settings) -> Profile:
    exemplars = tuple(exemplar for exemplar in profile.exemplars if exemplar != image)
    return replace(profile, exemplars=exemplars[: settings.exemplars])


def fit(controls: Sequence[tuple[float, bool]]) -> Calibration:
    """Platt scaling at the maximum of the posterior: (probability, expected yes); prior scale 1, offset 0.

    Newton's method, each step halved until the log-posterior rises: undamped, it runs away from a judge who says yes
    to everything.
    """
    features = np.array([(_logit(p), 1.0) for p, _ in controls])
    target = np.array([1 - _LABEL_ERROR if expected else _LABEL_ERROR for _, expected in controls])
    centre, precision = np.array([1.0, 0.0]), np.diag([_SCALE_SD**-2, _OFFSET_SD**-2])

    def log_posterior(weights: NDArray[np.float64]) -> float:
        score = features @ weights
        likelihood = target @ score - np.logaddexp(0, score).sum()
        return float(likelihood - (weights - centre) @ precision @ (weights - centre) / 2)

    weights = centre.copy()
    for _ in range(50):
        p = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (target - p) - precision @ (weights - centre)
        curvature = (features * (p * (1 - p))[:, None]).T @ features + precision
        step = np.linalg.solve(curvature, gradient)
        while np.abs(step).max() > 1e-9 and log_posterior(weights + step) < log_posterior(weights):
            step = step / 2
        weights = weights + step
    # A judge who is wrong more often than right is not turned round: it is not understood.
    return Calibration(round(max(float(weights[0]), 0.0), 6), round(float(weights[1]), 6))
