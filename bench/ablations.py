"""The method with one part taken out, to see what the part is worth.

In: looks, a metered model, settings. Out: a `Clustering`. Where a part is a setting, the setting is turned; where it
is not, the stage is replaced while the pipeline runs (`_without`), which the tests check to have an effect.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from bench.baselines import text_rows
from bench.workbench import Metered, ignore
from manylens import pipeline
from manylens.evidence import Draft, Looks, Question, Standing, Steps
from manylens.graph import DEFAULT_EDGE_OFFSET, DEFAULT_EDGE_SCALE, edge_weight
from manylens.models.base import Capabilities
from manylens.records import Clustering, Event, Settings, StageFinished, StageStarted
from manylens.walk import Surroundings, Walked

NO_INTEREST = "image"
"""What the model is asked to look for where the interest is taken out of the prompts."""

Change = Callable[[Settings, int], Settings]
"""(settings, images) -> settings."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """change: of the settings. swap: stage functions of the pipeline to replace, by name. looks: another H.
    interest: words to ask instead of the interest."""

    change: Change = lambda settings, images: settings
    swap: tuple[tuple[str, Callable[..., Any]], ...] = ()
    looks: Callable[[Looks], Looks] = lambda looks: looks
    interest: str | None = None


def turned(settings: Settings, **values: Any) -> Settings:
    """The settings with these values; a setting that this version does not have needs no turning."""
    known = {field.name for field in dataclasses.fields(settings)}
    return dataclasses.replace(settings, **{name: value for name, value in values.items() if name in known})


_EVERY_CANDIDATE = {"audit_share": 1.0, "judgements_per_image": None}


def all_pairs(settings: Settings, images: int) -> Settings:
    """No graph: every pair is an edge, in one component."""
    return turned(settings, tau=1e-12, neighbors=max(1, images - 1))


def plain_walk(settings: Settings, images: int) -> Settings:
    """The paper's walk without what this project adds: every candidate is asked, one answer decides a merge, leftovers
    are not offered to other components, nobody looks twice."""
    return turned(
        settings, **_EVERY_CANDIDATE, second_looks=0.0, small_cluster=0, merge_answers=1, edge_questions=0, audits=0
    )


def ask_every_candidate(settings: Settings, images: int) -> Settings:
    """No audited trust, the rest as it is."""
    return turned(settings, **_EVERY_CANDIDATE)


def nobody_is_a_stranger(looks: Looks, question: Question) -> bool:
    """Every question is put, whatever the judge may know of it."""
    return False


def namesakes_stay(looks: Looks, drafts: Sequence[Draft]) -> list[Draft]:
    """Clusters of one description stay apart where the merge left them so."""
    return list(drafts)


def component_is_cluster(around: Surroundings, nodes: Sequence[int], settings: Settings, *more: Any) -> Steps[Walked]:
    """No walk: what hangs together in the graph is one cluster."""
    yield from ()
    seed = max(nodes, key=lambda node: (around.degrees[node], -node))
    members = {node: Standing("seed" if node == seed else "trust") for node in nodes}
    return Walked(drafts=[Draft(frozenset({seed}), members)])


def nothing_merged(looks: Looks, drafts: Sequence[Draft], settings: Settings, *more: Any) -> Steps[list[Draft]]:
    """No merge: clusters stay as the walks left them."""
    yield from ()
    return list(drafts)


def text_instead_of_state(looks: Looks) -> Looks:
    """H embeds the description's text instead of the model's hidden state."""
    return dataclasses.replace(looks, embeddings=text_rows(looks))


ABLATIONS: dict[str, Ablation] = {
    "whole method": Ablation(),
    "no interest in the prompt": Ablation(interest=NO_INTEREST),
    "no graph (all pairs)": Ablation(change=all_pairs),
    "no walk (components are clusters)": Ablation(swap=(("walk_component", component_is_cluster),)),
    "no merge": Ablation(swap=(("merge_clusters", nothing_merged),)),
    "no audited trust": Ablation(change=ask_every_candidate),
    "H from the description's text": Ablation(looks=text_instead_of_state),
}
PLAIN_WALK = Ablation(
    change=plain_walk, swap=(("is_stranger", nobody_is_a_stranger), ("join_namesakes", namesakes_stay))
)


async def run(
    model: Metered,
    looks: Looks,
    ablation: Ablation,
    settings: Settings,
    on_event: Callable[[Event], None] = ignore,
) -> Clustering:
    """Cluster as the pipeline does, with the ablation in force. looks: of the interest, or of `ablation.interest`."""
    with _without(ablation.swap):
        changed = ablation.change(settings, len(looks))
        return await pipeline.cluster_looks(ablation.looks(looks), model, changed, on_event)


@dataclass(slots=True)
class WalkSteps:
    """Counts the candidates that the walk asked about, from the stages' events."""

    model: Metered
    steps: int = 0

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted(stage="walk"):
                self.steps -= self.model.judged
            case StageFinished(stage="walk"):
                self.steps += self.model.judged


DENSITIES = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Shares of pairs that are to be edges, for Figure 5."""


def tau_of_density(looks: Looks, known: Capabilities, density: float) -> float:
    """The tau above which this share of all pairs lies; a little above 0 where every pair is to be an edge."""
    scale = DEFAULT_EDGE_SCALE if known.edge_scale is None else known.edge_scale
    offset = DEFAULT_EDGE_OFFSET if known.edge_offset is None else known.edge_offset
    wide = looks.embeddings.astype(np.float64)
    pairs = np.triu_indices(len(looks), 1)
    weights = edge_weight((wide @ wide.T)[pairs], scale, offset)
    return float(np.clip(np.quantile(weights, 1 - density), 1e-12, 1 - 1e-12)) if density < 1 else 1e-12


def with_tau(tau: float) -> Ablation:
    """tau alone decides the graph's density (no limit of neighbours), and every candidate is asked: Figure 5."""

    def change(settings: Settings, images: int) -> Settings:
        return turned(settings, **_EVERY_CANDIDATE, tau=tau, neighbors=max(1, images - 1), edge_questions=0)

    return Ablation(change=change)


@contextlib.contextmanager
def _without(swap: Sequence[tuple[str, Callable[..., Any]]]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, replacement in swap:
            stack.enter_context(mock.patch.object(pipeline, name, replacement))
        yield
