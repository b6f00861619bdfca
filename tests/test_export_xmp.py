"""XMP side-cars: the keywords in them, and all else that was there before."""

import csv
import hashlib
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image as PillowImage

import manylens
from manylens.models.scripted import ScriptedModel

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
}

LIGHTROOM = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<!-- by hand -->
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:purl="http://purl.org/dc/elements/1.1/"
   crs:Exposure2012="+0.50" crs:Note="a &lt; b &amp; c">
   <purl:subject>
    <rdf:Bag>
     <rdf:li>holiday</rdf:li>
    </rdf:Bag>
   </purl:subject>
   <crs:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li><rdf:li>255, 255</rdf:li></rdf:Seq></crs:ToneCurve>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """pictures/ with 12 pictures that are red or "green & <blue>", and their run."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    known = {}
    for number in range(12):
        buffer = io.BytesIO()
        PillowImage.new("RGB", (20 + number, 20), ((200, 0, 0), (0, 200, 0))[number % 2]).save(buffer, "PNG")
        (pictures / f"{number:02d}.png").write_bytes(buffer.getvalue())
        known[hashlib.sha256(buffer.getvalue()).hexdigest()] = ("red", "green & <blue>")[number % 2]
    cluster(tmp_path, known)
    return tmp_path


def cluster(place: Path, known: dict[str, str]) -> None:
    manylens.cluster(place / "pictures", "color", model=ScriptedModel({"color": known}), out=place / "run")


def keywords(sidecar: Path) -> tuple[list[str], list[str]]:
    tree = ElementTree.parse(sidecar)
    flat, deep = ([li.text or "" for li in tree.iterfind(f".//{name}/rdf:Bag/rdf:li", SPACES)] for name in _NAMES)
    return flat, deep


_NAMES = ("dc:subject", "lr:hierarchicalSubject")


def labels(place: Path) -> dict[str, str]:
    with open(place / "run" / "color" / "assignments.csv", newline="", encoding="utf-8") as file:
        return {row["image"]: row["name"] for row in csv.DictReader(file)}


def test_every_picture_gets_a_side_car_and_stays_as_it_was(place: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (place / "pictures").iterdir()}
    done = manylens.export(place / "run", "xmp")
    assert done.files == 12 and not done.left
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    for name, label in labels(place).items():
        assert keywords(place / "pictures" / f"{name}.xmp") == ([label], [f"color|{label}"])
    again = manylens.export(place / "run", "xmp")
    assert again.files == 0, "nothing to change"


def test_undo_leaves_the_folder_as_it_was(place: Path) -> None:
    before = sorted(path.name for path in (place / "pictures").iterdir())
    manylens.export(place / "run", "xmp")
    assert manylens.export(place / "run", "xmp", undo=True).files == 12
    assert sorted(path.name for path in (place / "pictures").iterdir()) == before


def test_a_preview_writes_nothing(place: Path) -> None:
    done = manylens.export(place / "run", "xmp", preview=True)
    assert done.files == len(done.steps) == 12 and not list((place / "pictures").glob("*.xmp"))


def test_another_programs_side_car_keeps_everything_else(place: Path) -> None:
    sidecar = place / "pictures" / "00.xmp"
    sidecar.write_text(LIGHTROOM, encoding="utf-8")
    sidecar.chmod(0o640)
    manylens.export(place / "run", "xmp")
    written = sidecar.read_text("utf-8")
    (label,) = {labels(place)["00.png"]}
    assert keywords(sidecar) == (["holiday", label], [f"color|{label}"])
    for kept in (
        "<!-- by hand -->",
        '<?xpacket begin="\ufeff"',
        'crs:Exposure2012="+0.50"',
        "<crs:ToneCurve>",
        "purl:",
    ):
        assert kept in written
    assert sidecar.stat().st_mode & 0o777 == 0o640
    assert not (place / "pictures" / "00.png.xmp").exists()
    manylens.export(place / "run", "xmp", undo=True)
    assert canonical(sidecar.read_text("utf-8")) == canonical(LIGHTROOM)


def canonical(text: str) -> str:
    return ElementTree.canonicalize(text, with_comments=True, strip_text=True)


def test_a_keyword_that_was_there_is_not_taken_out(place: Path) -> None:
    label = labels(place)["00.png"]
    sidecar = place / "pictures" / "00.png.xmp"
    sidecar.write_text(LIGHTROOM.replace("holiday", label.replace("&", "&amp;").replace("<", "&lt;")), "utf-8")
    manylens.export(place / "run", "xmp")
    manylens.export(place / "run", "xmp", undo=True)
    assert keywords(sidecar) == ([label], [])


def test_a_picture_that_is_sorted_anew_loses_the_earlier_keyword_of_ours_alone(place: Path) -> None:
    (place / "pictures" / "00.xmp").write_text(LIGHTROOM, encoding="utf-8")
    manylens.export(place / "run", "xmp")
    known = {hashlib.sha256(path.read_bytes()).hexdigest(): "warm" for path in (place / "pictures").glob("*.png")}
    manylens.cluster(place / "pictures", "color", model=ScriptedModel({"color": known}, seed=1), out=place / "other")
    manylens.export(place / "other", "xmp")
    flat, deep = keywords(place / "pictures" / "00.xmp")
    assert flat[0] == "holiday" and [value.lower() for value in flat[1:]] == ["warm"]
    assert [value.lower() for value in deep] == ["color|warm"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "document type"),
        ("not XML", "no XML"),
        ("<x/>", "no packet"),
        (LIGHTROOM.replace("+0.50", "one&#10;two"), ""),
        (LIGHTROOM.replace("<rdf:Bag>", "").replace("</rdf:Bag>", ""), "no list of keywords"),
    ],
)
def test_a_side_car_that_cannot_be_changed_safely_is_left_alone(place: Path, content: str, reason: str) -> None:
    sidecar = place / "pictures" / "00.png.xmp"
    sidecar.write_text(content, encoding="utf-8")
    done = manylens.export(place / "run", "xmp")
    if reason:
        assert [path for path, _ in done.left] == ["00.png"] and reason in done.left[0][1]
        assert sidecar.read_text("utf-8") == content
    else:  # this Python writes line breaks in attributes as they were, or the file is left alone
        assert "one&#10;two" in sidecar.read_text("utf-8")
    assert done.files in (11, 12)


def test_a_side_car_that_two_pictures_may_mean_is_not_taken(place: Path) -> None:
    short = place / "pictures" / "00.xmp"
    short.write_text(LIGHTROOM, encoding="utf-8")
    (place / "pictures" / "00.bmp").write_bytes(b"")
    PillowImage.new("RGB", (9, 9)).save(place / "pictures" / "00.bmp")
    manylens.cluster(place / "pictures", "color", model=_knows_all(place), out=place / "run2")
    manylens.export(place / "run2", "xmp")
    assert short.read_text("utf-8") == LIGHTROOM and (place / "pictures" / "00.png.xmp").is_file()


def _knows_all(place: Path) -> ScriptedModel:
    files = [path for path in (place / "pictures").iterdir() if path.suffix != ".xmp"]
    return ScriptedModel({"color": {hashlib.sha256(path.read_bytes()).hexdigest(): "red" for path in files}})


def test_side_cars_can_be_written_elsewhere(place: Path) -> None:
    manylens.export(place / "run", "xmp", dest=place / "cars")
    assert len(list((place / "cars").glob("*.png.xmp"))) == 12 and not list((place / "pictures").glob("*.xmp"))


@pytest.mark.exports
def test_exiv2_reads_the_keywords_as_digikam_does(place: Path) -> None:
    exiv2 = pytest.importorskip("exiv2")
    (place / "pictures" / "00.xmp").write_text(LIGHTROOM, encoding="utf-8")
    manylens.export(place / "run", "xmp")
    for name in ("00.xmp", "01.png.xmp"):
        image = exiv2.ImageFactory.open(str(place / "pictures" / name))
        image.readMetadata()
        data = {item.key(): item.toString() for item in image.xmpData()}
        label = labels(place)[name[:2] + ".png"]
        assert label in data["Xmp.dc.subject"] and data["Xmp.lr.hierarchicalSubject"] == f"color|{label}"
