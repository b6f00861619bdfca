import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from answerers import FAILED, begin, drive, looks_of, write_with
from hypothesis import given, settings
from hypothesis import strategies as st
from replies import payload_of, written_of

from manylens.method.observations import Looks
from manylens.method.questions import Answer, Choice, Question
from manylens.method.vocabulary import (
    BATCH,
    NO_ANSWERS,
    Vocabulary,
    finer_kinds,
    make_vocabulary,
    name_parents,
    without_writer,
)
from manylens.writing import WritingTask

Reply = Callable[[WritingTask], str | None]


def looks_with(words: Sequence[str]) -> Looks:
    return looks_of(words, [[1.0, 0.0]] * len(words))  # type: ignore[arg-type]


def by_letter(question: WritingTask) -> str:
    """A writer who sorts by first letter; "?" begins what does not answer. It leaves categories as they are."""
    asked = payload_of(question)
    if question.name == "reconcile":
        return json.dumps({"groups": [{"name": c["name"], "ids": [c["id"]]} for c in asked["categories"]]})
    found: dict[str, list[int]] = {}
    for number, text in enumerate(asked["descriptions"], start=1):
        found.setdefault(text[0].upper(), []).append(number)
    silent = found.pop("?", [])
    return json.dumps({"categories": [{"name": n, "descriptions": d} for n, d in found.items()], "no_answer": silent})


def tampered(change: Callable[[dict[str, Any]], Any]) -> Reply:
    def reply(question: WritingTask) -> str:
        values = json.loads(by_letter(question))
        if question.name == "vocabulary":
            values = change(values) or values
        return json.dumps(values)

    return reply


def made(words: Sequence[str], reply: Reply, level: str = "medium", closed: Sequence[str] = ()) -> Vocabulary:
    return drive(make_vocabulary(looks_with(words), level, closed), write_with(reply))


WORDS = ["apple", "apricot", "banana", "blueberry", "cherry", "?hidden"]


def test_descriptions_are_grouped_as_the_writer_says() -> None:
    found = made(WORDS, by_letter)
    assert found.category == {"apple": "A", "apricot": "A", "banana": "B", "blueberry": "B", "cherry": "C"}
    assert found.no_answer == {"hidden"}
    assert found.calls == 2 and not found.is_empty


def lose(values: dict[str, Any]) -> None:
    for category in values["categories"]:
        category["descriptions"] = category["descriptions"][1:]


def invent(values: dict[str, Any]) -> None:
    values["categories"].append({"name": "ghost", "descriptions": [0, -1, 77, 10**9]})
    values["no_answer"] += [0, 99]


def repeat(values: dict[str, Any]) -> None:
    values["categories"] += [{"name": "late", "descriptions": c["descriptions"]} for c in values["categories"]]
    values["no_answer"] += [1, 2, 3]


def misname(values: dict[str, Any]) -> None:
    for name in (None, 7, "", "  ", ["a"]):
        values["categories"].append({"name": name, "descriptions": [1]})
    values["categories"] += [None, 3, "x", {"descriptions": [1]}, {"name": "no list"}, {"name": "n", "descriptions": 5}]
    values["categories"][0]["descriptions"] += ["1", None, 2.5, [3]]


@pytest.mark.parametrize("fault", [lose, invent, repeat, misname, lambda values: [values], lambda values: {"x": 1}])
@given(words=st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=40, unique=True))
@settings(max_examples=20, deadline=None)
def test_whatever_the_writer_does_every_description_is_accounted_for(
    fault: Callable[..., Any], words: list[str]
) -> None:
    looks = looks_with(words)
    found = drive(make_vocabulary(looks, "medium"), write_with(tampered(fault)))
    if not found.is_empty:
        assert set(found.category) | found.no_answer == set(looks.words)
        assert not set(found.category) & found.no_answer
        assert all(name.strip() for name in found.category.values())


@pytest.mark.parametrize("fault", [invent, repeat, misname])
def test_invented_numbers_repeats_and_broken_entries_are_passed_over(fault: Callable[..., Any]) -> None:
    assert made(WORDS, tampered(fault)).category == made(WORDS, by_letter).category


def test_lost_descriptions_are_sent_once_more_and_then_stand_by_themselves() -> None:
    sent: list[list[str]] = []

    def reply(question: WritingTask) -> str | None:
        asked = payload_of(question)
        if question.name == "vocabulary":
            sent.append(asked["descriptions"])
        return tampered(lose)(question)

    found = made(["Apple", "Apricot", "Avocado", "Banana"], reply)
    assert sent == [["Apple", "Apricot", "Avocado", "Banana"], ["Apple", "Banana"]]
    assert found.category == {"apple": "Apple", "banana": "Banana", "apricot": "A", "avocado": "A"}


@pytest.mark.parametrize(
    "reply",
    [lambda _: None, lambda _: "sorry", lambda _: "", lambda _: "[]", lambda _: "{" * 5000, lambda _: '{"a": 1}'],
)
def test_a_model_that_groups_nothing_has_no_vocabulary(reply: Reply) -> None:
    found = made(["Apple", "not visible"], reply)
    assert found.is_empty
    assert found.no_answer == {"not visible"}
    assert found.calls == 2, "it is asked once more"


def test_calls_that_fail_leave_no_vocabulary() -> None:
    assert drive(make_vocabulary(looks_with(WORDS), "medium"), lambda _: FAILED).is_empty


def test_a_reply_is_read_out_of_what_stands_around_it() -> None:
    found = made(WORDS, lambda question: f"Sure! ```json\n{by_letter(question)}\n``` Done.")
    assert found.category == made(WORDS, by_letter).category


@pytest.mark.parametrize("text", ["N/A", "Not visible.", "I can't tell", "The unknown", "Cannot be determined"])
def test_phrases_that_never_answer_are_known_without_a_writer(text: str) -> None:
    looks = looks_with(["red", text])
    expected = {looks.words[1]} if looks.words[1] in NO_ANSWERS else set()
    assert without_writer(looks).no_answer == expected
    assert without_writer(looks).is_empty
    if text != "I can't tell":
        assert expected


def test_the_writer_recognises_no_answer_in_other_wordings_and_is_not_bothered_with_known_ones() -> None:
    sent: list[str] = []

    def reply(question: WritingTask) -> str:
        sent.extend(payload_of(question).get("descriptions", []))
        return by_letter(question)

    found = made(["red", "not visible", "?too dark to say"], reply)
    assert found.no_answer == {"not visible", "too dark to say"}
    assert "not visible" not in sent


def test_a_description_that_is_categorised_and_called_no_answer_keeps_its_category() -> None:
    found = made(["Apple"], lambda _: '{"categories": [{"name": "A", "descriptions": [1]}], "no_answer": [1]}')
    assert found.category == {"apple": "A"} and not found.no_answer


def test_names_are_folded_in_space() -> None:
    found = made(["Apple"], lambda _: '{"categories": [{"name": " big \\n fruit ", "descriptions": [1]}]}')
    assert found.category == {"apple": "big fruit"}


def test_undescribed_images_are_no_description() -> None:
    assert made(["apple", ""], by_letter).category == {"apple": "A"}


def test_the_writer_gets_the_most_frequent_descriptions_first_as_they_are_written() -> None:
    payloads: list[dict[str, Any]] = []

    def reply(question: WritingTask) -> str:
        payloads.append(payload_of(question))
        return by_letter(question)

    made(["Cherry", "an Apple", "an Apple", "Banana", "Banana", "Banana", "Äpfel"], reply, "fine")
    assert payloads[0] == {
        "interest": "suit",
        "level": "fine",
        "closed": False,
        "categories": [],
        "descriptions": ["Banana", "an Apple", "Cherry", "Äpfel"],
    }
    assert payloads[1]["level"] == "fine"
    assert payloads[1]["categories"][0] == {"id": 1, "name": "A", "examples": ["an Apple"]}


def test_a_closed_list_is_told_and_what_fits_none_of_it_is_left_to_itself() -> None:
    seen: list[dict[str, Any]] = []

    def reply(question: WritingTask) -> str:
        seen.append(payload_of(question))
        return by_letter(question)

    found = made(["apple", "banana", "cherry"], reply, closed=["A", "B"])
    assert seen[0]["closed"] is True and seen[0]["categories"] == ["A", "B"]
    assert found.category == {"apple": "A", "banana": "B", "cherry": "cherry"}
    assert [len(values["descriptions"]) for values in seen] == [3, 1], "no categories are put together"


def test_later_batches_are_shown_the_categories_there_are_the_most_used_first() -> None:
    rounds: list[list[Question]] = []
    words = [f"{letter}{k:03d}" for letter, many in (("a", 30), ("b", 90), ("c", 500)) for k in range(many)]
    drive(make_vocabulary(looks_with(words), "medium"), write_with(by_letter), rounds)
    sent = [[payload_of(q) for q in questions] for questions in rounds]
    assert [len(batch) for batch in sent] == [1, 4, 2, 1]
    assert [values["categories"] for values in sent[1]] == [["B", "A"]] * 4
    assert sent[2][0]["categories"] == ["C", "B", "A"]
    assert all(len(values["descriptions"]) <= BATCH for batch in sent[:3] for values in batch)


def grouped(names: dict[str, str]) -> Reply:
    """Puts categories together by what `names` says."""

    def reply(question: WritingTask) -> str:
        if question.name == "vocabulary":
            return by_letter(question)
        groups: dict[str, list[int]] = {}
        for category in payload_of(question)["categories"]:
            groups.setdefault(names.get(category["name"], category["name"]), []).append(category["id"])
        return json.dumps({"groups": [{"name": name, "ids": ids} for name, ids in groups.items()]})

    return reply


def test_categories_that_are_one_are_put_together_under_the_name_of_the_larger() -> None:
    found = made(["ape", "ant", "bee", "cat"], grouped({"A": "x", "B": "x"}))
    assert found.category == {"ape": "A", "ant": "A", "bee": "A", "cat": "C"}
    assert found.calls == 2


@pytest.mark.parametrize(
    "groups",
    [
        [{"name": "x", "ids": [0, 9, "1", None]}],
        [None, 4],
        [{"name": "x", "ids": 3}],
        "x",
        [{"ids": [1, 2]}],
        [{"name": "x", "ids": [1]}, {"name": "y", "ids": [1, 1]}],
    ],
)
def test_groups_that_make_no_sense_put_nothing_together(groups: object) -> None:
    def reply(question: WritingTask) -> str:
        return by_letter(question) if question.name == "vocabulary" else json.dumps({"groups": groups})

    assert made(WORDS, reply).category == made(WORDS, by_letter).category


def test_a_category_is_put_together_once() -> None:
    def reply(question: WritingTask) -> str:
        if question.name == "vocabulary":
            return by_letter(question)
        return json.dumps({"groups": [{"name": "x", "ids": [1, 2]}, {"name": "y", "ids": [2, 3]}]})

    assert set(made(["ape", "ant", "bee", "cat"], reply).category.values()) == {"A", "C"}


def test_categories_of_different_batches_are_put_together() -> None:
    """Every description is a category at first; in pairs they are one. Names that are alike stand side by side."""
    words = [f"{k:03d}{side}" for k in range(120) for side in "xy"]

    def reply(question: WritingTask) -> str:
        asked = payload_of(question)
        if question.name == "vocabulary":
            return json.dumps(
                {"categories": [{"name": t, "descriptions": [n]} for n, t in enumerate(asked["descriptions"], start=1)]}
            )
        groups: dict[str, list[int]] = {}
        for category in asked["categories"]:
            groups.setdefault(category["name"][:3], []).append(category["id"])
        return json.dumps({"groups": [{"name": name, "ids": ids} for name, ids in groups.items()]})

    found = made(words, reply)
    assert len(set(found.category.values())) == 120
    assert all(found.category[f"{k:03d}x"] == found.category[f"{k:03d}y"] for k in range(120))


def test_a_hundred_thousand_descriptions_take_a_call_a_hundred() -> None:
    asked = [0]

    def reply(question: WritingTask) -> str:
        asked[0] += 1
        if question.name == "reconcile":
            return "{}"
        return json.dumps({"categories": [{"name": "all", "descriptions": list(range(1, BATCH + 1))}]})

    found = made([f"w{k}" for k in range(100_000)], reply)
    assert asked[0] == found.calls == 1000
    assert len(found.category) == 100_000


def two_by_two(question: WritingTask) -> str:
    asked = payload_of(question)
    if question.name == "vocabulary":
        return by_letter(question)
    ids = [category["id"] for category in asked["categories"]]
    return json.dumps({"groups": [{"name": "first  two", "ids": ids[:2]}, {"name": "rest", "ids": ids[2:]}]})


def test_parents_are_what_the_writer_names_of_live_clusters() -> None:
    looks = looks_of(["ash"] * 5 + ["elm"] * 4 + ["cod"] * 3 + ["eel"] * 2)
    sorting = begin(looks).sorting
    sorting.refresh()
    asked: list[list[Question]] = []
    parents = drive(name_parents(sorting, looks), write_with(two_by_two), asked)
    assert [parents[cluster] for cluster in range(4)] == ["first two", "first two", "rest", "rest"]
    payload = payload_of(asked[0][0])
    assert payload["level"] == "coarse"
    assert [c["name"] for c in payload["categories"]] == ["ash", "elm", "cod", "eel"]
    sorting.join(0, 3)
    sorting.refresh()
    assert drive(name_parents(sorting, looks), write_with(two_by_two)) == {}, "three need no parents"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "no",
        '{"groups": [{"name": "all", "ids": [1, 2, 3, 4]}]}',
        '{"groups": [{"name": "", "ids": [1, 2]}, {"name": 4, "ids": [3, 4]}, 7]}',
        '{"groups": [{"name": "a", "ids": [0, 5, "1"]}, {"name": "b", "ids": 1}]}',
        '{"groups": [{"name": " ", "ids": [1, 2]}, {"name": "b", "ids": [3, 4]}]}',
    ],
)
def test_parents_that_tell_nothing_are_none(text: str | None) -> None:
    looks = looks_of(["ash", "ash", "elm", "elm", "cod", "cod", "eel", "eel"])
    sorting = begin(looks).sorting
    sorting.refresh()
    assert drive(name_parents(sorting, looks), lambda _: Answer(written=written_of(text))) == {}


def test_finer_kinds_are_the_writers_of_each_unit() -> None:
    looks = looks_of(["ash", "ash", "elm", "elm", "?dark", "?dark"])
    sorting = begin(looks).sorting
    kinds = drive(finer_kinds(sorting, looks), write_with(by_letter))
    assert dict(zip(sorting.units.words, kinds, strict=True)) == {"ash": "A", "elm": "E", "dark": None}


def test_a_parent_is_asked_for_by_the_description_of_the_largest_unit_the_first_of_equals() -> None:
    looks = looks_of(["ash"] * 5 + ["elm"] * 5 + ["oak"] * 6 + ["cod"] * 3 + ["eel"] * 2 + ["ray"] * 2)
    sorting = begin(looks).sorting
    sorting.refresh()
    first = {words: sorting.units.words.index(words) for words in ("ash", "elm")}
    for one, other in (("oak", "cod"), ("ash", "elm")):
        names = [cluster.name for cluster in sorting.clusters]
        sorting.join(names.index(one), names.index(other))
    sorting.settle()
    asked: list[list[Question]] = []
    drive(name_parents(sorting, looks), write_with(two_by_two), asked)
    shown = {category["name"] for category in payload_of(asked[0][0])["categories"]}
    assert shown == {"oak", min(first, key=lambda words: first[words]), "eel", "ray"}


def test_two_categories_may_be_one_and_a_single_one_is_not_asked_about() -> None:
    two, one = made(["ape", "ant", "bee"], grouped({"A": "x", "B": "x"})), made(["ape"], by_letter)
    assert set(two.category.values()) == {"A"} and two.calls == 2
    assert one.calls == 1


def test_categories_are_put_together_in_at_most_three_rounds() -> None:
    """Each round joins the first two of a batch, so there is always more to do."""
    rounds: list[list[Question]] = []

    def reply(question: WritingTask) -> str:
        asked = payload_of(question)
        if question.name == "reconcile":
            return '{"groups": [{"name": "x", "ids": [1, 2]}]}'
        texts = enumerate(asked["descriptions"], start=1)
        return json.dumps({"categories": [{"name": text, "descriptions": [number]} for number, text in texts]})

    drive(make_vocabulary(looks_with([f"w{k:03d}" for k in range(150)]), "medium"), write_with(reply), rounds)
    tasks = [questions[0].name for questions in rounds if not isinstance(questions[0], Choice)]
    assert tasks == ["vocabulary"] * 2 + ["reconcile"] * 3
