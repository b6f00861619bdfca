from by_hand import by_label, drive, looks_of

from manylens.evidence import Answer, Draft, Looks, Question, Standing
from manylens.records import Settings
from manylens.second_look import take_second_looks
from manylens.targets import Refusals

SETTINGS = Settings()


def drafts_of(*groups: list[int]) -> list[Draft]:
    return [Draft(frozenset({group[0]}), {image: Standing("seed") for image in group}) for group in groups]


def parts(drafts: list[Draft]) -> list[list[int]]:
    return sorted(sorted(draft.members) for draft in drafts)


def test_a_second_look_moves_the_image_whose_description_is_another_clusters() -> None:
    looks = looks_of(["hearts"] * 10 + ["spades"] * 9 + ["spades"])
    labels = ["hearts"] * 10 + ["spades"] * 10
    drafts = drafts_of([*range(10), 19], list(range(10, 19)))
    asked: list[Question] = []
    one = Settings(second_looks=0.05)
    after, unassigned = drive(take_second_looks(looks, drafts, [], Refusals(), one), by_label(looks, labels), asked)
    assert (parts(after), unassigned) == ([list(range(10)), list(range(10, 20))], [])
    assert {question.candidate for question in asked} == {19}, "one image is the quota"
    assert after[1].members[19].decided_by == "second look"


def test_second_looks_begin_with_the_least_confident_and_stop_at_their_share() -> None:
    looks = looks_of(["hearts"] * 20 + ["spades"] * 20, confidences=[0.5 + 0.01 * k for k in range(40)])
    drafts = drafts_of(list(range(20)), list(range(20, 40)))
    asked: list[Question] = []
    drive(take_second_looks(looks, drafts, [], Refusals(), Settings(second_looks=0.1)), lambda q: 0.97, asked)
    assert [question.candidate for question in asked] == [0, 1, 2, 3]


def test_an_image_that_all_refuse_is_unassigned_and_an_unassigned_one_finds_its_place() -> None:
    looks = looks_of(["hearts"] * 6 + ["spades"] * 6, confidences=[1.0] * 5 + [0.2] + [1.0] * 6)
    labels = ["hearts"] * 5 + ["clubs"] + ["spades"] * 6
    drafts = drafts_of(list(range(6)), list(range(6, 11)))
    judge = by_label(looks, labels)
    after, unassigned = drive(take_second_looks(looks, drafts, [11], Refusals(), Settings(second_looks=0.2)), judge)
    assert unassigned == [5]
    assert parts(after) == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10, 11]]


def test_without_answers_nothing_moves() -> None:
    looks = looks_of(["hearts"] * 6 + ["spades"] * 6)
    drafts = drafts_of([0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10])
    after, unassigned = drive(
        take_second_looks(looks, drafts, [11], Refusals(), Settings(second_looks=1.0)), lambda q: None
    )
    assert (parts(after), unassigned) == (parts(drafts), [11])


def test_second_looks_stop_where_they_find_nothing_wrong() -> None:
    looks = looks_of(["hearts"] * 500 + ["spades"] * 500)
    drafts = drafts_of(list(range(500)), list(range(500, 1000)))
    asked: list[Question] = []
    labels = ["hearts"] * 500 + ["spades"] * 500
    drive(take_second_looks(looks, drafts, [], Refusals(), SETTINGS), by_label(looks, labels), asked)
    assert len(asked) == 30, "three blocks of a hundredth each, of a quota of a hundred"


def kinds(names: list[str], each: int, *others: str) -> tuple[Looks, list[Draft]]:
    """Clusters of `each` images, and the others, which are in none."""
    looks = looks_of([name for name in names for _ in range(each)] + list(others))
    return looks, drafts_of(*[list(range(k * each, (k + 1) * each)) for k in range(len(names))])


def test_what_would_move_an_image_is_asked_once_more_against_other_exemplars() -> None:
    looks = looks_of(["hearts"] * 20 + ["spades"] * 20, confidences=[0.3] + [0.9] * 39)
    drafts = drafts_of(list(range(20)), list(range(20, 40)))
    one = Settings(second_looks=0.025)
    asked: list[Question] = []
    answers = iter([0.02, 0.98])
    after, unassigned = drive(
        take_second_looks(looks, drafts, [], Refusals(), one),
        lambda q: next(answers) if q.profile.words == "heart" else 0.02,
        asked,
    )
    assert (parts(after), unassigned) == (parts(drafts), [])
    first, second = (question.profile for question in asked[:2])
    assert first.words == second.words == "heart"
    assert not set(first.exemplars) & set(second.exemplars)


def test_a_judge_who_sees_no_exemplars_is_not_asked_the_same_twice() -> None:
    looks = looks_of(["hearts"] * 20 + ["spades"] * 20, confidences=[0.3] + [0.9] * 39)
    drafts = drafts_of(list(range(20)), list(range(20, 40)))
    asked: list[Question] = []
    drive(
        take_second_looks(looks, drafts, [], Refusals(), SETTINGS, None, sees_exemplars=False),
        lambda q: 0.02 if q.candidate == 0 else 0.97,
        asked,
    )
    about = [(question.candidate, question.profile.words) for question in asked]
    assert len(set(about)) == len(about) and (0, "heart") in about


def test_one_wrong_yes_places_no_image() -> None:
    looks, drafts = kinds(["hearts", "spades", "clubs"], 20, "joker")
    honest = by_label(looks, looks.words)
    yes: list[Question] = []

    def judge(question: Question) -> float | None:
        wrong = question.candidate == 60 and question.profile.words == "spade" and not yes
        if wrong:
            yes.append(question)
        return 0.98 if wrong else honest(question)

    _, unassigned = drive(take_second_looks(looks, drafts, [60], Refusals(), SETTINGS), judge)
    assert yes and unassigned == [60]


def test_who_refused_an_image_is_not_asked_again_but_for_the_cluster_of_its_description() -> None:
    looks, drafts = kinds(["hearts", "spades", "clubs", "diamonds"], 10, "clubs")
    refusals = Refusals({40: {10, 20}})
    asked: list[Question] = []
    judge = by_label(looks, [*looks.words[:40], "joker"])
    _, unassigned = drive(take_second_looks(looks, drafts, [40], refusals, SETTINGS), judge, asked)
    assert unassigned == [40]
    words = [question.profile.words for question in asked if question.candidate == 40]
    assert sorted(words) == ["club", "diamond", "heart"]


def test_a_search_goes_on_until_the_last_cluster() -> None:
    names = [f"kind {letter}" for letter in "abcdefghijkl"]
    looks, drafts = kinds(names, 10, "joker")
    labels = [name for name in names for _ in range(10)] + ["kind l"]
    after, unassigned = drive(
        take_second_looks(looks, drafts, [120], Refusals(), SETTINGS), by_label(looks, labels, yes=0.97, no=0.02)
    )
    assert unassigned == []
    assert after[11].members[120].decided_by == "second look"


def test_the_search_that_is_nearest_to_its_end_goes_first() -> None:
    names = [f"kind {letter}" for letter in "abcdefghijkl"]
    looks, drafts = kinds(names, 10, *[f"joker {number}" for number in range(12)])
    refusals = Refusals({131: {10 * k for k in range(9)}})
    asked: list[Question] = []
    judge = by_label(looks, looks.words)
    drive(take_second_looks(looks, drafts, list(range(120, 132)), refusals, SETTINGS), judge, asked)
    sought = [question.candidate for question in asked if question.candidate >= 120]
    assert sought[0] == 131, "it has three clusters left to meet, the others twelve"
    assert sought.count(131) == 3 and max(k for k, image in enumerate(sought) if image == 131) < 12


def test_no_second_looks_ask_nothing() -> None:
    looks, drafts = kinds(["hearts", "spades"], 10, "joker")
    after, unassigned = drive(
        take_second_looks(looks, drafts, [20], Refusals(), Settings(second_looks=0.0)), lambda q: 1 / 0
    )
    assert (parts(after), unassigned) == (parts(drafts), [20])


def test_second_looks_end_with_the_allowance() -> None:
    looks, drafts = kinds(["hearts", "spades"], 50, "joker")
    steps = take_second_looks(looks, drafts, [100], Refusals(), SETTINGS)
    rounds = 0
    try:
        ask = next(steps)
        while True:
            rounds += 1
            ask = steps.send([Answer(None, spent=True) for _ in ask.questions])
    except StopIteration as end:
        after, unassigned = end.value
    assert (rounds, parts(after), unassigned) == (1, parts(drafts), [100])
