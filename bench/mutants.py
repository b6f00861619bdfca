"""Mutation testing: which rules and constants of a room could change without a test noticing.

In: the files of `method/`, `store/` or `results/`, and their tests. Out: the share of killed mutants per file, and the
survivors as lines.
A mutant changes one place: a comparison, an operator, a number, a condition, a name such as `min`. The sample is
seeded. Its tests run in a copy, those of the mutant's own module first; the first that fails kills it, and so does a
run three times as long as the unchanged one's.

    make mutants MUTANTS="--sample 250 --seed 0"
    make mutants MUTANTS="--room store --sample 60"
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis  # noqa: F401  imported once, for all that are forked
import pytest
import scipy.optimize
import scipy.sparse.csgraph  # noqa: F401
import sklearn.linear_model
import sklearn.metrics  # noqa: F401

ROOT = Path(__file__).parent.parent
PACKAGE = Path("src/manylens")
TESTS = Path("tests")
ROOMS = {
    "method": ("method/test_*.py",),
    "store": ("test_store.py", "test_decisions.py", "test_run_folder_model.py"),
    "results": ("test_export.py", "test_evaluate.py", "test_report.py", "test_table.py", "test_decisions.py"),
}
"""Rooms and their tests; further modules that the tests import are found beside them."""

INDIFFERENT = frozenset(
    {
        "_BLOCK_ROWS", "_BLOCK_ENTRIES", "_BLOCK", "_ASKED_BLOCK", "_STEPS", "_MOST_AHEAD", "_MOST_ROUNDS", "_LEAST",
        "_MOST_FITTED", "_DRAWS",
    }
)  # fmt: skip
"""Constants that only speed, memory or the last digits depend on: their values are no rules."""

_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
_CALLED = {
    "min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum",
    "argmax": "argmin", "concatenate": "stack", "zeros": "ones", "ones": "zeros", "append": "count", "add": "discard",
    "extend": "count", "setdefault": "get", "startswith": "endswith", "endswith": "startswith", "ceil": "floor",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """place: of the changed node among a file's; way: which of its changes."""

    room: str
    file: str
    line: int
    change: str
    place: int
    way: int

    @property
    def path(self) -> Path:
        return PACKAGE / self.room / self.file

    def source(self) -> str:
        tree, places = _parsed(ROOT / self.path)
        node = places[self.place]
        _, new = list(_changes(node))[self.way]
        _replace(node, new)
        return ast.unparse(ast.fix_missing_locations(tree))


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a file."""
    _, places = _parsed(path)
    return [
        Mutant(path.parent.name, path.name, int(getattr(node, "lineno", 0)), told, place, way)
        for place, node in enumerate(places)
        for way, (told, _) in enumerate(_changes(node))
    ]


def _parsed(path: Path) -> tuple[ast.Module, list[ast.AST]]:
    """A file's tree, whose nodes know their parents, and the nodes that may be changed."""
    tree = ast.parse(path.read_text("utf-8"))
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            child.parent = parent  # type: ignore[attr-defined]
    return tree, [node for node in ast.walk(tree) if _is_code(node)]


def _is_code(node: ast.AST) -> bool:
    """Whether a node is one that may be changed: no annotation, decorator, import or type alias."""
    if not isinstance(node, ast.expr | ast.If | ast.While | ast.Continue | ast.Break | ast.AugAssign | ast.Assign):
        return False
    while (parent := getattr(node, "parent", None)) is not None:
        if isinstance(parent, ast.AnnAssign) and node is parent.annotation:
            return False
        if isinstance(parent, ast.FunctionDef) and (node is parent.returns or node in parent.decorator_list):
            return False
        if isinstance(parent, ast.ClassDef) and (node in parent.decorator_list or node in parent.bases):
            return False
        if isinstance(parent, ast.arg) or (isinstance(parent, ast.AnnAssign) and "TypeAlias" in ast.dump(parent)):
            return False
        if isinstance(parent, ast.keyword) and parent.arg in ("dtype", "strict", "kind", "ensure_ascii", "maxsize"):
            return False
        if isinstance(parent, ast.Assign) and any(getattr(t, "id", "") in INDIFFERENT for t in parent.targets):
            return False
        node = parent
    return True


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(what is changed, the node in its place) of each change of a node."""
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            ops = [*node.ops[:at], _COMPARED[type(operator)](), *node.ops[at + 1 :]]
            yield _both(node, ast.Compare(node.left, ops, node.comparators))
    elif isinstance(node, ast.BoolOp):
        yield _both(node, ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values))
        for left_out in range(len(node.values)):
            rest = [value for at, value in enumerate(node.values) if at != left_out]
            yield _both(node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATED and not _is_text(node):
        yield _both(node, ast.BinOp(node.left, _OPERATED[type(node.op)](), node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield _both(node, node.operand)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield _both(node, ast.Constant(not node.value))
        elif isinstance(node.value, int):
            yield _both(node, ast.Constant(node.value + 1))
        elif isinstance(node.value, float):
            yield _both(node, ast.Constant(node.value * 1.5 if node.value else 1.0))
    elif isinstance(node, ast.If | ast.While):
        test = ast.UnaryOp(ast.Not(), node.test)
        yield f"if {ast.unparse(test)}", type(node)(test, node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        yield _both(node, ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Break | ast.Continue):
        yield _both(node, ast.Pass())
    elif isinstance(node, ast.AugAssign) and type(node.op) in _OPERATED:
        yield _both(node, ast.Assign([node.target], node.value))
    elif isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name in _CALLED:
            other: ast.expr = ast.Name(_CALLED[name], ast.Load())
            if isinstance(called, ast.Attribute):
                other = ast.Attribute(called.value, _CALLED[name], ast.Load())
            yield _both(node, ast.Call(other, node.args, node.keywords))
        if name == "sorted" and node.keywords:
            yield _both(node, ast.Call(ast.Name("list", ast.Load()), node.args, []))


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(side, ast.JoinedStr | ast.List | ast.ListComp) for side in (node.left, node.right))


def _both(old: ast.AST, new: ast.AST) -> tuple[str, ast.AST]:
    return _told(old, new), new


def _told(old: ast.AST, new: ast.AST) -> str:
    return " -> ".join(" ".join(ast.unparse(node).split())[:70] for node in (old, ast.fix_missing_locations(new)))


def _replace(old: ast.AST, new: ast.AST) -> None:
    parent = old.parent  # type: ignore[attr-defined]
    for name, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, name, new)
        elif isinstance(value, list):
            setattr(parent, name, [new if item is old else item for item in value])


def passes(home: Path, room: str, first: str) -> None:
    """In a process of its own: run a room's tests in a copy, `first` first; the exit status says whether all passed."""
    os.chdir(home)
    shutil.rmtree(home / PACKAGE / room / "__pycache__", ignore_errors=True)  # its times may be the mutant's
    sys.path[:0] = [str(home / "src"), str(home / TESTS)]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    every = [path for pattern in ROOMS[room] for path in sorted((home / TESTS).glob(pattern))]
    own = [path for path in every if path.name == first]
    for tests in (own, [path for path in every if path not in own]):
        if tests and pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(home), *map(str, tests)]):
            os._exit(1)
    os._exit(0)


def copy_to(home: Path) -> Path:
    """The package and its tests, for one worker."""
    leave_out = shutil.ignore_patterns("__pycache__", "*.onnx", "*.npz")
    shutil.copytree(ROOT / "src", home / "src", ignore=leave_out)
    shutil.copytree(ROOT / TESTS, home / TESTS, ignore=leave_out)
    (home / "pytest.ini").write_text("[pytest]\n", "utf-8")
    return home


def fates(drawn: Sequence[Mutant], folder: Path, workers: int) -> Iterator[tuple[Mutant, bool]]:
    """(mutant, whether it survived), as they come. Workers are forked: the libraries are imported once."""
    fork = multiprocessing.get_context("fork")
    free = [copy_to(folder / str(number)) for number in range(workers)]
    start = time.monotonic()
    whole = fork.Process(target=passes, args=(free[0], drawn[0].room, ""))
    whole.start()
    whole.join()
    if whole.exitcode != 0:
        sys.exit("the tests fail as they are")
    limit_s = 20 + 3 * (time.monotonic() - start)
    running: dict[int, tuple[multiprocessing.process.BaseProcess, float, Mutant, Path]] = {}
    waiting = list(reversed(drawn))
    while waiting or running:
        while waiting and free:
            mutant, home = waiting.pop(), free.pop()
            (home / mutant.path).write_text(mutant.source(), "utf-8")
            child = fork.Process(target=passes, args=(home, mutant.room, f"test_{mutant.file}"))
            child.start()
            running[child.sentinel] = (child, time.monotonic(), mutant, home)
        ended = set(multiprocessing.connection.wait(list(running), timeout=1))
        for sentinel, (process, since, mutant, home) in list(running.items()):
            late = time.monotonic() - since > limit_s
            if late:
                process.kill()
            if late or sentinel in ended:
                process.join()
                del running[sentinel]
                shutil.copy(ROOT / mutant.path, home / mutant.path)
                free.append(home)
                yield mutant, process.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Which changes of a room no test notices.")
    parser.add_argument("--room", choices=ROOMS, default="method")
    parser.add_argument("--sample", type=int, default=250, help="mutants to try (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="only files whose name contains this")
    options = parser.parse_args()
    files = [path for path in sorted((ROOT / PACKAGE / options.room).glob("*.py")) if options.only in path.name]
    every = [mutant for path in files for mutant in mutants_of(path)]
    drawn = every
    if options.sample and options.sample < len(every):
        drawn = random.Random(options.seed).sample(every, options.sample)
    print(f"{len(drawn)} of {len(every)} mutants", flush=True)
    killed, lived = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for mutant, survived in fates(drawn, Path(folder), options.workers):
            (lived if survived else killed)[mutant.file] += 1
            if survived:
                done = killed.total() + lived.total()
                print(f"lives  {mutant.file}:{mutant.line}  {mutant.change}  ({done} tried)", flush=True)
    for path in files:
        if tried := killed[path.name] + lived[path.name]:
            print(f"{path.name:18} {killed[path.name]:4} of {tried:4} killed, {killed[path.name] / tried:.0%}")
    print(f"{'all':18} {killed.total():4} of {len(drawn):4} killed, {killed.total() / len(drawn):.0%}")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
