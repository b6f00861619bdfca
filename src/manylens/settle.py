"""Between the stages: offers to leftovers, and which clusters stand.

In: drafts. Out: drafts over the same images. Promise: pure (rounds of questions out, answers in). No image is placed
where it was not judged to belong, except with the cluster of its own description: where nobody answers, where nearly
all of a sample of such offers was accepted, and where the judge could not tell the two clusters apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manylens.evidence import (
    WELL_DESCRIBED,
    Answer,
    Ask,
    Draft,
    EdgeScale,
    Looks,
    Question,
    Standing,
    Steps,
    belonging,
    draw_profile,
    prefer_own_kind,
    seeded_share,
)
from manylens.records import Settings
from manylens.targets import Refusals, Targets

_OFFERS = 3
"""An image that belongs nowhere is refused by at most this many clusters."""

_PRECEDENTS = 12
_CONSISTENT_SHARE = 0.9
"""So many answers about images offered to the cluster of their own description, nine in ten of them yes, decide the
rest of that round."""

_ERROR_SHARE = 0.1
"""Below this share of a sibling of the same description, a cluster is what errors of look and judge leave over."""

_BEST = Answer(0.95)
"""The most that one answer can say: it is taken to be wrong at least once in 20."""


def offer_leftovers(
    looks: Looks, drafts: Sequence[Draft], refusals: Refusals, settings: Settings, edge: EdgeScale | None = None
) -> Steps[list[Draft]]:
    """Offer every image of a cluster of at most `small_cluster` images to its nearest large clusters of any component.

    Clusters that refused an image before do not meet it again; new refusals are added to `refusals`. A refused image
    stays in its small cluster. The first offers of all images are one round, then the second, ...

    Of the images offered to the cluster of their own description, a seeded sample is asked; where nearly all of it is
    accepted, so are the others, unasked but for audits.

    `edge` gives the log-odds that similarity alone speaks for an offer. Offers no yes could make probable are not put:
    in a collection of many small kinds an image resembles no large cluster, and one wrong yes in three would lose it.
    """
    numbers = [number for number, draft in enumerate(drafts) if draft.size > settings.small_cluster]
    if not numbers:
        return list(drafts)
    targets = Targets(looks, drafts, numbers, settings)
    result = [Draft(draft.keys, dict(draft.members)) for draft in drafts]
    home = {
        image: number
        for number, draft in enumerate(drafts)
        if draft.size <= settings.small_cluster
        for image in draft.members
    }
    named = {profile.words for profile in targets.profiles.values()}
    choices: dict[int, list[int]] = {}
    for image in sorted(home):
        draft = drafts[home[image]]
        # Images that agree on a description no large cluster has may be a small kind: one offer each, and the merge
        # tests them together. Three offers each would break up true kinds by false yeses.
        kinds = {looks.words[i] for i in draft.members}
        agreed = draft.size > 1 and len(kinds) == 1 and not kinds & named
        offers = 1 if agreed else _OFFERS
        barred = refusals.keys.get(image, set())
        willing = [number for number in targets.nearest(image) if not barred & drafts[number].keys]
        willing = willing[: max(0, offers - refusals.offers.get(image, 0))]
        choices[image] = [
            number
            for number in willing
            if belonging(looks, targets.profiles[number], image, _BEST) + targets.close(image, number, edge) > 0
        ]
    offered = _Offered(targets, drafts, result, home, refusals, edge, settings.exemplars)
    for turn in range(_OFFERS):
        puts = [(image, choices[image][turn]) for image in sorted(home) if turn < len(choices[image])]
        if not puts:
            break
        kin = [put for put in puts if offered.is_kin(*put)] if turn == 0 else []
        rest = set(_drawn(looks, kin, settings)[_PRECEDENTS:])
        answers = yield from offered.put([put for put in puts if put not in rest])
        said = [answers[image] for image, number in kin if image in answers]
        if (
            settings.trust_weight < 1
            and len(said) >= _PRECEDENTS
            and sum(said) >= max(_CONSISTENT_SHARE, settings.trust_weight) * len(said)
        ):
            # The sample that granted the trust cannot audit it: it was lucky more often than not.
            audited = {put for put in rest if _is_audited(looks, put[0], settings)}
            answers = yield from offered.put(sorted(audited))
            offered.trust(sorted(rest - audited), list(answers.values()))
        else:
            yield from offered.put(sorted(rest))
    return [draft for draft in result if draft.members]


def _drawn(looks: Looks, puts: Sequence[tuple[int, int]], settings: Settings) -> list[tuple[int, int]]:
    ids = looks.image_ids
    return sorted(puts, key=lambda put: (seeded_share(settings.seed, "offer", ids[put[0]]), put))


def _is_audited(looks: Looks, image: int, settings: Settings) -> bool:
    share = seeded_share(settings.seed, "offer's audit", looks.image_ids[image])
    return share < settings.share_audited(len(looks))


@dataclass(slots=True)
class _Offered:
    """Puts offers and does what the answers say: moves the image from its home, or notes who refused it."""

    targets: Targets
    drafts: Sequence[Draft]
    result: list[Draft]
    home: dict[int, int]
    refusals: Refusals
    edge: EdgeScale | None
    exemplars: int

    def is_kin(self, image: int, number: int) -> bool:
        words = self.targets.looks.words[image]
        return bool(words) and words == self.targets.profiles[number].words

    def put(self, puts: Sequence[tuple[int, int]]) -> Steps[dict[int, bool]]:
        """image -> whether it was accepted, of those that were answered."""
        if not puts:
            return {}
        said: dict[int, bool] = {}
        questions = [Question(self.targets.profiles[number], image) for image, number in puts]
        answers = yield Ask(questions)
        answered = list(zip(questions, answers, strict=True))
        staying = yield from prefer_own_kind(self.targets.looks, answered, self.exemplars)
        for (image, number), answer in zip(puts, answers, strict=True):
            told = belonging(self.targets.looks, self.targets.profiles[number], image, answer)
            accepted = told + self.targets.close(image, number, self.edge) > 0 and image not in staying
            if answer.probability is not None:
                said[image] = accepted
            if accepted or (answer.spent and self.is_kin(image, number)):
                self._move(image, number, Standing("offer", answer.probability, answer.reason))
            else:
                keys = self.drafts[number].keys if answer.probability is not None else frozenset()
                self.refusals.add(image, keys)
        return said

    def trust(self, puts: Sequence[tuple[int, int]], said: Sequence[bool]) -> None:
        """Take up unasked; `said` are the audits."""
        for image, number in puts:
            self._move(image, number, Standing("offer"))
        self.refusals.trusted += len(puts)
        self.refusals.audits += [(len(said), len(said) - sum(said))] if said else []

    def _move(self, image: int, number: int, standing: Standing) -> None:
        del self.result[self.home.pop(image)].members[image]
        self.result[number].members[image] = standing


def dissolve_leftovers(looks: Looks, drafts: Sequence[Draft], settings: Settings) -> tuple[list[Draft], list[int]]:
    """Small clusters stand only where their members agree; the others' images are unassigned, never in an invented
    cluster. Members agree where at least two share the description or were judged to belong. A small cluster under the
    description of a much larger one, which refused it, is a doubt about its images and no kind of its own."""
    words = [draw_profile(looks, draft.members, 1).words for draft in drafts]
    largest: dict[str, int] = {}
    for said, draft in zip(words, drafts, strict=True):
        largest[said] = max(largest.get(said, 0), draft.size)
    standing: list[Draft] = []
    unassigned: list[int] = []
    for said, draft in zip(words, drafts, strict=True):
        sibling = largest[said] if said and largest[said] > max(draft.size, settings.small_cluster) else 0
        if sibling and draft.size <= max(settings.small_cluster, _ERROR_SHARE * sibling):
            agreeing: dict[int, Standing] = {}
        elif draft.size > settings.small_cluster:
            agreeing = draft.members
        else:
            agreeing = {
                image: how
                for image, how in draft.members.items()
                if (said and looks.words[image] == said) or (how.probability or 0.0) >= 0.5
            }
        if len(agreeing) >= 2:
            standing.append(Draft(draft.keys, agreeing))
        unassigned += [image for image in draft.members if len(agreeing) < 2 or image not in agreeing]
    return standing, sorted(unassigned)


def join_namesakes(looks: Looks, drafts: Sequence[Draft]) -> list[Draft]:
    """Join clusters of one description that at least `WELL_DESCRIBED` of each one's members have.

    For a judge who goes by name and definition alone: such clusters are one question to it, so what it refused was no
    other kind, and a person would be shown "sad", "sad (2)" and "sad (3)" with one definition.
    """
    result: list[Draft] = []
    first: dict[str, Draft] = {}
    for draft in drafts:
        profile = draw_profile(looks, draft.members, 1)
        if profile.words in first and profile.share >= WELL_DESCRIBED:
            namesake = first[profile.words]
            namesake.keys |= draft.keys
            namesake.members.update(draft.members)
            continue
        result.append(Draft(draft.keys, dict(draft.members)))
        if profile.words and profile.share >= WELL_DESCRIBED:
            first[profile.words] = result[-1]
    return result
