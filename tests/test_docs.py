"""What the documentation shows is run."""

import importlib.util
import io
import re
from pathlib import Path

import click
import pytest
from PIL import Image as PillowImage

from manylens import Result
from manylens.cli.main import commands
from manylens.collection.decode import decode, encode_jpeg

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "your-own-model.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_the_model_of_ones_own_sorts_pictures_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code.count("\n") <= 60
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    truth = {}
    for number in range(18):
        level, gray = (("dark", 30), ("medium", 120), ("bright", 220))[number % 3]
        PillowImage.new("RGB", (64, 64), (gray + number // 3,) * 3).save(folder / f"{number}.png")
        truth[f"{number}.png"] = level
    shown: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), shown)
    result = shown["result"]
    assert isinstance(result, Result)
    assert result["brightness"].labels == truth


DOCS = PAGE.parents[1]


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_the_reference_is_what_the_code_says() -> None:
    """After a wanted change: python docs/generate.py, and review the difference."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, write in module.PAGES.items():
        assert (DOCS / "reference" / name).read_text("utf-8") == write(), "run python docs/generate.py"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_every_name_of_every_option_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    every = [one for command in commands.commands.values() for one in command.params]
    parameters = [one for one in every if isinstance(one, click.Option)]
    names = [name for one in parameters if not one.hidden for name in (one.opts[0], *one.secondary_opts)]
    assert "--as-one" in names
    assert [name for name in names if f"| `{name}" not in text and f", `{name}" not in text] == []


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_links_between_pages_lead_somewhere() -> None:
    root = DOCS.parent
    for page in [root / "README.md", root / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"


def test_a_picture_is_sent_without_what_its_file_says_beside_it() -> None:
    """As explanation/privacy.md promises: neither EXIF nor comment."""
    exif = PillowImage.Exif()
    exif[0x010F] = "SECRET CAMERA"
    file = io.BytesIO()
    PillowImage.new("RGB", (60, 40)).save(file, "JPEG", comment=b"SECRET COMMENT", exif=exif)
    file.seek(0)
    assert b"SECRET" not in encode_jpeg(decode(file, 32)[0], quality=90)
