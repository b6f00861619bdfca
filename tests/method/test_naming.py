import json
from collections.abc import Sequence
from typing import Any

import pytest
from answerers import FAILED, Judge, drive, looks_of, write_with
from hypothesis import given, settings
from hypothesis import strategies as st
from replies import payload_of, written_of

from manylens.method.levels import Group
from manylens.method.naming import (
    CLUSTERS_PER_CALL,
    Named,
    define,
    name_by_descriptions,
    name_groups,
    usable_names,
)
from manylens.method.observations import Looks, normalise_description
from manylens.method.questions import Question
from manylens.writing import WritingTask


def grouped(*groups: Sequence[str]) -> tuple[Looks, list[Group]]:
    """Looks with these descriptions, and a group of each list of them."""
    said = [words for group in groups for words in group]
    looks = looks_of(said, [[1.0, 0.0]] * len(said))  # type: ignore[arg-type]
    found, at = [], 0
    for number, group in enumerate(groups):
        found.append(Group(number, tuple(range(at, at + len(group)))))
        at += len(group)
    return looks, found


def names(looks: Looks, groups: Sequence[Group], hints: Sequence[str] = ()) -> list[str]:
    return [label.name for label in name_by_descriptions(looks, groups, list(hints) or [""] * len(groups))]


words = st.sampled_from(["Hearts", "a heart", "heart.", "spade", "pale", "hearts, pale", "heart (2)", "", "heart (3)"])


@given(
    st.lists(st.lists(words, min_size=1, max_size=5), min_size=1, max_size=8), st.lists(words, min_size=8, max_size=8)
)
@settings(deadline=None)
def test_no_two_clusters_have_names_that_compare_equal(drawn: list[list[str]], hints: list[str]) -> None:
    looks, groups = grouped(*drawn)
    for given_hints in ([""] * len(groups), hints[: len(groups)]):
        found = [normalise_description(name) for name in names(looks, groups, given_hints)]
        assert len(set(found)) == len(found)


def test_a_cluster_is_named_by_its_most_frequent_description() -> None:
    assert names(*grouped(["Hearts", "hearts", "hearts", "spade"], ["", ""], ["b", "c", "c", "b"])) == [
        "hearts",
        "not described",
        "b",
    ]


def test_a_hint_is_kept_as_it_is() -> None:
    assert names(*grouped(["heart"], ["spade"]), hints=["", "The Black Ones!"]) == ["heart", "The Black Ones!"]


def test_siblings_of_one_description_are_told_apart_by_the_next_one_or_a_number() -> None:
    found = names(*grouped(["heart"] * 3, ["heart", "heart", "Pale"], ["heart"], ["heart"], ["heart", "heart", "pale"]))
    assert found == ["heart", "heart, Pale", "heart (2)", "heart (3)", "heart (4)"]


def test_an_undescribed_sibling_gets_a_number() -> None:
    assert names(*grouped([""], [""])) == ["not described", "not described (2)"]


def test_the_sixth_description_names_nothing() -> None:
    others = [["a1", "a1", *[text for _ in range(2) for text in pair]] for pair in ("b", "c", "d", "e")]
    looks, groups = grouped(["a1"], *others, ["a1"] * 3 + ["b", "c", "d", "e"] * 2 + ["f"])
    assert names(looks, groups)[-1] == "a1 (2)"
    assert names(looks, groups)[1:-1] == ["a1, b", "a1, c", "a1, d", "a1, e"]


def test_a_definition_says_how_many_members_it_fits() -> None:
    looks, groups = grouped(
        ["red"] * 4 + ["pink"], ["red"] * 3 + ["pink", "rose", "rose", "wine", "rust", "", "tan"], [""]
    )
    assert define(looks, groups[0]) == 'Images described as "red" when looked at for "suit" (80% of the members).'
    assert (
        define(looks, groups[1])
        == 'Images described as "red" (30% of the members), "rose", "pink", "rust", when looked at for "suit".'
    )
    assert (
        define(looks, groups[2])
        == 'Images that belong together when looked at for "suit"; the model gave no description.'
    )


def writer(**changes: Any) -> Judge:
    def reply(question: WritingTask) -> str:
        asked = payload_of(question)["clusters"]
        return json.dumps(
            {
                "clusters": [
                    {
                        "id": c["id"],
                        "name": changes.get(f"n{c['id']}", f"the  kind {c['id']}"),
                        "definition": " Some\nkind. ",
                    }
                    for c in asked
                ]
            }
        )

    return write_with(reply)


def run(looks: Looks, groups: Sequence[Group], judge: Judge, hints: Sequence[str] = ()) -> list[Named]:
    return drive(name_groups(looks, groups, list(hints) or [""] * len(groups), True), judge)


def test_a_writers_names_and_definitions_are_used_with_folded_space() -> None:
    found = run(*grouped(["heart"], ["spade"]), writer())
    assert found == [Named("the kind 1", "Some kind."), Named("the kind 2", "Some kind.")]


def test_a_model_that_does_not_write_is_not_asked() -> None:
    looks, groups = grouped(["heart"])
    rounds: list[list[Question]] = []
    drive(name_groups(looks, groups, [""], False), lambda _: FAILED, rounds)
    assert rounds == []


def test_a_call_that_fails_leaves_the_descriptions_names() -> None:
    looks, groups = grouped(["heart"], ["spade"])
    assert run(looks, groups, lambda _: FAILED) == name_by_descriptions(looks, groups, ["", ""])


def test_a_name_that_a_sibling_of_another_call_has_is_not_taken() -> None:
    """The 41st cluster is named in the second call, like the first cluster of the first."""
    looks, groups = grouped(*([f"w{k}"] for k in range(CLUSTERS_PER_CALL + 2)))
    rounds: list[list[Question]] = []
    steps = name_groups(looks, groups, [""] * len(groups), True)
    found = drive(steps, writer(n41="The Kind 1", n42="w0"), rounds)
    assert [len(questions) for questions in rounds] == [1, 1]
    payloads = [payload_of(q) for questions in rounds for q in questions]
    assert [len(payload["clusters"]) for payload in payloads] == [40, 2]
    assert payloads[0]["taken"] == [] and payloads[1]["taken"] == [f"the kind {k}" for k in range(1, 41)]
    assert found[40].name == "w40", "taken: it keeps its description's name"
    assert found[41].name == "w0", "free again, as the first cluster has another name by now"


def test_a_name_that_a_later_sibling_has_by_its_description_is_not_taken() -> None:
    looks, groups = grouped(*([f"w{k}"] for k in range(CLUSTERS_PER_CALL + 1)))
    found = run(looks, groups, writer(n1="w40", n41="w40"))
    assert found[0].name == "w0" and found[40].name == "w40"


def test_a_cluster_may_keep_the_name_it_has() -> None:
    found = run(*grouped(["heart"], ["spade"]), writer(n1="Hearts"))
    assert found[0] == Named("Hearts", "Some kind.")


def shown_to_writer(looks: Looks, groups: Sequence[Group]) -> Any:
    rounds: list[list[Question]] = []
    drive(name_groups(looks, groups, [""] * len(groups), True), lambda _: FAILED, rounds)
    ((question,),) = rounds
    return payload_of(question)


def test_the_writer_is_shown_what_a_cluster_has_and_its_siblings_lack() -> None:
    looks, groups = grouped(["red"] * 5 + ["rose"] * 2, ["red"] * 4 + ["Wine"] * 3, ["red"])
    payload = shown_to_writer(looks, groups)
    assert payload["interest"] == "suit" and payload["taken"] == []
    assert payload["clusters"][:2] == [
        {"id": 1, "size": 7, "descriptions": {"rose": 2, "red": 5}},
        {"id": 2, "size": 7, "descriptions": {"Wine": 3, "red": 4}},
    ]
    assert list(payload["clusters"][0]["descriptions"]) == ["rose", "red"]
    assert list(payload["clusters"][1]["descriptions"]) == ["Wine", "red"]


def test_the_writer_is_shown_at_most_eight_descriptions_ties_by_alphabet() -> None:
    looks, groups = grouped([f"w{k:02d}" for k in range(20, 0, -1)], ["é"])
    shown = shown_to_writer(looks, groups)["clusters"]
    assert list(shown[0]["descriptions"]) == [f"w{k:02d}" for k in range(1, 9)]
    assert list(shown[1]["descriptions"]) == ["é"]


GOOD = {"clusters": [{"id": 1, "name": "A", "definition": "a"}, {"id": 2, "name": "B", "definition": "b"}]}


def changed(at: int, **changes: Any) -> str:
    clusters = [dict(entry) for entry in GOOD["clusters"]]
    clusters[at].update(changes)
    return json.dumps({"clusters": clusters})


@pytest.mark.parametrize("wrap", ["{}", "```json\n{}\n```", "\n  {}  \n", "```\n{}```"])
def test_a_complete_reply_is_read_with_or_without_a_fence(wrap: str) -> None:
    text = wrap.replace("{}", json.dumps(GOOD))
    assert usable_names(written_of(text), [1, 2]) == {1: Named("A", "a"), 2: Named("B", "b")}


def test_a_name_has_up_to_sixty_characters() -> None:
    assert usable_names(written_of(changed(0, name="x" * 60)), [1, 2]) is not None
    assert usable_names(written_of(changed(0, name="x" * 61)), [1, 2]) is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no",
        "[]",
        "{}",
        "3",
        "[" * 100_000,
        json.dumps({"clusters": 3}),
        json.dumps({"clusters": [1, 2]}),
        json.dumps({"clusters": GOOD["clusters"][:1]}),
        json.dumps({"clusters": [*GOOD["clusters"], {"id": 3, "name": "C", "definition": "c"}]}),
        json.dumps({"clusters": [*GOOD["clusters"], GOOD["clusters"][0]]}),
        changed(1, id=1),
        changed(1, id="2"),
        changed(1, id=[2]),
        json.dumps({"clusters": [{**GOOD["clusters"][0], "name": "Red"}, {**GOOD["clusters"][1], "name": "a red."}]}),
        changed(1, name=" "),
        changed(1, name=None),
        changed(1, name=5),
        changed(1, definition=""),
        changed(1, definition=None),
        json.dumps({"clusters": [{"id": 1, "name": "A"}, GOOD["clusters"][1]]}),
    ],
)
def test_an_incomplete_or_ambiguous_reply_is_none(text: str | None) -> None:
    assert usable_names(written_of(text), [1, 2]) is None
