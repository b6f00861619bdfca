"""The page in the package is what its sources build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / "frontend" / "node_modules" / ".package-lock.json").is_file(),
    reason="the page's build tools are not here: make web-check",
)
def test_the_committed_page_is_what_the_sources_build() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "frontend" / "build.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
