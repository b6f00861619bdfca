"""The table of files: ids and paths joined once, and what is read off it."""

from dataclasses import replace

from test_export import A, B, C, clustering, collection

from manylens.results.table import join
from manylens.types import Assignment, Cluster


def test_labels_are_names_of_clusters_by_path_and_none_where_there_is_none() -> None:
    assert join(clustering(), collection()).labels == {
        "a.png": "hearts",
        "b.png": "hearts",
        "c.png": None,
        "copy/b.png": "hearts",
        "d.png": None,
    }


def test_clusters_come_by_id_with_the_mean_confidence_of_their_images() -> None:
    one = clustering()
    two = (Cluster(2, "spades", "", 1, (C,)), *one.clusters)
    placed = (*one.assignments[:2], Assignment(C, 2, 0.4, "", "choice"))
    table = join(replace(one, clusters=two, assignments=placed), collection())
    assert [(row.id, row.name, row.size) for row in table.clusters] == [(1, "hearts", 3), (2, "spades", 1)]
    assert [round(row.confidence, 6) for row in table.clusters] == [0.85, 0.4]  # images, not files, are averaged


def test_an_image_that_nothing_was_decided_about_is_unassigned_without_confidence() -> None:
    one = clustering()
    table = join(replace(one, assignments=tuple(a for a in one.assignments if a.image_id != C)), collection())
    (row,) = [row for row in table.rows if row.path == "c.png"]
    assert (row.state, row.cluster, row.confidence, row.reason) == ("unassigned", None, 0.0, "not decided")
    assert {row.image_id for row in table.rows if row.state == "assigned"} == {A, B}
