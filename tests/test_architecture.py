"""The rooms of the package: who may import whom is written in pyproject.toml, and holds."""

from pathlib import Path

from importlinter import cli

import manylens

PACKAGE = Path(manylens.__file__).parent
MOST_LINES = 600


def test_imports_follow_the_contracts() -> None:
    assert cli.lint_imports(config_filename=str(Path(__file__).parents[1] / "pyproject.toml"), no_cache=True) == 0


def test_no_file_is_too_long_to_read() -> None:
    long = {str(path.relative_to(PACKAGE)): len(path.read_text("utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path: lines for path, lines in long.items() if lines > MOST_LINES} == {}
