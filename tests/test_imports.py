"""A module imports only modules above it in DESIGN's table: lower numbers, and none of its own number."""

import ast
from pathlib import Path

import pytest

import manylens

PACKAGE = Path(manylens.__file__).parent

LEVELS = {
    "errors": 0,
    "plural": 0,
    "waiting": 0,
    "records": 1,
    "run_lock": 1,
    "method": 2,
    "prompts": 2,
    "store": 2,
    "duplicates": 3,
    "images": 3,
    "prompts_writing": 3,
    "sample": 3,
    "models": 4,
    "evaluate": 5,
    "lessons": 5,
    "pipeline": 5,
    "spread": 6,
    "student": 6,
    "tune": 7,
    "export": 7,
    "report": 7,
    "api": 8,
    "doctor": 8,
    "progress": 8,
    "web": 8,
    "estimator": 9,
    "tables": 9,
    "cli": 10,
    "__init__": 11,
    "__main__": 12,
}

ROOMS = ("method", "pipeline")
"""Folders whose modules may import each other, in no circle."""

PURE = {"errors", "records", "method"}
"""All of ours that `method` may use: no model, no disk, no network."""

SHARED_BY_MODELS = ("models", "models.base", "models.text_embedder", "models.wordings")

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> list[str]:
    """Our own modules that a file uses, as `models.base`: imported, or reached through the lazy root as
    `manylens.<module>`. The root itself and `__version__` are no edge."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("manylens.")]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module_name(path)} imports relatively: write manylens. in full"
            if node.module == "manylens":
                found += [f"manylens.{alias.name}" for alias in node.names if alias.name != "__version__"]
            elif node.module and node.module.startswith("manylens."):
                found.append(node.module)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "manylens":
            found += [f"manylens.{node.attr}"] if node.attr in LEVELS else []
    return [name.removeprefix("manylens.") for name in found]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down_the_table(path: Path) -> None:
    name = module_name(path)
    first = name.split(".")[0]
    assert first in LEVELS, f"{name} has no level: add it to DESIGN's table and here"
    for imported in imports(path):
        target = imported.split(".")[0]
        if first == target == "models":
            registry = name == "models.__init__"
            same_model = name.split(".")[:2] == imported.split(".")[:2]
            assert registry or same_model or imported in SHARED_BY_MODELS, f"{name} imports {imported}"
        elif first == target and first in ROOMS:
            continue
        else:
            assert LEVELS[target] < LEVELS[first], f"{name} ({LEVELS[first]}) imports {imported} ({LEVELS[target]})"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_our_own_modules_are_imported_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    inside = [
        node
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(scope)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "manylens")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "manylens" for alias in node.names))
    ]
    assert not inside, f"{module_name(path)} imports our own modules inside a function"


@pytest.mark.parametrize("path", sorted((PACKAGE / "method").glob("*.py")), ids=module_name)
def test_the_method_is_pure(path: Path) -> None:
    assert {imported.split(".")[0] for imported in imports(path)} <= PURE
    used = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not used & {"asyncio", "os", "pathlib", "io", "time", "socket", "sqlite3", "subprocess", "random"}


@pytest.mark.parametrize("room", ROOMS)
def test_modules_of_a_room_import_each_other_in_no_circle(room: str) -> None:
    paths = [path for path in (PACKAGE / room).glob("*.py") if path.stem != "__init__"]
    uses = {
        module_name(path): {imported for imported in imports(path) if imported.startswith(f"{room}.")} for path in paths
    }
    while free := [name for name, used in uses.items() if not used & uses.keys()]:
        for name in free:
            del uses[name]
    assert not uses, f"a circle: {uses}"
