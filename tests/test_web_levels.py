"""Other levels, two runs side by side, exports and commands: what the page shows without asking a model."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_page import Page, begin, page_of

from manylens import cli
from manylens.settings import Settings
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Image, Interest
from manylens.web.columns import cluster_columns, described, image_columns
from manylens.web.tree import Tree, make_tree


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(out: Path) -> Iterator[Page]:
    with page_of(out) as page:
        yield page


def test_the_tree_at_as_many_groups_as_clusters_is_the_clustering(page: Page) -> None:
    levels = page.get("/api/interests/color/levels")
    assert (levels["current_groups"], len(levels["ids"])) == (3, 24)
    assert len(levels["joins"]) == len(levels["leaves"]) - 1
    view = page.get("/api/interests/color/levels/3")
    assert {group["name"]: group["size"] for group in view["groups"]} == {"red": 8, "green": 8, "blue": 8}
    (all_in_one,) = page.get("/api/interests/color/levels/1")["groups"]
    assert (all_in_one["size"], sorted(all_in_one["clusters"])) == (24, [1, 2, 3])
    page.get("/api/interests/color/levels/0", 422)


def tree_of(descriptions: list[tuple[int, int]], parents: list[str]) -> tuple[Tree, list[tuple[int, int]]]:
    """Of images in clusters (number, description); each description a direction of its own in the plane."""
    ids = [f"{at:064x}" for at in range(len(descriptions))]
    images = image_columns([Image(image_id, (image_id,), 1, 1) for image_id in ids], 1)
    numbers = sorted({number for number, _ in descriptions})
    clustering = Clustering(
        Interest("kind"),
        "nano",
        tuple(Cluster(n, f"cluster {n}", "", sum(m == n for m, _ in descriptions), (), parents[n]) for n in numbers),
        tuple(Assignment(i, n, 1.0, "", "choice") for i, (n, _) in zip(ids, descriptions, strict=True)),
        (),
        CallCounts(),
        0.0,
    )
    looks = {i: f"words {n} {d}" for i, (n, d) in zip(ids, descriptions, strict=True)}
    columns = cluster_columns(clustering, Settings(), described(looks, images), images, 1)
    angles = np.array([n + d / 10 for n, d in descriptions])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    return make_tree(columns, vectors, np.arange(len(ids))), descriptions


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30),
    st.lists(st.sampled_from(["", "a", "b"]), min_size=5, max_size=5),
)
def test_every_cut_is_a_partition_and_a_finer_one_lies_within_a_coarser_one(
    descriptions: list[tuple[int, int]], parents: list[str]
) -> None:
    tree, said = tree_of(descriptions, parents)
    before: list[set[int]] = [set(range(len(said)))]
    for count in range(1, len(tree.leaves) + 1):
        groups = [{int(r) for at in own for r in tree.leaves[at].rows} for _, own in tree.groups(count)]
        assert len(groups) == count and sorted(r for group in groups for r in group) == list(range(len(said)))
        assert all(any(group <= coarser for coarser in before) for group in groups)
        before = groups
    clusters = [{row for row, (n, _) in enumerate(said) if n == number} for number in {n for n, _ in said}]
    cut = [{int(r) for at in own for r in tree.leaves[at].rows} for _, own in tree.groups(tree.clusters)]
    assert sorted(map(sorted, cut)) == sorted(map(sorted, clusters))


def test_clusters_of_one_parent_join_before_others_and_take_its_name() -> None:
    tree, _ = tree_of([(0, 0), (1, 0), (2, 0), (3, 0)], ["a", "", "a", ""])
    assert [name for name, own in tree.groups(3) if len(own) == 2] == ["a"]
    assert tree.of_parents == 3


def test_two_runs_are_matched_by_what_they_share(tmp_path: Path) -> None:
    one, other = begin(tmp_path / "one", ("color",)), begin(tmp_path / "two", ("color",))
    with page_of(other) as page:
        page.post(
            "/api/interests/color/corrections",
            {"kind": "move", "images": [page.key("red-wide-0.png")], "to": page.cluster("blue")},
        )
        page.post("/api/interests/color/corrections", {"kind": "rename", "cluster": page.cluster("red"), "name": "rot"})
    with page_of(one) as page, page_of(other) as there:
        page.get("/api/compare?here=color&there=color", 404)
        page.run.other = there.run
        assert page.get("/api/comparable")["there"] == [{"slug": "color", "interest": "color", "model": "scripted"}]
        found = page.get("/api/compare?here=color&there=color")
        assert (found["images"], found["same"], found["moved_total"]) == (24, 23, 1)
        assert {(pair["here_name"], pair["there_name"], pair["shared"]) for pair in found["pairs"]} == {
            ("red", "rot", 7), ("green", "green", 8), ("blue", "blue", 8)
        }  # fmt: skip
        assert [moved["id"] for moved in found["moved"]] == [page.key("red-wide-0.png")]
        assert 0.8 < found["agreement"] < 1
        same = page.get("/api/compare?here=color&there=color&of_other=false")
        assert (same["same"], same["agreement"], same["moved"]) == (24, 1.0, [])


def test_an_export_has_what_was_said_last_and_overwrites_nothing(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    with page_of(out) as page:
        assert "csv" in page.get("/api/formats")["formats"]
        page.post("/api/interests/color/corrections", {"kind": "rename", "cluster": page.cluster("red"), "name": "rot"})
        done = page.post("/api/export", {"to": "csv", "dest": str(tmp_path / "table.csv")})
        with open(done["path"], newline="", encoding="utf-8") as file:
            rows = {row["image"]: row["color_name"] for row in csv.DictReader(file)}
        assert (done["files"], rows["red-wide-0.png"]) == (24, "rot")
        assert (
            "overwritten" in page.post("/api/export", {"to": "csv", "dest": str(tmp_path / "table.csv")}, 400)["rule"]
        )
        preview = page.post(
            "/api/export", {"to": "folders", "by": "color", "dest": str(tmp_path / "sorted"), "preview": True}
        )
        assert preview["steps"] and not (tmp_path / "sorted").exists()
        page.post("/api/export", {"to": "nonsense"}, 422)


def test_the_commands_repeat_the_run(page: Page, out: Path) -> None:
    lines = page.get("/api/command")["lines"]
    words = [shlex.split(line) for line in lines]
    assert [line[:2] for line in words] == [["manylens", "cluster"]] * 2
    assert [line[line.index("--by") + 1] for line in words] == ["color", "shape"]
    assert {line[line.index("--out") + 1] for line in words} == {str(out)}
    assert {line[2] for line in words} == {str(out.parent / "pictures")}
    known = {option for one in cli.main.commands.commands["cluster"].params for option in one.opts}
    assert {word for line in words for word in line if word.startswith("--")} <= known
