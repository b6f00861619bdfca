"""The method with one mechanism taken out, to see what the mechanism is worth.

`python -m bench.ablations --looks DIR [--images 1000] [--seeds 3] [--rows NAME ...] [--columns NAME ...]` prints a
Markdown table: a line per mechanism, a column per world, in each cell NMI, K and calls an image beside the look (means
over the seeds; each unassigned image a cluster of its own). Worlds: what real models said of real pictures
(`bench.replay`, a judge who knows the truth and errs four times in a hundred), with and without a writer, and two
scripted worlds (`bench.worlds`) without.

A mechanism is taken out by replacing a function or number of the product while the pipeline runs; the product has no
switch for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from bench.baselines import text_rows
from bench.worlds import WORLDS, Seen, ignore, see_replay, see_world
from manylens import settings
from manylens.method import check, sorting, walk
from manylens.method.check import Check
from manylens.method.graph import edge_weight
from manylens.method.likelihood import ChoiceModel, FloatArray, MemberModel, member_features
from manylens.method.observations import Looks
from manylens.method.questions import Steps
from manylens.method.sorting import Sorting
from manylens.method.trial import Trial
from manylens.models.base import Capabilities, Model
from manylens.pipeline import run as pipeline
from manylens.pipeline.run import edge_scale
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings
from manylens.types import Clustering

NO_INTEREST = "image"
"""What the model is asked to look for where the interest is taken out of the prompts."""

Swap = tuple[Any, str, Any]
"""(module or class, name in it, what stands there instead)."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """swaps: in force while the pipeline runs. looks: another H. interest: words to ask instead of the interest."""

    swaps: tuple[Swap, ...] = ()
    looks: Callable[[Looks], Looks] = lambda looks: looks
    interest: str | None = None


# What stands instead


def nothing_compared(self: Check, clusters: Sequence[int]) -> Steps[None]:
    yield from ()


def believed_untried(of: Check) -> Steps[Trial]:
    yield from ()
    return Trial()


def not_fitted(self: Any, *more: Any) -> Any:
    return self


_odds, _fitted, _found = ChoiceModel.odds, ChoiceModel.fitted, Check._found


def odds_without_category(self: ChoiceModel, similarity: FloatArray, same_category: FloatArray) -> FloatArray:
    return _odds(self, similarity, 0.0 * same_category)


def fitted_without_category(
    self: ChoiceModel, features: FloatArray, answers: FloatArray, shown: NDArray[np.bool_], misplaced: FloatArray
) -> ChoiceModel:
    return _fitted(self, features * np.array([1.0, 1.0, 0.0]), answers, shown, misplaced)


def features_without(column: int) -> Callable[..., FloatArray]:
    """Of the member model: 1 is the look's confidence, 2 the unit's size."""

    def features(*given: Any) -> FloatArray:
        found = member_features(*given)
        found[:, column] = 0.0
        return found

    return features


def probing_never_pays(*given: Any) -> tuple[tuple[bool, ...], ...]:
    return ((False,),)


def none_alone(self: Sorting) -> FloatArray:
    return np.zeros(len(self.units))


def nothing_sampled(self: Check) -> Steps[None]:
    yield from ()


def text_instead_of_state(looks: Looks) -> Looks:
    """H embeds the description's text, as character n-grams, instead of the model's hidden state."""
    return dataclasses.replace(looks, embeddings=text_rows(looks))


def _calls_per_picture(calls: float) -> Ablation:
    return Ablation(((settings, "CALLS_PER_PICTURE", {**settings.CALLS_PER_PICTURE, "normal": calls}),))


ABLATIONS: dict[str, Ablation] = {
    "whole method": Ablation(),
    "no walk (a description is a unit)": Ablation(((walk, "SURE_EDGE", 2.0),)),
    "clusters are not compared": Ablation(((Check, "compare", nothing_compared),)),
    "judge not tried": Ablation(((pipeline, "try_judge", believed_untried),)),
    "beta, b, kappa not fitted": Ablation(((Sorting, "fit", not_fitted),)),
    "no category term": Ablation(
        ((ChoiceModel, "odds", odds_without_category), (ChoiceModel, "fitted", fitted_without_category))
    ),
    "images alone of their words are believed": Ablation(((Sorting, "_shares_alone", none_alone),)),
    "members: no confidence": Ablation(((sorting, "member_features", features_without(1)),)),
    "members: no size": Ablation(((sorting, "member_features", features_without(2)),)),
    "members: prior only": Ablation(((MemberModel, "fitted", not_fitted),)),
    "no probing ahead (direct suspects only)": Ablation(((check, "pays_to_ask", probing_never_pays),)),
    "doubtful images not asked again": Ablation(((check, "_MOST_ASKED", 1),)),
    "no random sample": Ablation(((Check, "_sample", nothing_sampled),)),
    "unit strength 1": Ablation(((sorting, "UNIT_STRENGTH", 1.0),)),
    "unit strength 16": Ablation(((sorting, "UNIT_STRENGTH", 16.0),)),
    "a picture may cost 3 calls": _calls_per_picture(3.0),
    "a picture may cost 15 calls": _calls_per_picture(15.0),
}

OF_LOOKS: dict[str, Ablation] = {
    "no interest in the prompt": Ablation(interest=NO_INTEREST),
    "H from the description's text": Ablation(looks=text_instead_of_state),
}
"""What only a model that sees pictures can lose."""

_STAGES = ("whole method", "no walk (a description is a unit)", "clusters are not compared")
WITH_PICTURES = {name: ABLATIONS[name] for name in _STAGES} | OF_LOOKS
"""What `bench.compare` takes out, with a model that sees pictures."""


@contextlib.contextmanager
def without(ablation: Ablation) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for place, name, instead in ablation.swaps:
            stack.enter_context(mock.patch.object(place, name, instead))
        yield


async def run(model: Model, looks: Looks, ablation: Ablation, settings: Settings) -> Clustering:
    """Cluster as the pipeline does, with the ablation in force. looks: of the interest, or of `ablation.interest`."""
    with without(ablation):
        return await pipeline.cluster_looks(ablation.looks(looks), model, settings, ignore)


# Figure 5

DENSITIES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of pairs that are to be edges, for Figure 5."""


def tau_of_density(looks: Looks, known: Capabilities, density: float) -> float:
    """The tau above which this share of all pairs lies; a little above 0 where every pair is to be an edge."""
    edge = edge_scale(known)
    wide = looks.embeddings.astype(np.float64)
    pairs = np.triu_indices(len(looks), 1)
    weights = edge_weight((wide @ wide.T)[pairs], edge.scale, edge.offset)
    return float(np.clip(np.quantile(weights, 1 - density), 1e-12, 1 - 1e-12)) if density < 1 else 1e-12


# The table

COLUMNS = {
    "action, writer": ("action", True),
    "action": ("action", False),
    "stl10, writer": ("stl10", True),
    "stl10": ("stl10", False),
    "30 wordings": ("30 wordings", False),
    "12% wrong": ("12% wrong", False),
    "free prose, writer": ("free prose", True),
    "free prose": ("free prose", False),
}
"""Heading -> (set or world, whether the model writes)."""


def seen(heading: str, folder: Path, images: int, seeds: int) -> list[Seen]:
    name, writes = COLUMNS[heading]
    if name in WORLDS:
        return [see_world(WORLDS[name], images, seed, writes) for seed in range(1, seeds + 1)]
    return [see_replay(folder, name, images, seed, writes) for seed in range(1, seeds + 1)]


def measure(of: Seen, ablation: Ablation, seed: int) -> tuple[float, int, float]:
    """(NMI, K, calls an image beside the look)."""
    found = asyncio.run(run(of.model, of.looks, ablation, Settings(seed=seed)))
    scores = evaluate_labels(of.truth, [assignment.cluster for assignment in found.assignments])
    return scores.nmi, scores.clusters_found, found.calls.choose / len(of.looks)


def cell(of: Sequence[Seen], ablation: Ablation) -> str:
    runs = [measure(one, ablation, seed) for seed, one in enumerate(of, start=1)]
    nmi, k, calls = (statistics.fmean(values) for values in zip(*runs, strict=True))
    return f"{nmi:.3f}".lstrip("0") + f", {k:.1f}, {calls:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=Path, required=True, help="folder with action and stl10")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ABLATIONS, default=list(ABLATIONS))
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    options = parser.parse_args()
    given = {name: seen(name, options.looks, options.images, options.seeds) for name in options.columns}
    print(f"| taken out | {' | '.join(given)} |\n|{'---|' * (len(given) + 1)}")
    for name in options.rows:
        print(f"| {name} | {' | '.join(cell(of, ABLATIONS[name]) for of in given.values())} |", flush=True)


if __name__ == "__main__":
    main()
