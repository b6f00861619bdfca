from collections import Counter

import numpy as np
import pytest
from answerers import (
    FAILED,
    AtRandom,
    Judge,
    SameForAll,
    Truthful,
    World,
    always_first,
    always_none,
    begin,
    choose,
    clusters_of,
    drive,
    looks_of,
    make_world,
    sort_all,
    within,
)
from sklearn.metrics import normalized_mutual_info_score as nmi

from manylens.method.questions import Answer, Choice, Question
from manylens.method.trial import Trial, try_judge


def choices(rounds: list[list[Question]]) -> list[Choice]:
    return [question for questions in rounds for question in questions if isinstance(question, Choice)]


@pytest.mark.parametrize("kinds", [2, 3, 8, 15])
@pytest.mark.parametrize("wrong", [0.0, 0.05])
def test_a_good_judge_tells(kinds: int, wrong: float) -> None:
    for seed in range(8):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed)
        trial = drive(try_judge(begin(world.looks, seed=seed)), Truthful(world, wrong, seed))
        assert trial.tells, (seed, trial)


def test_a_judge_who_is_right_is_more_reliable_than_one_who_errs() -> None:
    world = make_world(8, 160)
    right, errs = (drive(try_judge(begin(world.looks)), Truthful(world, wrong)) for wrong in (0.0, 0.3))
    assert right.pairs == 6 and right.differing == 0, "a second round is for judges in doubt"
    assert errs.pairs == 12 and errs.differing > 1
    assert right.reliability > errs.reliability


@pytest.mark.parametrize("images", [60, 240])
@pytest.mark.parametrize("kinds", [2, 5])
@pytest.mark.parametrize("cheat", ["first", "same for all", "none"])
def test_a_judge_who_cheats_does_not_tell_and_costs_nothing(images: int, kinds: int, cheat: str) -> None:
    for seed in range(4):
        world = make_world(kinds, images, wordings=2, misdescribed=0.1, seed=seed)
        judges: dict[str, Judge] = {"first": always_first, "same for all": SameForAll(world), "none": always_none}
        check = begin(world.looks)
        assert not sort_all(check, judges[cheat]).tells
        assert nmi(world.kinds(), clusters_of(check.sorting)) > nmi(world.kinds(), world.looks.words) - 0.02


@pytest.mark.parametrize("kinds", [3, 5, 8])
def test_a_judge_who_answers_at_random_seldom_tells(kinds: int) -> None:
    tells = 0
    for seed in range(40):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed % 4)
        tells += drive(try_judge(begin(world.looks, seed=seed)), AtRandom(world, seed)).tells
    assert tells <= 4


def test_a_judge_who_knows_no_planted_image_by_its_own_cluster_does_not_tell() -> None:
    """It says none of each image that is a cluster's own, and the first of the others."""
    world = make_world(6, 120)
    check = begin(world.looks)
    planted = {int(unit[-1]) for unit in check.sorting.units.members}

    def judge(question: Question) -> Answer:
        assert isinstance(question, Choice)
        return choose(len(question.options) if question.image in planted else 0, len(question.options))

    assert not sort_all(check, judge).tells


def test_with_one_cluster_and_nothing_else_there_is_no_trial() -> None:
    rounds: list[list[Question]] = []
    trial = drive(try_judge(begin(looks_of(["red"] * 9))), always_first, rounds)
    assert trial == Trial() and trial.tells and not rounds


def test_the_same_choice_is_put_twice_in_another_order_with_other_exemplars() -> None:
    world = make_world(4, 160)
    rounds: list[list[Question]] = []
    trial = drive(try_judge(begin(world.looks)), AtRandom(world), rounds)
    put = choices(rounds)
    assert len(put) == 2 * trial.pairs == 24
    for one, other in zip(put[::2], put[1::2], strict=True):
        assert one.image == other.image
        names = [[option.name for option in question.options] for question in (one, other)]
        assert names[0] != names[1] and sorted(names[0]) == sorted(names[1])
        shown = [{option.name: set(option.exemplars) for option in question.options} for question in (one, other)]
        assert all(shown[0][name] and not shown[0][name] & shown[1][name] for name in names[0])
        assert not any(one.image in exemplars for turn in shown for exemplars in turn.values())


def test_with_two_options_the_second_order_is_the_other_one() -> None:
    world = make_world(2, 80)
    rounds: list[list[Question]] = []
    drive(try_judge(begin(world.looks)), always_first, rounds)
    put = choices(rounds)
    assert len(put[0].options) == 2
    assert all(one.options[0].name == other.options[1].name for one, other in zip(put[::2], put[1::2], strict=True))
    assert len({one.options[0].name for one in put[::2]}) == 2, "neither is always the first"


def test_every_option_has_an_image_of_its_own_in_the_first_round() -> None:
    world = make_world(6, 120)
    rounds: list[list[Question]] = []
    drive(try_judge(begin(world.looks)), Truthful(world), rounds)
    kinds = Counter(world.kinds()[question.image] for question in choices(rounds[:1]))
    assert kinds == Counter({f"kind{k}": 2 for k in range(6)})


def test_at_most_eight_options_the_largest() -> None:
    said = [f"k{kind}" for kind in range(12) for _ in range(3 + kind)]
    rounds: list[list[Question]] = []
    drive(try_judge(begin(looks_of(said))), always_first, rounds)
    for question in choices(rounds):
        assert sorted(option.name for option in question.options) == sorted(f"k{kind}" for kind in range(4, 12))


def test_where_clusters_are_few_other_descriptions_are_options_and_nothing_is_learned_of_those() -> None:
    rows = np.array([(1.0, 0)] * 20 + [(0.95, 0.3)] * 18 + [(0.9, 0.44)] * 10)
    looks = looks_of(["red"] * 20 + ["scarlet"] * 18 + ["crimson"] * 10, rows)
    world = World(looks, dict(zip(looks.image_ids, looks.words, strict=True)))
    check = begin(looks)
    assert len(check.sorting.live()) == 1
    rounds: list[list[Question]] = []
    trial = drive(try_judge(check), Truthful(world), rounds)
    assert {option.name for option in choices(rounds)[0].options} == {"red", "scarlet", "crimson"}
    assert trial.tells and not check.sorting.answers
    assert all(
        question.image not in option.exemplars and len(option.exemplars) == 3
        for question in choices(rounds)
        for option in question.options
    )


def test_what_a_good_judge_said_is_learned_and_its_reliability_too() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    trial = drive(try_judge(check), Truthful(world))
    assert sum(map(len, check.sorting.answers.values())) == 12
    assert check.sorting.reliability == trial.reliability == 1 - 0.5 / 16 / 2
    for image, answers in check.sorting.answers.items():
        assert {check.sorting.clusters[answer.chosen].name[:5] for answer in answers} == {world.kinds()[image]}


def test_what_a_cheat_said_is_not_learned() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    assert not drive(try_judge(check), always_first).tells
    assert not check.sorting.answers and check.sorting.reliability == 0.95


def test_reliability_is_half_the_pairs_that_differ_around_one_in_twenty() -> None:
    assert Trial().reliability == 0.975
    assert Trial(12, 6).reliability == 1 - 6.5 / 22 / 2


@pytest.mark.parametrize(
    "trial, tells",
    [
        (Trial(12, 6), True),
        (Trial(12, 7), False),
        (Trial(6, 0, same_for_all=True), False),
        (Trial(1, 0), True),
        (Trial(1, 1), False),
    ],
)
def test_it_tells_unless_most_pairs_differ_or_all_answers_are_the_same(trial: Trial, tells: bool) -> None:
    assert trial.tells is tells


def test_calls_that_fail_are_no_evidence() -> None:
    world = make_world(4, 80)
    judge = Truthful(world)
    flaky = iter([False, True, False, False] * 20)
    trial = drive(try_judge(begin(world.looks)), lambda q: FAILED if next(flaky) else judge(q))
    assert (trial.pairs, trial.differing) == (3, 0)
    assert not trial.same_for_all


def test_few_equal_answers_are_no_proof_of_a_cheat() -> None:
    """Five pairs alike may be five images alike."""
    looks = looks_of(["red"] * 2 + ["blue"] * 2 + ["green"])
    check = begin(looks)
    trial = drive(try_judge(check), always_none)
    assert trial.pairs == 5 and trial.tells


def test_a_budget_that_ends_within_the_trial_is_noticed() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    trial = drive(try_judge(check), within(Truthful(world), 7))
    assert check.spent and trial.pairs == 3
    whole = begin(world.looks)
    drive(try_judge(whole), Truthful(world))
    assert not whole.spent


def test_one_difference_asks_no_second_round_and_two_do() -> None:
    for slips, pairs in ((1, 6), (2, 12)):
        world = make_world(6, 120)
        judge, put = Truthful(world), Counter[int]()

        def slipping(
            question: Question, slips: int = slips, judge: Truthful = judge, put: Counter[int] = put
        ) -> Answer:
            assert isinstance(question, Choice)
            put[question.image] += 1
            none = put[question.image] == 2 and len(put) <= slips
            return choose(len(question.options), len(question.options)) if none else judge(question)

        assert drive(try_judge(begin(world.looks)), slipping).pairs == pairs
