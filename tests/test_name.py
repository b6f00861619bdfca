import asyncio
import json

import pytest
from by_hand import looks_of

from manylens.evidence import Draft, Looks, Standing, draw_profile
from manylens.models.base import CompleteRequest
from manylens.name import assign, define, name_clusters, parse_names
from manylens.records import Cluster, Settings


def drafts_of(*groups: list[int]) -> list[Draft]:
    return [Draft(frozenset({group[0]}), {image: Standing("seed") for image in group}) for group in groups]


def names(looks: Looks, drafts: list[Draft], reply: str | None = None) -> list[Cluster]:
    async def complete(request: CompleteRequest) -> str | None:
        names.requests.append(request)  # type: ignore[attr-defined]
        return reply

    names.requests = []  # type: ignore[attr-defined]
    return asyncio.run(name_clusters(looks, drafts, Settings(), None if reply is None else complete))


def test_a_cluster_is_named_by_its_majority_description_as_written() -> None:
    looks = looks_of(["Hearts.", "Hearts", "hearts", "spades"])
    (cluster,) = names(looks, drafts_of([0, 1, 2, 3]))
    assert (cluster.id, cluster.name, cluster.size) == (1, "Hearts", 4)
    assert cluster.exemplars == ("000", "001", "002", "003")


def test_siblings_are_told_apart_by_words_and_as_a_last_resort_by_a_number() -> None:
    looks = looks_of(["hearts", "hearts", "hearts", "hearts", "pale", "hearts", "hearts"])
    found = [cluster.name for cluster in names(looks, drafts_of([0, 1], [2, 3, 4], [5], [6]))]
    assert found == ["hearts", "hearts, pale", "hearts (2)", "hearts (3)"]


def test_undescribed_clusters_get_distinct_names_too() -> None:
    found = [cluster.name for cluster in names(looks_of(["", ""]), drafts_of([0], [1]))]
    assert found == ["not described", "not described (2)"]


@pytest.mark.parametrize(
    ("descriptions", "definition"),
    [
        (["red"] * 9 + ["blue"], 'Images described as "red" when looked at for "suit" (90% of the members).'),
        (
            ["red"] * 6 + ["blue"] * 3 + ["green"],
            'Mostly images described as "red" (60% of the members), also as "blue", "green", '
            'when looked at for "suit".',
        ),
        (
            ["red", "red", "blue", "green", "pink"],
            'A mixed group: images described as "red" (40% of the members), also as "blue", "green", '
            'when looked at for "suit".',
        ),
    ],
)
def test_a_definition_says_what_share_it_fits_and_hedges(descriptions: list[str], definition: str) -> None:
    looks = looks_of(descriptions)
    (draft,) = drafts_of(list(range(len(descriptions))))
    assert define(looks, draft, draw_profile(looks, draft.members, 3)) == definition


def test_a_valid_reply_of_the_model_names_the_clusters() -> None:
    looks = looks_of(["red", "red", "blue"])
    reply = {
        "clusters": [
            {"id": 2, "name": "Sea", "definition": "Blue ones."},
            {"id": 1, "name": "Fire", "definition": "Red ones."},
        ]
    }
    found = names(looks, drafts_of([0, 1], [2]), "```json\n" + json.dumps(reply) + "\n```")
    assert [(cluster.name, cluster.definition) for cluster in found] == [("Fire", "Red ones."), ("Sea", "Blue ones.")]
    (request,) = names.requests  # type: ignore[attr-defined]
    assert request.task == "name_clusters"
    assert json.loads(request.payload)["clusters"][0] == {"id": 1, "size": 2, "descriptions": {"red": 2}}


def test_a_definition_that_fits_few_of_the_members_says_so() -> None:
    looks = looks_of(["red", "red", "blue", "green"])
    reply = json.dumps({"clusters": [{"id": 1, "name": "Fire", "definition": "All of them red."}]})
    (cluster,) = names(looks, drafts_of([0, 1, 2, 3]), reply)
    assert cluster.definition == "All of them red (the descriptions of 50% of the members say so)."


@pytest.mark.parametrize(
    "reply",
    [
        "Sure! Here are your names.",
        "[]",
        "{}",
        '{"clusters": 3}',
        '{"clusters": [{"id": 1, "name": "Fire", "definition": "Red."}]}',
        '{"clusters": [{"id": 1, "name": "Fire", "definition": "Red."}, {"id": 1, "name": "Sea", "definition": "B."}]}',
        '{"clusters": [{"id": 1, "name": "Fire", "definition": "Red."}, {"id": 3, "name": "Sea", "definition": "B."}]}',
        '{"clusters": [{"id": 1, "name": "Fire", "definition": "Red."}, {"id": 2, "name": "fire", "definition": "B"}]}',
        '{"clusters": [{"id": 1, "name": "", "definition": "Red."}, {"id": 2, "name": "Sea", "definition": "B."}]}',
        '{"clusters": [{"id": 1, "name": "Fire", "definition": null}, {"id": 2, "name": "Sea", "definition": "B."}]}',
        '{"clusters": [{"id": 1, "name": "'
        + "x" * 61
        + '", "definition": "R"}, {"id": 2, "name": "S", "definition": "B"}]}',
    ],
)
def test_an_invalid_reply_leaves_the_descriptions_names(reply: str) -> None:
    assert parse_names(reply, [1, 2]) is None
    found = names(looks_of(["red", "red", "blue"]), drafts_of([0, 1], [2]), reply)
    assert [cluster.name for cluster in found] == ["red", "blue"]


def test_confidence_follows_its_formula_and_the_reason_its_evidence() -> None:
    looks = looks_of(["hearts", "hearts", "spades", "joker"], confidences=[1.0, 0.8, 0.5, 0.9])
    draft = Draft(
        frozenset({0}),
        {0: Standing("seed"), 1: Standing("judge", 0.97, "a red heart"), 2: Standing("second look", 0.9)},
    )
    first, second, third, fourth = assign(looks, [draft], [3], 0.95)
    assert first.confidence == pytest.approx(0.4 * 0.95 + 0.3 + 0.3, abs=1e-4)
    assert second.confidence == pytest.approx(0.4 * 0.97 + 0.3 + 0.3 * 0.8, abs=1e-4)
    assert third.confidence == pytest.approx(0.4 * 0.9 + 0.0 + 0.3 * 0.5, abs=1e-4)
    assert second.reason == 'described as "hearts"; accepted by judgement (yes at 0.97): a red heart'
    assert third.reason == 'described as "spades"; moved by a second look (yes at 0.90)'
    assert (fourth.cluster, fourth.confidence, fourth.decided_by) == (None, 0.0, "")
    assert fourth.reason == 'described as "joker"; no cluster fits it well enough'
