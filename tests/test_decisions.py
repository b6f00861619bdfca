"""Decisions in the database: they come back as they were, an interest is replaced whole, a person's words stay."""

from dataclasses import replace
from pathlib import Path

from test_export import clustering, collection

from manylens.results.table import as_of, join
from manylens.settings import Settings
from manylens.store.run_folder import RunFolder
from manylens.types import Clustering, Interest


def full() -> Clustering:
    one = clustering("h\udcffarts", "said \x00 so")
    return replace(one, not_looked=("e" * 64,), is_partial=True, foreseen_calls=(3, 9))


def test_a_clustering_comes_back_as_it_was(tmp_path: Path) -> None:
    settings = Settings(into=("good", "bad"), effort="high", seed=3)
    with RunFolder.open(tmp_path) as run:
        run.record_clustering(clustering(), settings)
    with RunFolder.open(tmp_path) as run:
        assert run.clusterings() == [(clustering(), settings)]


def test_bytes_that_are_no_text_do_not_stop_the_decisions(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.record_clustering(full(), Settings())
        ((back, _),) = run.clusterings()
    assert back.clusters[0].name == "h\\udcffarts"
    assert (back.not_looked, back.is_partial, back.foreseen_calls) == (("e" * 64,), True, (3, 9))


def test_an_interest_is_replaced_whole_and_keeps_its_place(tmp_path: Path) -> None:
    rank = replace(clustering("kings"), interest=Interest("rank"))
    fewer = replace(clustering("spades"), assignments=clustering().assignments[:1], failed=(), clusters=())
    with RunFolder.open(tmp_path) as run:
        run.record_clustering(clustering(), Settings())
        run.record_clustering(rank, Settings())
        run.record_clustering(fewer, Settings(seed=1))
        assert run.clusterings() == [(fewer, Settings(seed=1)), (rank, Settings())]


def test_an_earlier_clustering_of_a_changed_collection_leaves_out_what_is_gone_and_says_what_is_new() -> None:
    now = collection()
    now = replace(now, images=(*now.images[1:], replace(now.images[0], id="f" * 64, paths=("new.png",))))
    table = join(as_of(clustering(), now), now)
    assert [(row.path, row.state) for row in table.rows] == [
        ("b.png", "assigned"),
        ("c.png", "unassigned"),
        ("copy/b.png", "assigned"),
        ("d.png", "failed"),
        ("new.png", "not looked at"),
    ]
    assert table.clusters[0].exemplars == ("b.png",)
    unchanged = replace(clustering(), not_looked=())
    assert as_of(unchanged, collection()) is unchanged
