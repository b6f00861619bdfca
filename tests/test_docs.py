"""What the documentation shows is run."""

import re
from pathlib import Path

import pytest
from chat_server import PALETTE
from PIL import Image as PillowImage

import manylens
from manylens.models import check_model_name

PAGE = Path(__file__).parent.parent / "docs" / "models.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not beside the tests")
def test_the_model_in_60_lines_sorts_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code.count("\n") <= 60
    shown: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), shown)
    with pytest.raises(manylens.ManylensError):
        check_model_name("colors")
    monkeypatch.setattr(manylens.api, "check_model_name", lambda *_: None)
    monkeypatch.setattr(manylens.api, "load_model", lambda spec, images, *_, **__: shown["Colors"](images))  # type: ignore[operator]
    folder = tmp_path / "pictures"
    folder.mkdir()
    truth = {}
    for number in range(18):
        color = ("red", "green", "blue")[number % 3]
        picture = PillowImage.new("RGB", (64, 64), PALETTE[color])
        picture.putpixel((number, 0), (255, 255, 255))
        picture.save(folder / f"{number}.png")
        truth[f"{number}.png"] = color
    result = manylens.cluster(folder, by="color", model="colors", out=tmp_path / "out")
    assert result["color"].labels == truth
