"""What a person said is evidence in later runs: nobody is asked about it, and ids and names go on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_add import model, put
from test_correct import RED, names

import manylens
from manylens import Correction, Settings
from manylens.errors import ModelError
from manylens.method.corrections import MOST_MEMBERS, Said, Table, apply_rulings, continued, said_by
from manylens.models.base import ChooseReply, ChooseRequest
from manylens.models.scripted import Noise, ScriptedModel
from manylens.store.run_folder import RunFolder
from manylens.types import Anchor, Assignment, CallCounts, Cluster, Clustering, Interest, Judged, Misplaced, Ruling


def watched(plain: ScriptedModel) -> tuple[ScriptedModel, list[str]]:
    """The model, and the images that it is asked about from now on."""
    asked: list[str] = []
    choose = plain.choose

    async def watch(requests: Sequence[ChooseRequest]) -> Sequence[ChooseReply | ModelError]:
        asked.extend(request.candidate_id for request in requests)
        return await choose(requests)

    plain.choose = watch  # type: ignore[method-assign,assignment]
    return plain, asked


def test_nobody_is_asked_about_what_a_person_placed(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(10))
    out = tmp_path / "out"
    result = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=out)
    said = [f"red-wide-{n}.png" for n in range(8)]
    manylens.correct(result, None, [Correction("move", tuple(said), "green"), Correction("not", ("blue-tall-1.png",))])
    ids = {hashlib.sha256((tmp_path / "pictures" / path).read_bytes()).hexdigest() for path in said}
    plain, asked = watched(model())
    for settings in (Settings(), Settings(seed=9, effort="max"), Settings(level="fine"), Settings(n_clusters=2)):
        manylens.cluster(tmp_path / "pictures", "color", model=plain, out=out, settings=settings)
        assert {names(out)[path] for path in said} == {"green"} or settings.n_clusters
        assert names(out)["blue-tall-1.png"] != "blue"
    assert asked
    assert not ids & set(asked)


def test_a_run_repeated_after_a_correction_asks_next_to_nothing(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(10))
    result = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    manylens.correct(result, None, [Correction("move", (RED,), "green")])
    again = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")
    # The description that the person contradicted is asked about, and the random sample with the exemplars that follow.
    assert again.calls_asked <= result.calls_asked / 8
    assert manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out").calls_asked == 0


def test_ids_and_names_go_on_across_seeds(tmp_path: Path) -> None:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(6))
    for path in list((tmp_path / "pictures").glob("green-*-[345].png")):
        path.unlink()
    noisy = ScriptedModel(model_labels(tmp_path / "pictures"), noise=Noise(wrong_description=0.1, wrong_choice=0.05))
    out = tmp_path / "out"
    first = manylens.cluster(tmp_path / "pictures", "color", model=noisy, out=out)
    before = {cluster.id: cluster.name for cluster in first["color"].clusters}
    put(tmp_path / "pictures", ("green",), range(3, 14))  # the smallest is the largest now
    for seed in (3, 4):
        again = manylens.cluster(tmp_path / "pictures", "color", model=model(), out=out, settings=Settings(seed=seed))
        after = {cluster.id: cluster.name for cluster in again["color"].clusters}
        assert {name: number for number, name in after.items() if number in before}.items() >= {
            name: number for number, name in before.items() if number in after
        }.items()
        assert {before[number] for number in before if number in after} >= {"red", "green", "blue"}


def model_labels(folder: Path) -> dict[str, dict[str, str]]:
    return {
        "color": {
            hashlib.sha256(path.read_bytes()).hexdigest(): path.name.split("-")[0] for path in folder.glob("*.png")
        }
    }


# The pure part


def clustering(
    places: Mapping[str, int | None], names_: dict[int, str], estimate: Misplaced | None = None
) -> Clustering:
    sizes = {number: sum(at == number for at in places.values()) for number in names_}
    return Clustering(
        Interest("kind"),
        "m",
        tuple(Cluster(n, name, "", sizes[n], (), misplaced=estimate) for n, name in names_.items()),
        tuple(Assignment(image, at, 0.9, "", "description") for image, at in sorted(places.items())),
        (),
        CallCounts(),
        0.0,
        estimate,
    )


def places(**groups: str) -> dict[str, int | None]:
    """a="xyz" puts x, y and z into cluster 1, b=... into 2."""
    return {image: number for number, images in enumerate(groups.values(), start=1) for image in images}


def where(found: Clustering) -> dict[str, int | None]:
    return {a.image_id: a.cluster for a in found.assignments}


def test_a_move_finds_its_cluster_by_its_members_where_the_id_is_gone() -> None:
    before = clustering(places(a="abcd", b="efgh"), {1: "A", 2: "B"})
    anchor = Table(before).anchor(2)
    coarse = clustering(dict.fromkeys("abcd", 7) | dict.fromkeys("efgh", 8), {7: "x", 8: "y"})
    assert where(apply_rulings(coarse, [Ruling("move", ("a",), anchor)]))["a"] == 8
    assert where(apply_rulings(coarse, [Ruling("rename", cluster=anchor, name="mine")])) == where(coarse)


def test_a_name_is_given_to_the_same_cluster_alone() -> None:
    anchor = Anchor(2, "B", 4, tuple("efgh"))
    same = clustering(dict.fromkeys("abcd", 7) | dict.fromkeys("efgh", 8), {7: "x", 8: "y"})
    one = clustering(dict.fromkeys("abcdefgh", 9), {9: "all"})
    rename = [Ruling("rename", cluster=anchor, name="mine")]
    assert {c.name for c in apply_rulings(same, rename).clusters} == {"x", "mine"}
    assert {c.name for c in apply_rulings(one, rename).clusters} == {"all"}, "a coarser cluster is another one"


def test_a_merge_holds_at_a_coarser_level_for_its_images_alone() -> None:
    merge = [Ruling("merge", tuple("ab"), Anchor(1, "A", 2, tuple("ab")), Anchor(2, "B", 2, tuple("ef")))]
    coarse = clustering(dict.fromkeys("abcd", 7) | dict.fromkeys("efgh", 8), {7: "x", 8: "y"})
    found = where(apply_rulings(coarse, merge))
    assert {image for image, at in found.items() if at == 8} == set("abefgh")
    fine = clustering(places(a="ab", b="ef", c="cd"), {1: "A", 2: "B", 3: "C"})
    assert where(apply_rulings(fine, merge)) == {"a": 2, "b": 2, "c": 3, "d": 3, "e": 2, "f": 2}


def test_of_two_words_about_an_image_the_later_holds() -> None:
    base = clustering(places(a="abc", b="def"), {1: "A", 2: "B"})
    one, two = Table(base).anchor(1), Table(base).anchor(2)
    said = [Ruling("move", ("a",), two), Ruling("not", ("a",), two), Ruling("move", ("a",), one)]
    assert [where(apply_rulings(base, said[: n + 1]))["a"] for n in range(3)] == [2, None, 1]
    rest = dict.fromkeys("bc", 1) | dict.fromkeys("def", 2)
    assert said_by(base, said[:2]) == Said({}, {"a": frozenset({2})}, rest)
    assert said_by(base, said).placed == {"a": 1}


def test_nothing_said_changes_nothing() -> None:
    base = clustering(places(a="abc", b="def"), {1: "A", 2: "B"})
    assert apply_rulings(base, []) is base


def test_a_cluster_that_nothing_is_left_of_is_there_again_for_what_the_person_put_into_it() -> None:
    anchor = Anchor(9, "jokers", 2, ("x", "y"))
    base = clustering(places(a="abc"), {1: "A"})
    found = apply_rulings(base, [Ruling("move", ("a",), anchor)])
    assert [(c.id, c.name, c.size) for c in found.clusters] == [(1, "A", 2), (9, "jokers", 1)]


def test_what_was_judged_later_gives_way_to_a_new_decision_and_to_a_person() -> None:
    base = clustering(places(a="abc", b="def"), {1: "A", 2: "B"})
    judged = Ruling("judged", cluster=Table(base).anchor(2), judged=(Judged("a", 1, 0.8, "asked", "choice"),))
    assert where(apply_rulings(base, [judged]))["a"] == 2
    elsewhere = clustering(places(a="bc", b="def", c="a"), {1: "A", 2: "B", 3: "C"})
    assert where(apply_rulings(elsewhere, [judged]))["a"] == 3, "the model has decided anew"
    confirmed = Ruling("confirm", ("a",), Table(base).anchor(1))
    assert where(apply_rulings(base, [confirmed, judged]))["a"] == 1
    assert where(apply_rulings(base, [judged, confirmed]))["a"] == 1


def test_each_answer_lowers_the_estimate_by_its_own_doubt() -> None:
    base = clustering(places(a="abcdefghij", b="klmnopqrst"), {1: "A", 2: "B"}, Misplaced(0.1, 0.02, 0.2))
    shares = [0.1]
    for n in range(1, 20):
        said = [Ruling("confirm", tuple("abcdefghijklmnopqrst"[:n]), Table(base).anchor(1 if n <= 10 else 2))]
        found = apply_rulings(base, said).estimate
        assert found is not None
        shares.append(found.share)
    assert shares == sorted(shares, reverse=True)
    assert shares[10] == pytest.approx(0.05, abs=0.01)
    assert apply_rulings(replace(base, estimate=None), said).estimate is None
    by_looks = apply_rulings(replace(base, estimate=Misplaced(0.1, 0.02, 0.2, "looks")), said)
    assert by_looks.estimate is not None and by_looks.estimate.basis == "looks"
    assert {c.misplaced.basis for c in by_looks.clusters if c.misplaced} == {"looks"}


def test_clusters_go_on_by_their_images() -> None:
    before = clustering(places(a="abcdef", b="ghij", c="kl"), {1: "A", 2: "B", 5: "C"} | {3: "gone"})
    before = replace(before, clusters=tuple(c for c in before.clusters if c.id in (1, 2, 3)))
    new = clustering(
        dict.fromkeys("ghijk", 1) | dict.fromkeys("abcd", 2) | dict.fromkeys("xyz", 3),
        {1: "n1", 2: "n2", 3: "A"},
    )
    found = continued(new, [before], 5, keep_names=True)
    assert {c.id: c.name for c in found.clusters} == {2: "B", 1: "A", 6: "A (6)"}
    assert where(found)["g"] == 2
    own = continued(new, [before], 5, keep_names=False)
    assert {c.id: c.name for c in own.clusters} == {2: "n1", 1: "n2", 6: "A"}


def test_half_a_cluster_is_no_continuation_and_no_id_is_given_twice() -> None:
    before = clustering(places(a="abcdef"), {1: "A"})
    new = clustering(places(a="abc", b="def"), {1: "one", 2: "two"})
    assert sorted(c.id for c in continued(new, [before], 4, True).clusters) == [5, 6]


def test_an_anchor_keeps_few_images_and_the_persons_first(tmp_path: Path) -> None:
    many = {f"{n:03d}": 1 for n in range(100)}
    base = clustering(many, {1: "A"})
    table = Table(base)
    table.apply(Ruling("confirm", ("077",), table.anchor(1)))
    anchor = table.anchor(1)
    assert (len(anchor.members), anchor.members[0], anchor.size) == (MOST_MEMBERS, "077", 100)


def test_a_ruling_comes_back_from_the_log_as_it_was(tmp_path: Path) -> None:
    base = clustering(places(a="abc", b="def"), {1: "A", 2: "B"})
    table = Table(base)
    said = [
        Ruling("merge", ("a",), table.anchor(1), table.anchor(2)),
        Ruling("rename", cluster=table.anchor(2), name="ü"),
    ]
    with RunFolder.open(tmp_path / "run") as run:
        run.record_clustering(base, Settings())
        step = run.record_step("kind", said, base, apply_rulings(base, said))
        assert run.steps("kind") == (step,)
        assert run.decided("kind") == base
        ((shown, _),) = run.clusterings()
        assert shown == apply_rulings(base, said)
