"""Python and notebooks: data frames, what a cell shows, progress, and logging."""

import html.parser
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage
from PIL import ImageDraw

import manylens
from manylens.collection.find import find_images
from manylens.models.scripted import ScriptedModel

COLORS = {"red": (200, 30, 30), "<b>green</b>": (30, 160, 60)}


def sort(place: Path, **given: Any) -> manylens.Result:
    folder = place / "pictures"
    folder.mkdir(exist_ok=True)
    for number in range(12):
        color = list(COLORS.values())[number % 2]
        PillowImage.new("RGB", (20 + number, 20), color).save(folder / f"{number:02d}.png")
    PillowImage.new("RGB", (9, 9), (9, 9, 200)).save(folder / "odd.png")
    names = {f"{number:02d}.png": list(COLORS)[number % 2] for number in range(12)} | {"odd.png": "odd"}
    labels = {image.id: names[image.paths[0]] for image in find_images(folder).images}
    model = ScriptedModel({"kind of color": labels})
    return manylens.cluster(folder, "kind of color", model=model, out=place / "run", **given)


class Seen(html.parser.HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()
        self.sources: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name == "src"]


def test_a_cell_shows_clusters_with_pictures_and_names_as_text(tmp_path: Path) -> None:
    result = sort(tmp_path)
    for shown in (result._repr_html_(), result["kind of color"]._repr_html_()):
        page = Seen(shown)
        names = [cluster.name for cluster in result["kind of color"].clusters]
        assert all(name in page.text for name in names) and "kind of color" in page.text
        assert set(page.tags) == {"div", "b", "table", "tr", "th", "td", "img"}
        assert page.tags.count("b") == 1, "a cluster's name is no markup"
        assert len(page.sources) >= 4 and all(s.startswith("data:image/jpeg;base64,") for s in page.sources)


def test_a_cell_shows_a_run_that_is_gone_without_pictures(tmp_path: Path) -> None:
    result = sort(tmp_path)
    shutil.rmtree(tmp_path / "run")
    page = Seen(result._repr_html_())
    assert "kind of color" in page.text and not page.sources and not (tmp_path / "run").exists()


@pytest.mark.exports
def test_data_frames_have_whole_numbers_and_gaps(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    result = sort(tmp_path)
    one = result["kind of color"].to_pandas()
    assert list(one.columns) == ["image", "cluster", "name", "confidence", "state", "decided_by", "reason"]
    assert str(one["cluster"].dtype) == "Int64"
    names = {path: None if pandas.isna(name) else name for path, name in zip(one["image"], one["name"], strict=True)}
    assert names == result["kind of color"].labels and None in names.values()
    assert one["cluster"].isna().sum() == 1
    wide = result.to_pandas()
    assert list(wide["kind_of_color_cluster"].fillna(-1)) == list(one["cluster"].fillna(-1))


def test_without_pandas_there_is_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = sort(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(manylens.ManylensError, match="pip install pandas"):
        result.to_pandas()


def test_progress_is_silent_where_nobody_looks_on_and_lines_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sort(tmp_path)
    assert capsys.readouterr() == ("", "")
    sort(tmp_path, progress=True)
    shown = capsys.readouterr()
    assert shown.out == "" and "naming clusters (kind of color): " in shown.err


def test_the_log_gets_each_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="manylens"):
        sort(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.name == "manylens"]
    assert any(line.startswith("describing (kind of color): 13 pictures described") for line in lines)


SCRIPT = """
import sys
from pathlib import Path
from tests.test_notebook import sort
sort(Path(sys.argv[1]){given})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("given", "shows"), [("", True), (", progress=False", False), (", on_event=list().append", False)]
)
def test_a_script_in_a_terminal_shows_bars_unless_told_otherwise(tmp_path: Path, given: str, shows: bool) -> None:
    import pty

    reader, writer = pty.openpty()
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), str(root / "src"), str(root / "tests")])
    words = [sys.executable, "-c", SCRIPT.format(given=given), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm"}
    with subprocess.Popen(words, stderr=writer, env=environment) as process:
        os.close(writer)
        text = b""
        while True:
            try:
                block = os.read(reader, 65536)
            except OSError:  # the terminal is gone with its last writer
                break
            if not block:
                break
            text += block
        assert process.wait(timeout=120) == 0
    os.close(reader)
    assert ("describing (kind of color)" in text.decode()) == shows
    assert shows or not text


@pytest.mark.exports
def test_a_notebook_shows_progress_and_the_result(tmp_path: Path) -> None:
    """In a real kernel: lines on its output, no bars, and the table of a cell's last value."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path[:0] = {[str(root), str(root / 'src'), str(root / 'tests')]!r}\n"
    code += f"from pathlib import Path\nfrom tests.test_notebook import sort\nsort(Path({str(tmp_path)!r}))"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    streams = "".join(o.text for o in book.cells[0].outputs if o.output_type == "stream")
    (shown,) = [o.data["text/html"] for o in book.cells[0].outputs if o.output_type == "execute_result"]
    assert "describing (kind of color): 13 pictures described" in streams and "\x1b" not in streams
    assert "data:image/jpeg" in shown


@pytest.mark.exports
def test_six_lines_of_the_documentation_lead_to_a_data_frame(tmp_path: Path) -> None:
    """In a real kernel, with nano; what installs is left out, because it is installed."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel"), pytest.importorskip("pandas")
    root = Path(__file__).parents[1]
    page = (root / "docs" / "how-to" / "python.md").read_text("utf-8")
    code = page.partition("%pip install --quiet . pandas\n")[2].partition("```")[0]
    assert len(code.splitlines()) == 5
    (tmp_path / "photos").mkdir()
    for number in range(12):
        color = ((200, 30, 30), (30, 60, 200))[number % 2]
        image = PillowImage.new("RGB", (300, 240), (235, 235, 235))
        ImageDraw.Draw(image).ellipse((60 + 5 * number, 50, 180 + 5 * number, 170), fill=color)
        image.save(tmp_path / "photos" / f"{number:02d}.png")
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(f"import sys; sys.path[:0] = [{str(root / 'src')!r}]\n{code}")]
    )
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = [o.data["text/plain"] for o in book.cells[0].outputs if o.output_type == "execute_result"]
    assert "red" in shown and "blue" in shown and "color_of_the_object_confidence" in shown
