"""evaluate: the scores are those of the field, unassigned images never pay, labels are found or the error says why."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, rand_score

from manylens.cli.render import print_scores
from manylens.errors import UsageError
from manylens.results.evaluate import (
    InterestScores,
    Labels,
    choose_columns,
    evaluate_labels,
    evaluate_run,
    match_labels,
    read_labels,
)

partitions = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 5), min_size=n, max_size=n),
        st.lists(st.none() | st.integers(0, 5), min_size=n, max_size=n),
    )
)


def singletons(predicted: list[int | None]) -> list[int]:
    return [100 + i if cluster is None else cluster for i, cluster in enumerate(predicted)]


@given(partitions)
@settings(deadline=None)
def test_scores_are_scikit_learns_with_each_unassigned_image_on_its_own(
    pair: tuple[list[int], list[int | None]],
) -> None:
    true, predicted = pair
    scores = evaluate_labels(true, predicted)
    alone = singletons(predicted)
    assert scores.nmi == pytest.approx(normalized_mutual_info_score(true, alone), abs=1e-9)
    assert scores.ri == pytest.approx(rand_score(true, alone), abs=1e-12)
    assert scores.ari == pytest.approx(adjusted_rand_score(true, alone), abs=1e-9)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=25),
)
@settings(deadline=None, max_examples=50)
def test_accuracy_is_the_best_of_all_one_to_one_matchings(pairs: list[tuple[int, int]]) -> None:
    best = max(
        sum(matching[true] == found for true, found in pairs) for matching in itertools.permutations(range(5), 4)
    )
    assert evaluate_labels(*zip(*pairs, strict=True)).acc == pytest.approx(best / len(pairs))


@pytest.mark.parametrize("clusters", [1, 5, 40, 2000])
def test_accuracy_is_scipys_assignment(clusters: int) -> None:
    """With more classes than clusters, fewer, and as many clusters of one image as there are images."""
    chance = np.random.default_rng(clusters)
    true, found = chance.integers(0, 17, 2000), chance.permutation(2000) % clusters
    found[: 1500 if clusters > 20 else 0] = found[0]
    table = np.zeros((17, clusters))
    np.add.at(table, (true, found), 1)
    matched = linear_sum_assignment(table, maximize=True)
    assert evaluate_labels(true.tolist(), found.tolist()).acc == table[matched].sum() / 2000


@given(partitions, st.permutations(range(6)), st.permutations(range(6)))
@settings(deadline=None)
def test_names_of_labels_and_clusters_do_not_matter(
    pair: tuple[list[int], list[int | None]], of_true: list[int], of_predicted: list[int]
) -> None:
    true, predicted = pair
    renamed = evaluate_labels(
        [f"label {of_true[label]}" for label in true],
        [None if cluster is None else of_predicted[cluster] for cluster in predicted],
    )
    scores = evaluate_labels(true, predicted)
    assert renamed.acc == scores.acc
    assert (renamed.nmi, renamed.ri, renamed.ari) == pytest.approx((scores.nmi, scores.ri, scores.ari))


def test_a_hand_solved_case() -> None:
    """Classes aaa bb, clusters xx yyy."""
    scores = evaluate_labels(list("aaabb"), list("xxyyy"))
    # Pairs together in both: xx among a (1), yy among b (1). In classes 3 + 1, in clusters 1 + 3, of 10 pairs.
    assert scores.ri == pytest.approx((10 + 2 * 2 - 4 - 4) / 10)
    assert scores.ari == pytest.approx((2 - 1.6) / (4 - 1.6))
    assert scores.acc == pytest.approx(4 / 5)
    entropy = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    information = sum(p * math.log(p / q) for p, q in [(0.4, 0.24), (0.2, 0.36), (0.4, 0.24)])
    assert scores.nmi == pytest.approx(information / entropy)
    assert (scores.clusters_found, scores.clusters_true, scores.images, scores.unassigned) == (2, 2, 5, 0)


def test_the_same_partition_scores_one() -> None:
    for labels in (list("aabbc"), list("aaaa"), list("abcd"), ["a"]):
        scores = evaluate_labels(labels, labels)
        assert (scores.nmi, scores.ri, scores.ari, scores.acc) == pytest.approx((1, 1, 1, 1))


def test_leaving_images_out_never_pays() -> None:
    true = list("aaaabbbb")
    whole, partial = evaluate_labels(true, list("xxxxyyyy")), evaluate_labels(true, [*"xxx", None, *"yyyy"])
    assert (partial.clusters_found, partial.unassigned) == (2, 1)
    assert partial.acc == pytest.approx(7 / 8)
    assert partial.nmi < whole.nmi
    assert partial.ari < whole.ari
    assert evaluate_labels(true, [None] * 8).clusters_found == 0


def test_no_images_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        evaluate_labels([], [])
    with pytest.raises(ValueError, match="1 labels and 0 predictions"):
        evaluate_labels(["a"], [])


# Labels files


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["file", "Image", "\ufefffile"])
def test_labels_are_read_as_spreadsheets_write_them(tmp_path: Path, delimiter: str, head: str) -> None:
    text = f"{head},suit,deck style\r\n./a.png,hearts,\r\n\r\n'b\n.png',spades,old\r\n"
    path = write(tmp_path / "labels.csv", text.replace(",", delimiter).replace("'", '"'))
    labels = read_labels(path)
    assert labels.attributes == ("suit", "deck style")
    assert labels.rows == {
        "a.png": {"suit": "hearts", "deck style": ""},
        "b\n.png": {"suit": "spades", "deck style": "old"},
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no columns"),
        ("name,suit\na.png,hearts\n", "has name, suit"),
        ("file\na.png\n", "file names only"),
        ("file,suit\na.png,hearts\n./a.png,spades\n", "another in row 3"),
        ("file,suit,suit\na.png,hearts,spades\n", "different names"),
        ("file,suit\n" + '"' + "x" * 200_000, "is none"),
    ],
)
def test_a_labels_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part) as caught:
        read_labels(write(tmp_path / "labels.csv", text))
    assert caught.value.hint


def test_labels_in_another_encoding_are_a_usage_error(tmp_path: Path) -> None:
    for content in ("file,suit\na.png,hearts\n".encode("utf-16"), "file,Größe\na.png,1\n".encode("latin-1")):
        (tmp_path / "labels.csv").write_bytes(content)
        with pytest.raises(UsageError, match="in UTF-8"):
            read_labels(tmp_path / "labels.csv")


def test_a_missing_labels_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "none.csv")


def labels_of(*files: str) -> Labels:
    return Labels("labels.csv", ("suit",), {file: {"suit": file.upper()} for file in files})


def test_images_match_by_path_then_by_a_unique_base_name() -> None:
    found = match_labels(labels_of("x/a.png", "photos/b.png", "c.png"), ["x/a.png", "b.png", "y/c.png", "d.png"])
    assert found == {"x/a.png": "x/a.png", "b.png": "photos/b.png", "y/c.png": "c.png"}


def test_an_ambiguous_base_name_matches_nothing() -> None:
    """Guessing would give an image another one's label."""
    assert match_labels(labels_of("a.png", "z.png"), ["x/a.png", "y/a.png", "z.png"]).keys() == {"z.png"}
    assert match_labels(labels_of("p/a.png", "q/a.png", "z.png"), ["a.png", "z.png"]).keys() == {"z.png"}


def test_nothing_matched_shows_both_sides() -> None:
    with pytest.raises(UsageError, match=r"an image: 'a.png', a row: 'b.png'"):
        match_labels(labels_of("b.png"), ["a.png"])


# Interests and columns

COLUMNS = ("suit", "rank", "deck_style", "style")


@pytest.mark.parametrize(
    ("interest", "slug", "expected"),
    [
        ("suit", "suit", (("suit",), "same name")),
        ("Deck Style", "deck-style", (("deck_style",), "same name")),
        ("suits of the cards", "suits-of-the-cards", (("suit",), "word")),
        ("which rank is it?", "which-rank-is-it", (("rank",), "word")),
        ("the deck's style", "the-deck-s-style", (("style",), "word")),
        ("look of the deck style", "look-of-the-deck-style", (("deck_style",), "word")),
        ("rank and suit", "rank-and-suit", (("suit", "rank"), "word")),
        ("pursuit of frankness", "pursuit-of-frankness", (COLUMNS, "every column")),
    ],
)
def test_the_column_is_chosen_by_name_then_by_words(interest: str, slug: str, expected: object) -> None:
    assert choose_columns(interest, slug, COLUMNS) == expected


def test_the_persons_choice_outranks_names_and_must_exist() -> None:
    assert choose_columns("suit", "suit", COLUMNS, "rank") == (("rank",), "asked")
    with pytest.raises(UsageError, match="did you mean rank"):
        choose_columns("suit", "suit", COLUMNS, "rnak")


@pytest.mark.parametrize("interest", ["split", "split of the hair", "mood"])
def test_a_column_of_bookkeeping_is_compared_only_where_it_is_asked_for(interest: str) -> None:
    columns = ("Split", "subset", "fold", "partition")
    assert choose_columns(interest, "slug", (*columns, "suit")) == (("suit",), "every column")
    assert choose_columns(interest, "slug", columns, "fold") == (("fold",), "asked")
    assert choose_columns(interest, "slug", columns)[0] == ()


# Runs


def make_run(out: Path, interest: str, slug: str, clusters: dict[str, str]) -> None:
    (out / slug).mkdir(parents=True)
    (out / slug / "summary.json").write_text(json.dumps({"interest": interest}))
    with open(out / slug / "assignments.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "cluster", "name", "confidence", "reason", "decided_by"])
        writer.writerows([image, cluster, "", "", "", ""] for image, cluster in clusters.items())


def test_a_run_is_compared_interest_by_interest(tmp_path: Path) -> None:
    make_run(tmp_path, "suits, please", "suits--please", {"a\n.png": "1", "b.png": "2", "c.png": "", "new.png": "1"})
    make_run(tmp_path, "rank", "rank", {"a\n.png": "1", "b.png": "1"})
    rows = {
        "a\n.png": {"suit": "h", "rank": "9"},
        "b.png": {"suit": "s", "rank": "9"},
        "c.png": {"suit": "s", "rank": ""},
    }
    rank, suit = evaluate_run(tmp_path, Labels("labels.csv", ("suit", "rank"), rows))
    assert (rank.interest, rank.column, rank.chosen_by, rank.scores.nmi) == ("rank", "rank", "same name", 1)
    assert (suit.interest, suit.slug, suit.chosen_by) == ("suits, please", "suits--please", "word")
    assert (suit.scores.images, suit.scores.unassigned, suit.unlabeled) == (3, 1, 1)
    assert (suit.unused, rank.unused) == ((), ("c.png",))
    (only,) = evaluate_run(tmp_path / ".", Labels("l", ("x", "suit"), rows), {"rank": "suit", "suits, please": "suit"})[
        :1
    ]
    assert (only.column, only.chosen_by) == ("suit", "asked")


def test_a_column_of_another_interest_s_name_is_not_compared(tmp_path: Path) -> None:
    make_run(tmp_path, "suit", "suit", {"a.png": "1", "b.png": "2"})
    make_run(tmp_path, "what it is worth", "what-it-is-worth", {"a.png": "1", "b.png": "1"})
    make_run(tmp_path, "color of the suit", "color-of-the-suit", {"a.png": "1", "b.png": "1"})
    rows = {"a.png": {"suit": "h", "rank": "9", "color": "red"}, "b.png": {"suit": "s", "rank": "9", "color": "red"}}
    found = evaluate_run(tmp_path, Labels("l", ("suit", "rank", "color"), rows))
    assert [(one.slug, one.column, one.chosen_by) for one in found] == [
        ("color-of-the-suit", "color", "word"),
        ("suit", "suit", "same name"),
        ("what-it-is-worth", "rank", "every column"),
    ]


def test_a_compound_interest_is_compared_with_the_columns_of_its_parts_together(tmp_path: Path) -> None:
    make_run(tmp_path, "suit", "suit", {"a.png": "1", "b.png": "2", "c.png": "2"})
    make_run(tmp_path, "rank", "rank", {"a.png": "1", "b.png": "1", "c.png": "2"})
    make_run(tmp_path, "suit and rank", "suit-and-rank", {"a.png": "1", "b.png": "2", "c.png": "3"})
    rows = {
        name: {"suit": s, "rank": r} for name, s, r in (("a.png", "h", "9"), ("b.png", "s", "9"), ("c.png", "s", "8"))
    }
    found = evaluate_run(tmp_path, Labels("l", ("suit", "rank"), rows))
    assert [(one.interest, one.column, one.scores.nmi) for one in found] == [
        ("rank", "rank", 1.0),
        ("suit", "suit", 1.0),
        ("suit and rank", "suit + rank", 1.0),
    ]
    assert found[2].scores.clusters_true == 3


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
def test_assignments_that_a_spreadsheet_has_saved_are_read(tmp_path: Path, encoding: str, delimiter: str) -> None:
    make_run(tmp_path, "suit", "suit", {"Größe.png": "1", "b.png": ""})
    file = tmp_path / "suit" / "assignments.csv"
    file.write_bytes(file.read_text("utf-8").replace(",", delimiter).encode(encoding) + 5 * delimiter.encode())
    labels = Labels("l", ("suit",), {"Größe.png": {"suit": "h"}, "b.png": {"suit": "s"}})
    (suit,) = evaluate_run(tmp_path, labels)
    assert (suit.scores.images, suit.scores.unassigned, suit.unlabeled) == (2, 1, 0)


def test_without_a_fitting_column_all_are_tried(tmp_path: Path) -> None:
    make_run(tmp_path, "mood", "mood", {"a.png": "1"})
    results = evaluate_run(tmp_path, Labels("l", ("suit", "rank"), {"a.png": {"suit": "h", "rank": "9"}}))
    assert [(result.column, result.chosen_by) for result in results] == [
        ("suit", "every column"),
        ("rank", "every column"),
    ]
    make_run(tmp_path, "suit", "suit", {"a.png": "1"})
    rows = {"a.png": {"suit": "h", "rank": "9"}}
    named = evaluate_run(tmp_path, Labels("l", ("suit", "rank"), rows), {"suit": "rank"})
    assert [(result.interest, result.column) for result in named] == [("suit", "rank")], "moods have no column"


def test_an_interest_of_other_pictures_is_passed_over(tmp_path: Path) -> None:
    make_run(tmp_path, "old", "old", {"other.png": "1"})
    make_run(tmp_path, "suit", "suit", {"a.png": "1"})
    labels = Labels("l", ("suit", "old"), {"a.png": {"suit": "h", "old": "x"}})
    assert [result.interest for result in evaluate_run(tmp_path, labels)] == ["suit"]
    with pytest.raises(UsageError, match="none of the 1 rows"):
        evaluate_run(tmp_path, labels, {"old": "old"})


def test_a_run_that_cannot_be_compared_says_why(tmp_path: Path) -> None:
    labels = labels_of("a.png")
    with pytest.raises(UsageError, match="has none: give"):
        evaluate_run(tmp_path, labels)
    (tmp_path / "run.sqlite").touch()
    with pytest.raises(UsageError, match="has none yet: run the command that began it again"):
        evaluate_run(tmp_path, labels)
    make_run(tmp_path, "suit", "suit", {"a.png": "1"})
    with pytest.raises(UsageError, match="did you mean suit"):
        evaluate_run(tmp_path, labels, {"siut": "suit"})
    with pytest.raises(UsageError, match="are empty"):
        evaluate_run(tmp_path, Labels("l", ("suit",), {"a.png": {"suit": ""}}))


def test_images_without_a_label_are_said_of_every_column_that_was_tried() -> None:
    scores = evaluate_labels(["a", "b"], ["1", "2"])
    tried = [InterestScores("kind", "kind", column, "every column", scores, 3) for column in ("species", "color")]
    written = io.StringIO()
    print_scores(Console(file=written, width=200), tried)
    text = written.getvalue()
    assert "3 pictures have no species label" in text and "3 pictures have no color label" in text
    assert text.count("no column has its name") == 1


def test_a_column_that_has_not_the_interests_very_name_is_told_with_the_reason() -> None:
    scores = evaluate_labels(["a", "b"], ["1", "2"])
    chosen = [
        InterestScores("suits of the cards", "suits-of-the-cards", "suit", "word", scores, 0),
        InterestScores("Deck style", "deck-style", "deck_style", "same name", scores, 0),
        InterestScores("Rank", "rank", "rank", "same name", scores, 0),
        InterestScores("mood", "mood", "pose", "asked", scores, 0),
    ]
    written = io.StringIO()
    print_scores(Console(file=written, width=200), chosen)
    told = [line for line in written.getvalue().splitlines() if "compared with the column" in line]
    assert [line.partition(";")[0] for line in told] == [
        "suits of the cards: compared with the column suit, whose name occurs in it",
        "Deck style: compared with the column deck_style, whose name differs in punctuation only",
    ]


def test_names_match_across_unicode_forms_and_where_unambiguous_across_case(tmp_path: Path) -> None:
    names = ["Übung/Blüte é.png", "A.PNG", "b.png", "B.png"]
    rows = "".join(f"{unicodedata.normalize('NFC', name)},x\n" for name in [names[0], "a.png", *names[2:]])
    (tmp_path / "labels.csv").write_text("file,kind\n" + rows, encoding="utf-8")
    labels = read_labels(tmp_path / "labels.csv")
    images = [unicodedata.normalize("NFD", names[0]), *names[1:]]
    assert match_labels(labels, images) == dict(zip(images, [names[0], "a.png", "b.png", "B.png"], strict=True))
    assert match_labels(labels, ["sub/" + images[0].rsplit("/", 1)[-1]]) != {}
    with pytest.raises(UsageError):  # which of the two?
        match_labels(labels, ["c/b.PNG"])
