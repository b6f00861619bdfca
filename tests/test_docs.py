"""What the documentation shows is run."""

import re
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from manylens import Result

PAGE = Path(__file__).parent.parent / "docs" / "models.md"


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
