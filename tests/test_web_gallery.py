"""The page shows what the run holds: clusters, images, filters, pictures, likeness."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from web_page import Page, begin, page_of

from manylens.store.run_folder import RunFolder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(out: Path) -> Iterator[Page]:
    with page_of(out) as page:
        yield page


def test_the_run_says_what_it_holds(page: Page) -> None:
    run = page.get("/api/run")
    assert (run["state"], run["images"], run["files"], run["read_only"]) == ("ready", 24, 24, False)
    assert [(one["slug"], one["clusters"], one["assigned"]) for one in run["interests"]] == [
        ("color", 3, 24),
        ("shape", 2, 24),
    ]


def test_clusters_have_sizes_exemplars_and_a_histogram_of_all_their_images(page: Page) -> None:
    detail = page.get("/api/interests/color")
    assert {one["name"]: one["size"] for one in detail["cluster_list"]} == {"red": 8, "green": 8, "blue": 8}
    for one in detail["cluster_list"]:
        assert sum(one["histogram"]) == one["images"] == 8
        assert all(len(key) == 16 for key in one["exemplars"]) and one["exemplars"]
    assert detail["calls"]["look"] == 24
    assert detail["settings"]["level"] == "medium"
    assert (detail["can_undo"], detail["can_redo"]) == (False, False)


def test_images_are_filtered_sorted_and_paged(page: Page) -> None:
    red, wide = page.cluster("red"), page.cluster("wide", "shape")

    def paths(**query: Any) -> list[str]:
        return [item["path"] for item in page.get("/api/interests/color/images", **query)["items"]]

    assert len(paths()) == 24
    assert all(path.startswith("red") for path in paths(cluster=red)) and len(paths(cluster=red)) == 8
    assert paths(cluster=red, sort="path", **{"with": f"shape:{wide}"}) == [f"red-wide-{n}.png" for n in range(4)]
    assert paths(q="TALL-2", sort="path") == ["blue-tall-2.png", "green-tall-2.png", "red-tall-2.png"]
    assert len(paths(q="green")) == 8, "a word of descriptions and names"
    assert paths(q="red green") == []
    assert paths(cluster="none") == []
    assert paths(sort="path", offset=22) == ["red-wide-2.png", "red-wide-3.png"]
    assert paths(sort="path", offset=3, limit=1) == ["blue-tall-3.png"]
    confidence = [item["confidence"] for item in page.get("/api/interests/color/images", sort="confidence")["items"]]
    assert confidence == sorted(confidence)
    assert paths(decided_by="person") == []


def test_the_layout_is_the_images_cluster_by_cluster(page: Page) -> None:
    layout = page.get("/api/interests/color/layout", sort="path")
    assert layout["total"] == 24 == len(layout["ids"]) == len(layout["aspect"]) == len(layout["confidence"])
    names = {one["id"]: one["name"] for one in page.get("/api/interests/color")["cluster_list"]}
    for section in layout["sections"]:
        own = layout["ids"][section["start"] : section["start"] + section["count"]]
        items = page.get("/api/interests/color/items", ids=own)["items"]
        assert {item["cluster"] for item in items} == {section["cluster"]}
        assert all(item["path"].startswith(names[section["cluster"]]) for item in items)
        assert [item["path"] for item in items] == sorted(item["path"] for item in items)
    wide = page.get("/api/interests/color/layout", q="wide")
    assert wide["total"] == 12 and all(ratio > 1 for ratio in wide["aspect"])


def test_an_image_says_what_placed_it_and_where_the_others_put_it(page: Page) -> None:
    image = page.get(f"/api/images/{page.key('red-wide-0.png')}")
    assert image["paths"] == ["red-wide-0.png"] and image["on_disk"] and image["bytes"] > 0
    by_slug = {place["slug"]: place for place in image["places"]}
    assert (by_slug["color"]["name"], by_slug["shape"]["name"]) == ("red", "wide")
    looks = [asked for asked in by_slug["color"]["asked"] if asked["kind"] == "look"]
    assert looks[0]["answer"] == by_slug["color"]["description"]


def test_a_question_shows_its_options_by_probability(page: Page) -> None:
    items = page.get("/api/interests/color/images", decided_by="choice")["items"]
    assert items, "some image was asked"
    places = page.get(f"/api/images/{items[0]['id']}")["places"]
    choices = [asked for asked in places[0]["asked"] if asked["kind"] == "choose"]
    assert choices and {option["name"] for asked in choices for option in asked["options"]} <= {
        "red", "green", "blue", ""
    }  # fmt: skip
    for asked in choices:
        shares = [option["probability"] for option in asked["options"]]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 1) < 0.01
        assert asked["answer"] == asked["options"][0]["name"]


def test_neighbours_are_the_nearest_by_embedding(page: Page, out: Path) -> None:
    key = page.key("blue-tall-1.png")
    found = page.get(f"/api/images/{key}/neighbours", interest="color", limit=5)["neighbours"]
    with RunFolder.read(out) as run:
        vectors = {i[:16]: v.astype(np.float32) for i, v in run.embeddings("color").items()}
    oracle = sorted((other for other in vectors if other != key), key=lambda o: (-vectors[o] @ vectors[key], o))
    expected = [float(vectors[other] @ vectors[key]) for other in oracle[:5]]
    assert [one["similarity"] for one in found] == pytest.approx(expected, abs=1e-3)
    weights = [one["weight"] for one in found]
    assert weights == sorted(weights, reverse=True) and all(0 <= weight <= 1 for weight in weights)
    assert key not in {one["id"] for one in found}


def test_the_map_has_a_point_for_each_image_within_its_bounds(page: Page) -> None:
    found = page.get("/api/interests/color/map")
    points = np.frombuffer(base64.b64decode(found["points"]), "<f4").reshape(-1, 2)
    assert points.shape == (24, 2) and len(found["ids"]) == 24 == len(found["clusters"])
    assert np.abs(points).max() <= 1.0001 and np.ptp(points, axis=0).min() > 0
    assert found["points"] == page.get("/api/interests/color/map")["points"]


def test_the_cross_table_counts_each_image_once(page: Page) -> None:
    cross = page.get("/api/cross", a="color", b="shape")
    assert [row["name"] for row in cross["rows"]] and np.array(cross["counts"]).tolist() == [[4, 4]] * 3
    assert sum(map(sum, page.get("/api/cross", a="color", b="color")["counts"])) == 24


def test_thumbnails_are_jpegs_that_may_be_kept_for_good(page: Page, out: Path) -> None:
    key = page.key("red-wide-0.png")
    sizes = {}
    for size in ("small", "large"):
        response = page.client.get(f"/api/images/{key}/thumbnail", params={"size": size})
        assert "immutable" in response.headers["cache-control"]
        with PIL.Image.open(io.BytesIO(response.content)) as picture:
            assert picture.format == "JPEG"
            sizes[size] = picture.size
        again = page.client.get(
            f"/api/images/{key}/thumbnail", params={"size": size}, headers={"If-None-Match": response.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
    assert max(sizes["small"]) <= 256 and max(sizes["large"]) >= max(sizes["small"])
    assert list((out / "thumbnails").glob("*/*.jpg")), "the large one was made once and kept"


def test_the_full_picture_is_encoded_anew_without_what_came_with_it(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    with page_of(out) as page:
        response = page.client.get(f"/api/images/{page.key('red-wide-0.png')}/full")
    assert response.headers["content-type"] == "image/jpeg"
    assert b"exif" not in response.content.lower() and b"tEXt" not in response.content


@pytest.fixture
def from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawn pictures are so small that their thumbnails are all there is of them; these count as larger ones."""
    monkeypatch.setattr("manylens.collection.pictures.THUMBNAIL_PX", 8)


@pytest.mark.usefixtures("from_files")
def test_a_picture_that_was_deleted_keeps_its_thumbnail_and_its_place(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    with page_of(out) as page:
        key = page.key("red-wide-0.png")
        (tmp_path / "pictures" / "red-wide-0.png").unlink()
        assert page.client.get(f"/api/images/{key}/thumbnail").status_code == 200
        large = page.client.get(f"/api/images/{key}/thumbnail", params={"size": "large"})
        assert (large.status_code, large.headers["content-type"]) == (200, "image/jpeg")
        assert page.get(f"/api/images/{key}")["on_disk"] is False
        assert page.place("red-wide-0.png") == "red"
        gone = page.get(f"/api/images/{key}/full", 404)
        assert "red-wide-0.png" in gone["rule"] and gone["hint"]
        page.post(f"/api/images/{key}/show-in-folder", status=404)


@pytest.mark.usefixtures("from_files")
def test_a_picture_that_changed_is_not_shown_for_the_old_one(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    (tmp_path / "pictures" / "red-wide-0.png").write_bytes((tmp_path / "pictures" / "blue-tall-0.png").read_bytes())
    with page_of(out) as page:
        page.get(f"/api/images/{page.key('red-wide-0.png')}/full", 404)


def test_what_is_not_there_is_said_so(page: Page) -> None:
    for path in (
        "/api/interests/nothing",
        "/api/interests/nothing/layout",
        f"/api/images/{'0' * 16}",
        f"/api/images/{'0' * 64}/thumbnail",
        "/api/cross?a=color&b=nothing",
        "/api/interests/color/images?with=nothing:3",
        "/api/interests/color/images?with=nonsense",
        "/api/no-such-route",
    ):
        assert set(page.get(path, 404)) == {"rule", "hint"}
    page.get("/api/images/../../etc/passwd", 404)
    page.get("/api/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd/full", 404)
    page.get("/api/images/..%2frun.sqlite/full", 404)
    page.get(f"/api/images/{'g' * 16}", 422)
    page.get("/api/interests/color/images?limit=-1", 422)


def test_a_new_start_has_a_folder_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with page_of(tmp_path / "out", tmp_path / "pictures") as page:
        run = page.get("/api/run")
        assert (run["state"], run["images"], run["interests"], run["folder_is_there"]) == ("new", 0, [], True)
        page.get("/api/interests/color", 404)
        assert page.get("/api/jobs") == {"jobs": []}
    assert not (tmp_path / "out").exists(), "looking begins no run"


def test_a_run_of_before_is_brought_up_to_date_and_a_read_only_one_is_shown_as_it_is(tmp_path: Path) -> None:
    out = begin(tmp_path, ("color",))
    before = sorted(path.name for path in out.iterdir())
    with page_of(out, read_only=True) as page:
        assert page.get("/api/run")["read_only"] is True
        key = page.key("red-wide-0.png")
        assert page.client.get(f"/api/images/{key}/thumbnail", params={"size": "large"}).status_code == 200
        refused = page.post("/api/interests/color/corrections", {"kind": "unassign", "images": [key]}, 403)
        assert "--read-only" in refused["rule"]
        page.post("/api/interests/color/undo", status=403)
        page.post("/api/jobs", {"by": ["shape"]}, 403)
        page.post("/api/export", {"to": "csv"}, 403)
    after = {path.name for path in out.iterdir()} - {"run.sqlite-wal", "run.sqlite-shm"}
    assert sorted(after) == before, "nothing was written"
