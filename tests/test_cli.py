"""The command line: exit codes, messages, tables, and the reviewed help texts in golden/."""

import csv
import hashlib
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image as PillowImage

import manylens
import manylens.engine.base
from manylens.cli import main as cli
from manylens.cli.demo import DEMO_INTERESTS
from manylens.models.scripted import Noise, ScriptedModel
from manylens.store.run_folder import RunFolder

GOLDEN = Path(__file__).parent / "golden"
COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """36 pictures of three colors, a model that knows them, and an empty current directory."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    labels: dict[str, str] = {}
    table = ["file,color"]
    for color, value in COLORS.items():
        for number in range(12):
            buffer = io.BytesIO()
            image = PillowImage.new("RGB", (24, 24), value)
            image.putpixel((number, 0), (255, 255, 255))
            image.save(buffer, "PNG")
            name = f"{color}-{number:02d}.png"
            (pictures / name).write_bytes(buffer.getvalue())
            labels[hashlib.sha256(buffer.getvalue()).hexdigest()] = color
            table.append(f"{name},{color}")
    (tmp_path / "labels.csv").write_text("\n".join(table))
    monkeypatch.setattr(manylens.engine.base, "load_model", lambda *_, **__: ScriptedModel({"color": labels}))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return pictures


COMMANDS = (
    "",
    "add",
    "correct",
    "review",
    "resort",
    "cluster",
    "cross",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "open",
    "preview",
    "suggest",
    "tune",
    "verify",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_reviewed_text(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a wanted change: MANYLENS_WRITE_GOLDEN=1 make test, and review the difference."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((100, 40)))
    assert cli.run([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    golden = GOLDEN / f"help{'-' if command else ''}{command}.txt"
    if os.environ.get("MANYLENS_WRITE_GOLDEN"):
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text("utf-8")


def test_the_checkpoint_of_the_former_nano_is_gone_and_says_what_there_is_instead(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.run(["checkpoint", "somewhere"]) == 2
    assert "--model hf:FOLDER" in capsys.readouterr().err
    assert cli.run(["--help"]) == 0
    assert "\n  checkpoint" not in capsys.readouterr().out


def test_tuning_needs_a_student(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", ".", "--by", "color", "--teacher", "someone", "--teacher-calls", "20", "--out", "tuned"]
    assert cli.run(words) == 2
    assert "--student" in capsys.readouterr().err
    assert cli.run([*words, "--student", "nano"]) == 1
    assert "nano cannot be tuned" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from manylens.cli import main as cli; cli.run(['cluster', '--help']); "
        "heavy = {'numpy', 'PIL', 'lap', 'scipy', 'sklearn', 'onnxruntime', 'rich', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"manylens {manylens.__version__}\n"


def test_cluster_prints_a_table_and_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["cluster", str(folder), "--by", "color"]) == 0
    shown = capsys.readouterr()
    assert "by color" in shown.out
    rows = [line.split() for line in shown.out.splitlines() if line.strip()[:1].isdigit() and ".png" in line]
    assert sorted((row[1], row[2]) for row in rows) == [("blue", "12"), ("green", "12"), ("red", "12")]
    assert all(len([cell for cell in row if ".png" in cell]) == 3 for row in rows)
    assert "36 files: 36 assigned, 0 unassigned, 0 failed" in shown.out
    assert shown.out.splitlines()[-1] == f"Report: {Path('pictures-manylens', 'report.html')}"
    assert "describing (color): 36 pictures described" in shown.err


def test_evaluate_prints_the_scores(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["cluster", str(folder), "--by", "color", "--out", "run"])
    capsys.readouterr()
    assert cli.run(["evaluate", "run", "--labels", str(tmp_path / "labels.csv")]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if "1.0000" in line]
    assert row == ["color", "color", "1.0000", "1.0000", "1.0000", "1.0000", "3", "3", "36", "0"]


def test_dry_run_asks_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["cluster", str(folder), "--by", "color", "--by", "size", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "36 distinct pictures" in shown
    assert "describe:   72 (one call per picture and interest, 2 interests)" in shown
    assert "questions:  none: the model's answers would repeat its descriptions" in shown
    assert "calls:      72\n" in shown
    assert re.search(r"^time:       .+ \(measured here, on some of these pictures\)$", shown, re.MULTILINE)
    assert "Nothing was asked" in shown
    assert list(Path.cwd().iterdir()) == []


def test_dry_run_refuses_what_the_run_would(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, rule in ((folder, "holds other files"), (min(folder.iterdir()), "must be a folder")):
        assert cli.run(["cluster", str(folder), "--by", "color", "--out", str(place), "--dry-run"]) == 1
        assert rule in capsys.readouterr().err


def test_a_dry_run_counts_only_the_answers_that_are_not_there_yet(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def untimed(*_: object) -> None:
        """It asks about interests of its own."""

    monkeypatch.setattr(manylens.api, "load_model", vars(manylens.engine.base)["load_model"])
    monkeypatch.setattr(manylens.api, "calibrate", untimed)

    def said(*words: str) -> str:
        capsys.readouterr()
        assert cli.run(["cluster", str(folder), *words]) == 0
        return capsys.readouterr().out

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in Path("pictures-manylens").rglob("*") if path.is_file()}

    said("--by", "color", "--budget-calls", "10")
    half = said("--by", "color", "--dry-run")
    assert "describe:   26 (" in half
    assert "Not counted: 10 answers that --out already holds" in half
    assert "calls:      0\n" in said("--by", "color", "--dry-run", "--budget-calls", "10"), "they are spent"
    took = int(re.search(r"The run took (\d+) model calls", said("--by", "color")).group(1))  # type: ignore[union-attr]
    before = written()
    done = said("--by", "color", "--dry-run")
    assert "describe:   0 (" in done and "questions:  none\n" in done and "calls:      0\n" in done
    assert f"Not counted: {took} answers" in done
    assert "describe:   36 (" in said("--by", "color", "--by", "size", "--dry-run"), "another interest has none"
    given = said("--by", "color", "--into", "red, blue", "--dry-run")
    assert re.search(r"questions:  0 to \d", given), "sorted otherwise"
    assert written() == before


def test_a_repeated_run_expects_no_calls_where_every_answer_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["cluster", str(folder), "--by", "color"])
    first = capsys.readouterr()
    assert "model calls expected;" in first.err
    assert cli.run(["cluster", str(folder), "--by", "color"]) == 0
    again = capsys.readouterr()
    assert "Every answer is there already: no model call expected." in again.err
    calls = re.search(r"The run took (\d+) model calls", again.out).group(1)  # type: ignore[union-attr]
    assert f"expected: {calls} at the start" in again.out


def test_another_folder_is_told_whose_results_it_replaces(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for picture in folder.glob("red-*"):
        picture.rename(other / picture.name)
    for _ in range(2):
        cli.run(["cluster", str(folder), "--by", "color", "--out", "run"])
        assert "that are not in" not in capsys.readouterr().err
    cli.run(["cluster", str(other), "--by", "color", "--out", "run"])
    told = capsys.readouterr().err
    assert f"run holds 24 pictures that are not in {other}: its results for the interests asked now" in told


def test_a_folder_of_which_nothing_can_be_read_exits_1_and_has_its_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"")
    assert cli.run(["cluster", "bad", "--by", "color"]) == 1
    assert "none of the 1 found can" in capsys.readouterr().err
    assert "a.jpg,empty file" in Path("bad-manylens", "unreadable.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cluster", "."], "--by"),
        (["cluster", "--by", "color"], "FOLDER"),
        (["cluster", ".", "--by", ""], "at least one word"),
        (["cluster", ".", "--by", "x" * 10_000], "at most 500 characters"),
        (["cluster", ".", "--by", "suit", "--by", "Suit"], "different folder names"),
        (["cluster", ".", "--by", "color", "--tau", "1.4"], "pass --tau 0.6"),
        (["cluster", ".", "--by", "color", "--tau", "warm"], "not a valid float"),
        (["cluster", ".", "--by", "color", "--budget-calls", "-1"], "must not be negative"),
        (["cluster", ".", "--by", "color", "--effort", "much"], "'much' is not one of 'low', 'normal', 'high', 'max'"),
        (["cluster", ".", "--by", "color", "--level", "rough"], "'rough' is not one of 'coarse', 'medium', 'fine'"),
        (["cluster", ".", "--by", "color", "--groups", "0"], "n_clusters is at least 1, got 0: pass --groups 10"),
        (
            ["cluster", ".", "--by", "color", "--into", "good"],
            "two different clusters, got ('good',): pass --into \"good",
        ),
        (["cluster", ".", "--by", "color", "--into", "good, Good"], "at least two different clusters"),
        (["cluster", ".", "--by", "color", "--into", " , "], "into names clusters in words"),
        (["cluster", ".", "--by", "color", "--into", "a,b", "--groups", "2"], "pass one of the two"),
        (["cluster", ".", "--by", "color", "--audit-share", "1"], "--audit-share is gone: --effort says how much"),
        (["cluster", ".", "--by", "color", "--judge-together", "4"], "--judge-together is gone: "),
        (["doctor", "--judge-together", "4"], "leave it out"),
        (["cluster", ".", "--by", "color", "--budget-usd", "1"], "--price-in 0.15 --price-out 0.60"),
        (["cluster", ".", "--by", "color", "--budget-usd", "nan"], "must be a finite amount"),
        (["cluster", ".", "--by", "color", "--price-in", "-1"], "must be a finite amount"),
        (["cluster", ".", "--by", "color", "--max-failed", "5"], "must lie in [0, 1]"),
        (["evaluate", ".", "--labels", "x.csv", "--column", "color"], "INTEREST=COLUMN"),
        (["sort"], "No such command"),
        (["cluster", ".", "--colour"], "No such option"),
    ],
)
def test_wrong_usage_exits_2_and_says_why(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    shown = capsys.readouterr()
    assert said in " ".join(shown.err.split())
    assert shown.out == ""


def test_a_folder_that_cannot_be_used_exits_1_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Path("file.png").touch()
    for place in ("empty", "missing", "file.png"):
        assert cli.run(["cluster", place, "--by", "color"]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        (message,) = [line for line in shown.err.splitlines() if not line.startswith("read")]
        assert message.startswith("Error: ")
        assert place in message
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["empty", "file.png"]


def test_a_run_folder_held_by_another_process_exits_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunFolder.open("run"):
        assert cli.run(["cluster", str(folder), "--by", "color", "--out", "run"]) == 1
    assert "is held by process" in capsys.readouterr().err


def test_an_interrupt_exits_130_and_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> ScriptedModel:
        raise KeyboardInterrupt

    monkeypatch.setattr(manylens.engine.base, "load_model", interrupted)
    assert cli.run(["cluster", str(folder), "--by", "color"]) == 130
    assert "the same command continues" in capsys.readouterr().err


def test_names_of_files_are_shown_as_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"[red]{number:02d}\x1b[2J\n\u202e:smile:.png")
    assert cli.run(["cluster", str(folder), "--by", "color"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert re.search(r"\[red\]\d\d\\x1b\[2J\\n\\u202e:smile:\.png", "".join(shown.split()))


def test_verify_finds_a_whole_run_whole_and_a_damaged_one_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["cluster", str(folder), "--by", "color", "--out", "run"])
    capsys.readouterr()
    assert cli.run(["verify", "run"]) == 0
    assert "answers)" in capsys.readouterr().out
    with sqlite3.connect("run/run.sqlite") as connection:
        connection.execute("DELETE FROM results")
    connection.close()
    assert cli.run(["verify", "run"]) == 0
    assert "no results yet" in capsys.readouterr().out
    with sqlite3.connect("run/run.sqlite") as connection:
        connection.execute("UPDATE answers SET reply = replace(reply, 'red', 'bed')")
    connection.close()
    capsys.readouterr()
    assert cli.run(["verify", "run"]) == 1
    shown = capsys.readouterr()
    assert "checksum" in shown.out
    assert "damaged" in shown.err


def test_the_demo_is_compared_with_its_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def load(*_: object, **__: object) -> ScriptedModel:
        rows = csv.DictReader((tmp_path / "manylens-demo" / "sample" / "labels.csv").open(encoding="utf-8"))
        folder = tmp_path / "manylens-demo" / "sample" / "images"
        known = [(hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest(), row) for row in rows]
        return ScriptedModel({name: {id_: row[name] for id_, row in known} for name in DEMO_INTERESTS})

    monkeypatch.setattr(manylens.engine.base, "load_model", load)
    assert cli.run(["demo"]) == 0
    shown = capsys.readouterr().out
    for interest, clusters in (("suit", 4), ("rank", 13), ("color", 2)):
        assert f"by {interest}" in shown
        assert f"NMI 1.000, {clusters} clusters found of {clusters}" in shown
    assert "trained on other cards drawn by the same program" in shown
    assert "Of your own pictures expect less." in shown
    assert shown.rstrip().endswith('cluster FOLDER --by "kind of object"')
    assert (tmp_path / "manylens-demo" / "report.html").is_file()


def failing(folder: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> list[ScriptedModel]:
    """Looks fail at this rate; the models that were loaded."""
    labels = {hashlib.sha256(file.read_bytes()).hexdigest(): file.name.split("-")[0] for file in folder.iterdir()}
    loaded: list[ScriptedModel] = []

    class Named(ScriptedModel):
        identity = "the same whatever fails"

    def load(*_: object, **__: object) -> ScriptedModel:
        loaded.append(Named({"color": labels}, noise=Noise(failed_look=share)))
        return loaded[-1]

    monkeypatch.setattr(manylens.engine.base, "load_model", load)
    return loaded


def test_too_many_failed_calls_end_in_results_and_exit_code_1_and_the_next_run_asks_them_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(folder, monkeypatch, 0.3)
    command = ["cluster", str(folder), "--by", "color", "--out", "run"]
    assert cli.run(command) == 1
    shown = capsys.readouterr()
    assert "at most 5.0% of the calls may fail" in shown.err
    assert "--max-failed allows more" in shown.err
    summary = json.loads(Path("run/color/summary.json").read_text())
    failed = summary["failed"]
    assert 4 < failed < 20
    assert summary["failed_calls"] == failed
    assert summary["assigned"] + summary["unassigned"] + failed == 36
    assert f"{failed} failed" in shown.out
    with RunFolder.open("run") as run:
        assert len(run.failures()) == failed
    assert cli.run([*command, "--max-failed", "0.9"]) == 0
    loaded = failing(folder, monkeypatch, 0.0)
    assert cli.run(command) == 0
    assert loaded[0].calls["look"] == failed
    with RunFolder.open("run") as run:
        assert run.failures() == ()


def test_a_spent_budget_is_said_and_a_larger_one_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = failing(folder, monkeypatch, 0.0)
    command = ["cluster", str(folder), "--by", "color", "--out", "run"]
    assert cli.run([*command, "--budget-calls", "30"]) == 0
    shown = capsys.readouterr().out
    assert "Partial: the budget was spent after 30 model calls; the same command with a larger one goes on" in shown
    assert "6 images were not looked at" in shown
    assert "6 not reached" in shown
    assert cli.run([*command, "--budget-calls", "30"]) == 0
    assert loaded[1].calls.total() == 0
    capsys.readouterr()
    assert cli.run(command) == 0
    shown = capsys.readouterr().out
    assert loaded[2].calls["look"] == 6
    (account,) = [line for line in shown.splitlines() if line.startswith("The run took ")]
    calls = json.loads(Path("run/color/summary.json").read_text())["calls"]
    assert account == (
        f"The run took {calls} model calls; expected: 37 to 187 at the start, "
        "37 to 137 once all pictures were described"
    )
    assert json.loads(Path("run/color/summary.json").read_text())["partial"] is False


def test_a_dry_run_for_a_server_states_tokens_and_money(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """36 looks of 450 + 350 tokens and 40 back; 2 to 156 choices or texts of 700 + 9 * 88 and 20."""
    arguments = ["--model", "fake", "--base-url", "http://localhost:9/v1", "--price-in", "0.5", "--price-out", "2"]
    assert cli.run(["cluster", str(folder), "--by", "color", "--dry-run", *arguments]) == 0
    shown = capsys.readouterr().out
    each = [(36 * 800 + n * (700 + 9 * 88), 36 * 40 + n * 20) for n in (2, 156)]
    (low_in, low_out), (high_in, high_out) = each
    assert "questions:  2 to 156 (" in shown
    assert f"{low_in:,} to {high_in:,} in and {low_out:,} to {high_out:,} out" in shown
    low, high = ((into * 0.5 + out * 2) / 1e6 for into, out in each)
    assert f"money:      ${low:,.2f} to ${high:,.2f} at $0.5 in and $2 out per million tokens" in shown
    assert "time:       10 to 50 seconds (supposed: 2 s a call, 8 at once; the run measures it)" in shown
    assert "may end before that" not in shown
    assert cli.run(["cluster", str(folder), "--by", "color", "--dry-run", *arguments, "--budget-usd", "0.0001"]) == 0
    assert "the budget of $0.0001 may end before that; descriptions come first" in capsys.readouterr().out


def test_a_dry_run_with_a_small_budget_says_what_it_does_not_reach(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["cluster", str(folder), "--by", "color", "--dry-run", "--budget-calls", "1"]) == 0
    shown = capsys.readouterr().out
    assert "questions:  none, the budget ends before them" in shown
    assert "calls:      1\n" in shown
    assert "the budget of 1 call does not reach all pictures" in shown


def sorted_into(folder: Path) -> dict[str, set[str]]:
    """Cluster name -> colors in the names of its files; "" where it is unassigned."""
    found: dict[str, set[str]] = {}
    with open(Path("run", "color", "assignments.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["name"], set()).add(row["image"].split("-")[0])
    return found


def test_into_names_the_only_clusters_there_may_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(folder, monkeypatch, 0.0)
    command = ["cluster", str(folder), "--by", "color", "--out", "run"]
    assert cli.run([*command, "--into", " red,  blue "]) == 0
    assert sorted_into(folder) == {"red": {"red"}, "blue": {"blue"}, "": {"green"}}
    shown = capsys.readouterr().out
    assert "36 files: 24 assigned, 12 unassigned, 0 failed" in shown
    assert "12 images are unassigned: none of the given clusters fits, or the model does not know these words" in shown
    summary = json.loads(Path("run/color/summary.json").read_text())
    assert summary["settings"]["into"] == ["red", "blue"]


def test_another_level_of_a_finished_run_asks_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = failing(folder, monkeypatch, 0.0)
    command = ["cluster", str(folder), "--by", "color", "--out", "run"]
    assert cli.run(command) == 0
    assert len(sorted_into(folder)) == 3
    clusters = {}
    for more in (
        ["--level", "coarse"],
        ["--level", "fine"],
        ["--groups", "2"],
        ["--groups", "1"],
        ["--level", "medium"],
    ):
        capsys.readouterr()
        assert cli.run([*command, *more]) == 0
        assert "Model calls made now: 0;" in capsys.readouterr().out
        clusters[more[1]] = json.loads(Path("run/color/summary.json").read_text())["clusters"]
    assert (clusters["1"], clusters["2"], clusters["medium"]) == (1, 2, 3)
    assert clusters["coarse"] <= 3 <= clusters["fine"]
    assert all(model.calls.total() == 0 for model in loaded[1:])


def test_more_effort_goes_on_with_the_answers_that_are_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = failing(folder, monkeypatch, 0.0)
    command = ["cluster", str(folder), "--by", "color", "--out", "run", "--effort"]
    assert cli.run([*command, "low"]) == 0
    assert cli.run([*command, "max"]) == 0
    assert loaded[1].calls["look"] == 0
    assert loaded[1].calls["choose"] > 0
    assert json.loads(Path("run/color/summary.json").read_text())["settings"]["effort"] == "max"


def test_an_interest_that_lists_its_options_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {hashlib.sha256(file.read_bytes()).hexdigest(): file.name.split("-")[0] for file in folder.iterdir()}
    monkeypatch.setattr(manylens.engine.base, "load_model", lambda *_, **__: ScriptedModel({"red or blue?": labels}))
    assert cli.run(["cluster", str(folder), "--by", "red or blue?", "--out", "run"]) == 0
    shown = capsys.readouterr()
    told = '"red or blue?" is read as a closed list of clusters: red, blue; what fits none of them is left out'
    assert told in shown.err
    assert "The interest lists its clusters itself, so there are no others: red, blue." in shown.out
    assert "36 files: 24 assigned, 12 unassigned, 0 failed" in shown.out


@pytest.mark.parametrize(("command", "kept"), [("cluster", True), ("doctor", False), ("cluster --dry-run", False)])
def test_an_interruption_says_what_is_kept_where_something_is(
    command: str, kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error  # as compiled modules do while they load

    monkeypatch.setattr(cli.commands, "main", interrupted)
    assert cli.run(command.split()) == 130
    assert ("the same command continues" in capsys.readouterr().err) == kept


def test_an_interest_is_compared_with_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "run", "--labels", "l.csv", "--column", "a=x", "--column", "a=y"]) == 2
    assert "'a' is there twice" in capsys.readouterr().err


def test_a_signal_ends_the_process_with_130(folder: Path) -> None:
    """The real signal, in a process of its own: a run that never ends by itself."""
    script = (
        "import asyncio, sys, manylens.engine.base; from manylens.cli import main as cli; import manylens.models.base\n"
        "class Slow:\n"
        "    name = identity = 'slow'\n"
        "    capabilities = manylens.models.base.Capabilities(False, False)\n"
        "    def render(self, request): return str(request)\n"
        "    async def look(self, requests):\n"
        "        print('looking', flush=True); await asyncio.sleep(60)\n"
        "manylens.engine.base.load_model = lambda *_, **__: Slow()\n"
        f"sys.exit(cli.run(['cluster', {str(folder)!r}, '--by', 'color']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"looking\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        message = process.stderr.read().decode()
        assert process.wait(timeout=30) == 130
    assert "Traceback" not in message
    assert "the same command continues" in message


def test_words_that_nano_does_not_read_are_said_before_a_picture_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["cluster", str(folder), "--by", "Farbe", "--dry-run"]) == 0
    assert (
        '"Farbe" does not look like English, and nano reads English only: say it in English' in capsys.readouterr().out
    )
    cli.run(["cluster", str(folder), "--by", "color", "--by", "цвет", "--budget-calls", "0"])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith('"цвет" is in letters that nano does not read')
    assert said[1].startswith("reading pictures")
    assert not any("color" in line and "English" in line for line in said)
