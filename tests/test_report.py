"""The report: self-contained, inert, and the same bytes each time."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage

from manylens.collection.find import Collection
from manylens.results import report
from manylens.results.report import encode_thumbnail, render_report
from manylens.text import shown_name
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Image, Interest, Unreadable

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def collection(count: int = 3, name: str = "picture") -> Collection:
    images = tuple(Image(f"{i:064x}", (f"{name} {i}.png",), 40, 20) for i in range(count))
    return Collection(Path("/secret/place"), images, (Unreadable(f"{ATTACK}.jpg", ATTACK),), 0, count + 1)


def clustering(of: Collection, interest: str = "suit", text: str = "hearts") -> Clustering:
    ids = [image.id for image in of.images]
    return Clustering(
        interest=Interest(interest),
        model="scripted",
        clusters=(Cluster(1, text, text, len(ids) - 1, (ids[0],)),),
        assignments=(
            *(Assignment(image_id, 1, 0.75, text, "choice") for image_id in ids[:-1]),
            Assignment(ids[-1], None, 0.0, text, ""),
        ),
        failed=(),
        calls=CallCounts(look=len(ids)),
        density=0.5,
        notes=(text,),
    )


def thumbnail(image_id: str) -> bytes:
    return encode_thumbnail(PillowImage.new("RGB", (300, 200), (40 * int(image_id, 16) % 256, 80, 90)))


def render(*clusterings: Clustering, of: Collection) -> str:
    return render_report(clusterings, of, thumbnail, version="1.2.3")


def test_without_scripts_there_is_a_table_of_the_clusters_with_every_name_escaped() -> None:
    of = collection(5, ATTACK)
    page = render(clustering(of, text=ATTACK), clustering(of, "rank"), of=of)
    plain = page[page.index("<noscript>") : page.index("</noscript>")]
    assert plain.count("<tr>") == 2 + 2  # a heading and a cluster each
    assert "suit/assignments.csv" in plain
    assert "<script" not in plain
    assert "&lt;img src=x" in plain


def test_two_interests_are_compared_and_a_compound_one_with_neither_of_its_parts() -> None:
    of = collection(40)
    data = data_of(render(*(clustering(of, name) for name in ("suit", "rank", "suit and rank", "mood")), of=of))
    assert [(one, two) for one, two, _ in data["crossed"]] == [(0, 1), (0, 3), (1, 3), (2, 3)]
    assert "cannot be told" in data["crossed"][0][2]  # all in one cluster


class _Page(HTMLParser):
    """What a browser sees: elements, with the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag in ("script", "style")
        if self._inside:
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    values: dict[str, Any] = json.loads(match[1])
    return values


def test_texts_of_images_never_become_markup() -> None:
    of = collection(name=ATTACK)
    page = render(clustering(of, text=ATTACK), of=of)
    plain = render(clustering(collection()), of=collection())
    assert Counter(tag for tag, _ in _Page(page).elements) == Counter(tag for tag, _ in _Page(plain).elements)
    assert data_of(page)["interests"][0]["clusters"][0]["name"] == ATTACK


def test_the_script_never_parses_text_as_markup() -> None:
    script = report._part("report.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", script)


def test_the_policy_allows_exactly_the_two_inline_parts() -> None:
    page = _Page(render(clustering(collection()), of=collection()))
    (policy,) = [str(of["content"]) for tag, of in page.elements if of.get("http-equiv") == "Content-Security-Policy"]
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    hashes = {
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" for text in page.texts
    }
    assert allowed["default-src"] == "'none'"
    assert allowed["img-src"] == "data:"
    assert {allowed["style-src"], allowed["script-src"]} <= hashes
    assert not [of for _, of in page.elements if {"style", "onclick", "onload", "onerror"} & set(of)]


def test_the_page_loads_nothing() -> None:
    page = render(clustering(collection()), of=collection())
    links = [value for _, of in _Page(page).elements for name, value in of.items() if name in ("src", "href")]
    assert links == ["#clusters"]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", page)


def test_every_image_and_reason_is_in_the_page() -> None:
    of = collection(5)
    values = data_of(render(clustering(of), of=of))
    assert [image["paths"] for image in values["images"]] == [[f"picture {i}.png"] for i in range(5)]
    assert [row[1] for row in values["interests"][0]["assignments"]] == [1, 1, 1, 1, 0]
    assert all(row[3] == "hearts" for row in values["interests"][0]["assignments"])
    assert values["unreadable"] == [[f"{ATTACK}.jpg", ATTACK]]


def test_a_thumbnail_is_embedded_once_for_all_interests() -> None:
    of = collection()
    page = render(clustering(of, "suit"), clustering(of, "rank"), of=of)
    jpeg = base64.b64encode(thumbnail(of.images[1].id)).decode()
    assert page.count(jpeg) == 1
    assert [interest["slug"] for interest in data_of(page)["interests"]] == ["suit", "rank"]


def test_the_page_holds_no_absolute_path() -> None:
    assert "/secret/place" not in render(clustering(collection()), of=collection())


def test_equal_inputs_give_equal_bytes() -> None:
    of = collection()
    assert render(clustering(of), of=of) == render(clustering(of), of=of)


def test_past_the_limit_exemplars_keep_their_thumbnails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_THUMBNAILS", 2)
    of = collection(6)
    values = data_of(render(clustering(of), of=of))
    assert values["images"][0]["thumb"]
    assert sum(bool(image["thumb"]) for image in values["images"]) == 2
    assert values["unpictured"] == 4


def test_thumbnails_are_small_jpegs() -> None:
    with PillowImage.open(io.BytesIO(thumbnail("0"))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (96, 64))


def test_what_the_budget_did_not_reach_is_on_the_page() -> None:
    skipped = replace(clustering(collection()), not_looked=(collection().images[2].id,))
    (values,) = data_of(render(skipped, of=collection()))["interests"]
    assert values["notLooked"] == [2]


def test_an_empty_clustering_still_renders() -> None:
    of = Collection(Path("x"), (), (Unreadable("a.jpg", "empty"),), 0, 1)
    empty = Clustering(Interest("suit"), "scripted", (), (), (), CallCounts(), 0.0)
    assert data_of(render(empty, of=of))["interests"][0]["clusters"] == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("new\nline", "new\\nline"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("line\u2028break", "line\\u2028break"),
        ("in\u200bvi\u00adsible\u2060", "in\\u200bvi\\xadsible\\u2060"),
        ("שלום 🃏 👩‍🚀", "שלום 🃏 👩‍🚀"),
    ],
)
def test_shown_names_hide_nothing_and_forge_nothing(name: str, shown: str) -> None:
    assert shown_name(name) == shown
