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
    assert right.pairs == 6 and right.differing == 0
    assert errs.differing > 1
    assert right.reliability > errs.reliability


@pytest.mark.parametrize("kinds", [2, 3, 4])
@pytest.mark.parametrize("wordings", [2, 4])
def test_options_of_one_kind_do_not_silence_a_good_judge(kinds: int, wordings: int) -> None:
    """Asked which of two synonyms it is, it names the one that stands first."""
    for seed in range(6):
        world = make_world(kinds, 120, wordings=wordings, spread=1.5, seed=seed)
        trial = drive(try_judge(begin(world.looks, seed=seed)), Truthful(world))
        assert trial.tells and trial.reliability > 0.85, (seed, trial)


def test_descriptions_that_say_nothing_do_not_silence_a_good_judge() -> None:
    tells, scores = 0, []
    for seed in range(10):
        world = make_world(4, 120, seed=seed)
        random = np.random.default_rng(seed)
        nonsense = World(looks_of([f"word{random.integers(6)}" for _ in range(120)]), world.truth)
        check = begin(nonsense.looks, seed=seed)
        tells += sort_all(check, Truthful(nonsense)).tells
        scores.append(nmi(nonsense.kinds(), clusters_of(check.sorting)))
    assert tells >= 9
    assert np.mean(scores) > 0.5


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


@pytest.mark.parametrize("kinds", [2, 3, 5, 8])
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


def test_the_same_choice_is_put_twice_in_another_order_and_never_shows_the_image_itself() -> None:
    world = make_world(4, 160)
    rounds: list[list[Question]] = []
    trial = drive(try_judge(begin(world.looks)), AtRandom(world), rounds)
    put = choices(rounds)
    assert len(put) == 2 * trial.pairs <= 48
    assert [len(questions) for questions in rounds] == [12] * len(rounds)
    for one, other in zip(put[::2], put[1::2], strict=True):
        assert one.image == other.image
        assert one.options != other.options
        assert sorted(one.options, key=str) == sorted(other.options, key=str)
        assert all(option.exemplars and one.image not in option.exemplars for option in one.options)
    assert len({question.image for question in put}) == trial.pairs


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


def test_rounds_follow_each_other_until_the_evidence_is_twenty_to_one() -> None:
    for kinds, pairs in ((8, 6), (2, 12)):
        world = make_world(kinds, 40 * kinds)
        trial = drive(try_judge(begin(world.looks)), Truthful(world))
        assert trial.pairs == pairs and trial.evidence > 3
    world = make_world(4, 160)
    trials = [drive(try_judge(begin(world.looks, seed=seed)), AtRandom(world, seed)) for seed in range(20)]
    assert all(abs(trial.evidence) > 3 or trial.pairs == 24 for trial in trials)


def test_the_evidence_by_hand() -> None:
    """Two kinds named equally often agree by chance half of the time, and a good judge in nine of ten pairs."""
    world = make_world(2, 80)
    trial = drive(try_judge(begin(world.looks)), Truthful(world))
    assert trial.evidence == pytest.approx(12 * np.log(0.9 / 0.5), abs=0.6)
    alike = drive(try_judge(begin(world.looks)), always_none)
    assert alike.evidence == pytest.approx(6 * np.log(0.9 / 0.99)) and alike.pairs == 6


@pytest.mark.parametrize(
    "trial, tells",
    [
        (Trial(), True),
        (Trial(12, 1, evidence=0.1), True),
        (Trial(12, 1, evidence=-0.1), False),
        (Trial(6, 0, same_for_all=True, evidence=1.0), False),
    ],
)
def test_it_tells_where_the_evidence_is_for_it(trial: Trial, tells: bool) -> None:
    assert trial.tells is tells


def test_calls_that_fail_are_no_evidence() -> None:
    world = make_world(4, 80)
    judge, rounds = Truthful(world), list[list[Question]]()
    flaky = iter([False, True, False, False] * 20)
    trial = drive(try_judge(begin(world.looks)), lambda q: FAILED if next(flaky) else judge(q), rounds)
    assert (2 * trial.pairs, trial.differing) == (len(choices(rounds)) // 2, 0)
    assert trial.tells
    nothing = drive(try_judge(begin(world.looks)), lambda _: FAILED)
    assert nothing.pairs == 0 and nothing.tells


def test_few_images_are_enough_where_their_answers_differ() -> None:
    looks = looks_of(["red"] * 2 + ["blue"] * 2 + ["green"])
    world = World(looks, dict(zip(looks.image_ids, looks.words, strict=True)))
    assert drive(try_judge(begin(looks)), Truthful(world)).tells
    assert not drive(try_judge(begin(looks)), always_none).tells


def test_a_cheat_is_told_how_often_it_contradicted_itself() -> None:
    world = make_world(2, 80)
    trial = drive(try_judge(begin(world.looks)), always_first)
    assert not trial.tells and trial.differing == trial.pairs == 6


def test_a_budget_that_ends_within_the_trial_is_noticed() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    trial = drive(try_judge(check), within(Truthful(world), 7))
    assert check.spent and trial.pairs == 3
    whole = begin(world.looks)
    drive(try_judge(whole), Truthful(world))
    assert not whole.spent


def test_which_other_images_are_tried_depends_on_the_seed_and_their_ids_alone() -> None:
    world = make_world(3, 200, misdescribed=0.1)
    tried = []
    for seed in (0, 0, 1):
        rounds: list[list[Question]] = []
        drive(try_judge(begin(world.looks, seed=seed)), AtRandom(world), rounds)
        tried.append([question.image for question in choices(rounds)][6:])
    assert tried[0] == tried[1] != tried[2]
    assert tried[0] != sorted(tried[0])


def test_three_options_are_enough() -> None:
    angles = [0.0, 0.3, 0.35, 0.4, 0.45]
    said = [f"red {at}" for at in range(5) for _ in range(20 - at)]
    rows = np.array([(np.cos(angles[int(words[4])]), np.sin(angles[int(words[4])])) for words in said])
    rounds: list[list[Question]] = []
    check = begin(looks_of(said, rows))
    drive(try_judge(check), always_first, rounds)
    assert len(check.sorting.live()) == 1
    assert {option.name for option in choices(rounds)[0].options} == {"red 0", "red 1", "red 2"}
