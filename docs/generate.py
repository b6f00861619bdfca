"""Write the pages of docs/reference that follow from the code: command line, settings, Python.

    python docs/generate.py            # `make docs` runs this; tests/test_docs.py compares

In: the commands, dataclasses and public names as they are. Out: Markdown that a code host shows as it stands.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import click

import manylens
from manylens import api
from manylens.cli.main import commands
from manylens.models import base
from manylens.settings import ModelOptions, Settings, TuneSettings

FOLDER = Path(__file__).parent / "reference"
_HEAD = "<!-- Written by docs/generate.py from the code; change it there. -->\n\n"


def command_line() -> str:
    text = _HEAD + "# Command line\n\n" + _prose(commands.help or "") + "\n\n" + f"{commands.epilog}\n"
    for name, command in sorted((name, c) for name, c in commands.commands.items() if not c.hidden):
        arguments = [p.human_readable_name for p in command.params if isinstance(p, click.Argument)]
        usage = " ".join(["manylens", name, *arguments, "[OPTIONS]"])
        text += f"\n## `manylens {name}`\n\n    {usage}\n\n{_prose(command.help or '')}\n\n"
        rows = [row for p in command.params if (row := _option(p))]
        text += _table(("option", "what it does"), rows) if rows else "It has no options.\n"
    return text


def settings() -> str:
    text = _HEAD + (
        "# Settings\n\n"
        "All defaults in one place. In Python pass `settings=manylens.Settings(...)`, "
        "`options=manylens.ModelOptions(...)`; the [command line](command-line.md) has an option for most of them.\n"
    )
    about = {
        Settings: "`Settings`: the clustering",
        ModelOptions: "`ModelOptions`: the model",
        TuneSettings: "`TuneSettings`: training (`manylens tune`)",
    }
    options = {p.name: p for c in commands.commands.values() for p in c.params if isinstance(p, click.Option)}
    for kind, title in about.items():
        said, rows = _fields_said(kind), []
        for field in dataclasses.fields(kind):
            option = options.get(field.name)
            flag = f"`{option.opts[0]}`" if option else ""
            meaning = said[field.name] or (option.help or "" if option else "").partition(" [default")[0]
            rows.append((f"`{field.name}`", f"`{field.default!r}`", flag, meaning))
        text += f"\n## {title}\n\n" + _table(("field", "default", "option", "meaning"), rows)
    return text


def python() -> str:
    text = _HEAD + "# Python\n\n`import manylens`; the names below are imported when first used.\n"
    public = [(f"manylens.{name}", getattr(manylens, name)) for name in sorted(manylens.__all__, key=str.casefold)]
    public += [("manylens.api.tune", api.tune), ("manylens.models.base.Model", base.Model)]
    for name, thing in public:
        if callable(thing):
            text += f"\n## `{name}`\n\n" + _signature(name, thing)
            if thing in (Settings, ModelOptions):
                text += "See [Settings](settings.md).\n"
                continue
            text += "\n\n".join(_listed(block) for block in _prose(_doc(thing)).split("\n\n")) + "\n"
            text += _members(thing) if inspect.isclass(thing) else ""
    return text


def _listed(block: str) -> str:
    """A paragraph of `name: what it is.` as a list; any other as it stands."""
    if not re.match(r"[a-z]\w*(?:, [a-z]\w*)*: ", block):
        return block
    parts = re.split(r"(?:^|(?<=[.;] ))([a-z]\w*(?:, [a-z]\w*)*): ", " ".join(block.split()))
    return "\n".join(f"- `{head}`: {text.strip()}" for head, text in zip(parts[1::2], parts[2::2], strict=True))


def _members(kind: type) -> str:
    rows = []
    for name, member in vars(kind).items():
        is_shown = not name.startswith("_") and (isinstance(member, property) or inspect.isfunction(member))
        if is_shown and (doc := _doc(member)):
            called = name if isinstance(member, property) else f"{name}()"
            rows.append((f"`{called}`", " ".join(doc.split())))
    return "\n" + _table(("member", "what it is"), rows) if rows else ""


def _signature(name: str, thing: Callable[..., object]) -> str:
    if inspect.isclass(thing) and thing is not manylens.InterestClustering:
        return ""  # made by the functions, or with fields that stand below
    shown, starred = "", False
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown, starred = shown + "    *,\n", True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown += f"    {parameter.name}: {parameter.annotation}{default},\n"
    returned = "" if inspect.isclass(thing) else f" -> {inspect.signature(thing).return_annotation}"
    return f"```python\n{name.rpartition('.')[2]}(\n{shown}){returned}\n```\n\n"


def _doc(thing: object) -> str:
    own = thing.fget if isinstance(thing, property) else thing
    return inspect.cleandoc(getattr(own, "__doc__", None) or "")


def _prose(text: str) -> str:
    """A docstring or help text as Markdown: click's \\b opens a block that is shown as it is."""
    blocks = []
    for block in re.split(r"\n\s*\n", textwrap.dedent(inspect.cleandoc(text))):
        if block.startswith("\b"):
            head, *lines = block.splitlines()[1:]
            blocks.append(f"{head}\n\n" + "\n".join(f"    {line.strip()}" for line in lines))
        else:
            blocks.append(block)
    return "\n\n".join(blocks).replace("OUT/<slug>", "`OUT/<slug>`")


def _option(parameter: click.Parameter) -> tuple[str, str] | None:
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return None
    metavar = "" if parameter.is_flag else " " + (parameter.metavar or parameter.type.name.upper())
    text = parameter.help or ""
    if parameter.required:
        text += " Required."
    elif parameter.show_default and parameter.default is not None:
        text += f" [default: {parameter.default}]"
    names = ", ".join(f"`{name}{metavar}`" for name in (parameter.opts[0], *parameter.secondary_opts))
    return names, text


def _fields_said(kind: type) -> dict[str, str]:
    """What the docstring says of each field: `name: ...` or `name, other: ...`, in running text."""
    names = "|".join(field.name for field in dataclasses.fields(kind))
    doc = " ".join((kind.__doc__ or "").split())
    parts = re.split(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ", doc)
    said: dict[str, str] = {field.name: "" for field in dataclasses.fields(kind)}
    for heads, text in zip(parts[1::2], parts[2::2], strict=True):
        said |= dict.fromkeys(heads.split(", "), text.strip())
    return said


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    cells = ([cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines)
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


PAGES = {"command-line.md": command_line, "settings.md": settings, "python.md": python}


if __name__ == "__main__":
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
