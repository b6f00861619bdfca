"""What the command line prints of plans, clusterings, scores and runs.

In: what the other modules return. Out: text on standard output. Promise: names of files, and what a model said, are
shown as text, never as markup or terminal codes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from manylens.correcting.edited import ASSIGNMENTS_NAME, command_for, waiting
from manylens.pipeline.pace import SERVER_CALL_S
from manylens.pipeline.plan import PIXELS_PER_TOKEN, Plan
from manylens.results.evaluate import InterestScores
from manylens.results.result import InterestResult, Result
from manylens.settings import ModelOptions, Settings
from manylens.text import counted, shown_name, spoken_seconds, sure_share

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 140
"""Columns of a table that goes to a file or another program."""


def open_console() -> Console:
    from rich.console import Console

    piped = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=piped)


def say(console: Console, text: str) -> None:
    console.print(shown_name(text), soft_wrap=True)


def print_table(console: Console, title: str, columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> None:
    """columns: heading -> how it is justified."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(shown_name(title)), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    for heading, side in columns.items():
        table.add_column(
            heading, justify="right" if side == "right" else "left", overflow="fold", no_wrap=side == "right"
        )
    for row in rows:
        table.add_row(*(Text(shown_name(cell)) for cell in row))
    console.print()
    console.print(table)


def print_clustering(console: Console, interest: str, one: InterestResult) -> None:
    is_known = any(row.misplaced is not None for row in one.table)
    columns = {"": "right", "cluster": "left", "size": "right", "confidence": "right"}
    columns |= {"misplaced": "right"} if is_known else {}
    columns["for example"] = "left"
    rows = []
    for row in one.table:
        misplaced = ["" if row.misplaced is None else f"{row.misplaced.share:.1%}"] if is_known else []
        cells = (str(row.id), row.name, f"{row.size:,}", sure_share(row.confidence), *misplaced)
        rows.append((*cells, ", ".join(row.exemplars[:3])))
    if (verdict := one.clustering.verdict) is not None:
        console.print()
        say(console, verdict.line)
    print_table(console, f"by {interest}", columns, rows)
    counts = one.counts
    left = f", {counts.not_looked:,} not reached" if counts.not_looked else ""
    parts = [f"{counts.assigned:,} assigned, {counts.unassigned:,} unassigned, {counts.failed:,} failed{left}"]
    calls = one.clustering.calls
    kinds = [
        counted(calls.look, "description"),
        counted(calls.choose, "question about clusters", "questions about clusters"),
    ]
    kinds += [counted(calls.complete, "text")] if calls.complete else []
    parts.append(f"{counted(calls.total, 'model call')} ({', '.join(kinds)})")
    say(console, f"{counted(counts.found, 'file')}: {'; '.join(parts)}")
    if (estimate := one.clustering.estimate) is not None:
        say(console, estimate.line)
    for note in one.clustering.notes:
        say(console, note)


def print_end(console: Console, result: Result, settings: Settings) -> None:
    """The account of a run."""
    console.print()
    if result.unreadable:
        files = counted(len(result.unreadable), "file")
        say(console, f"{files} could not be read; the reasons are in {result.out / 'unreadable.csv'}")
    say(console, _calls_line(result))
    tokens = result.calls.tokens
    if tokens.tokens_in or tokens.tokens_out:
        uncounted = f"; {counted(tokens.uncounted, 'answer')} came without a count" if tokens.uncounted else ""
        usd = settings.cost_usd(tokens.tokens_in, tokens.tokens_out)
        money = f", ${usd:,.4f}" if settings.is_priced else ""
        say(console, f"Tokens: {tokens.tokens_in:,} in, {tokens.tokens_out:,} out{money}{uncounted}")
    requests, tokens_in, tokens_out = result.in_vain
    if requests:
        usd = settings.cost_usd(tokens_in, tokens_out)
        failed = result.calls.failed  # among the calls already; what they took is not
        money = f", at most {tokens_in + tokens_out:,} tokens, ${usd:,.4f}" if settings.is_priced else ""
        money += " with the calls that failed" if money and failed else ""
        why = "probes, failures, repairs, or cut off by an interruption"
        beside = counted(max(0, requests - failed), "request")
        say(console, f"Beside them {beside} ended in no answer that is used: {why}{money}")
    if result.calls_kept:
        say(console, f"Model calls made now: {result.calls_asked:,}; the other answers are from an earlier run")
    for slug in (one.clustering.interest.slug for one in result.values()):
        if waiting(result.out, slug):
            say(
                console,
                f"Your edits of {slug}/{ASSIGNMENTS_NAME} wait; this takes them: {command_for(result.out, slug)}",
            )
    say(console, f"Report: {result.report}")


def _range(low: int, high: int) -> str:
    return f"{low:,} to {high:,}" if low != high else f"{low:,}"


def _pace(plan: Plan, options: ModelOptions) -> str:
    if plan.pace == "measured":
        return "measured here, on some of these pictures"
    if plan.pace == "earlier":
        return "by what calls took in the earlier run of --out"
    if plan.tokens is None:
        return "on two cores, as measured elsewhere"
    return f"supposed: {SERVER_CALL_S:g} s a call, {options.concurrency} at once; the run measures it"


def _dollars(usd: float) -> str:
    return f"${usd:,.2f}" if usd >= 0.01 else f"${usd:.6f}".rstrip("0")


def _calls_line(result: Result) -> str:
    calls = counted(result.calls.total, "model call")
    if result.is_partial:
        return f"Partial: the budget was spent after {calls}; the same command with a larger one goes on from here"
    if not any(result.planned_calls):
        return f"It took {calls}, those of the earlier runs included"
    planned, foreseen = _range(*result.planned_calls), _range(*result.foreseen_calls)
    return f"The run took {calls}; expected: {planned} at the start, {foreseen} once all pictures were described"


_WHY = {
    "same name": "whose name differs in punctuation only",
    "word": "whose name occurs in it",
    "parts": "those of its parts together",
}


def print_scores(console: Console, scores: Sequence[InterestScores]) -> None:
    columns = {"interest": "left", "label": "left"}
    columns |= dict.fromkeys(("NMI", "RI", "ARI", "ACC", "K found", "K true", "pictures", "unassigned"), "right")
    rows = []
    for one in scores:
        s = one.scores
        shares = [f"{value:.4f}" for value in (s.nmi, s.ri, s.ari, s.acc)]
        numbers = [f"{value:,}" for value in (s.clusters_found, s.clusters_true, s.images, s.unassigned)]
        rows.append((one.interest, one.column, *shares, *numbers))
    print_table(console, "agreement with the labels", columns, rows)
    if any(one.scores.unassigned for one in scores):
        say(console, "An unassigned picture counts as a cluster of its own in the scores, and not in K found.")
    for one in scores:
        if one.unlabeled:
            pictures = counted(one.unlabeled, "picture has", "pictures have")
            left_out = "was" if one.unlabeled == 1 else "were"
            say(console, f"{one.interest}: {pictures} no {one.column} label and {left_out} left out")
    if unused := set(scores[0].unused).intersection(*(one.unused for one in scores)):
        rows_name = counted(len(unused), "row of the labels names", "rows of the labels name")
        shown = ", ".join(sorted(unused)[:3]) + (", ..." if len(unused) > 3 else "")
        say(console, f"{rows_name} no picture of this run: {shown}")
    for one in scores:
        if one.chosen_by in _WHY and one.column.lower() != one.interest.lower():
            why = _WHY[one.chosen_by]
            say(console, f"{one.interest}: compared with the column {one.column}, {why}; choose with --column")
    for interest in dict.fromkeys(one.interest for one in scores if one.chosen_by == "every column"):
        tried = "every one that is no other interest's was tried"
        say(console, f"{interest}: no column has its name, so {tried}; choose with --column")


def print_plan(console: Console, plan: Plan, options: ModelOptions, settings: Settings) -> None:
    unreadable = len(plan.unreadable)
    pictures = counted(plan.images, "distinct picture")
    say(console, f"{counted(plan.files_found, 'file')}, {pictures}, {unreadable:,} unreadable")
    interests = counted(len(plan.interests), "interest")
    say(console, f"describe:   {plan.looks:,} (one call per picture and interest, {interests})")
    low, high = plan.beside
    if high:
        say(console, f"questions:  {_range(low, high)} (few where descriptions repeat, many where each differs)")
    else:
        is_cut = settings.budget_calls is not None and plan.calls_in_all[1] >= settings.budget_calls > 0
        why = ", the budget ends before them" if is_cut else ": the model's answers would repeat its descriptions"
        say(console, "questions:  none" + (why if plan.images and not plan.held else ""))
    better = "; a better estimate follows once all pictures are described" if high else ""
    say(console, f"calls:      {_range(*plan.calls)}{better}")
    if settings.budget_calls is not None and settings.budget_calls < plan.images * len(plan.interests):
        say(console, f"            the budget of {counted(settings.budget_calls, 'call')} does not reach all pictures")
    if plan.tokens is None:
        say(console, f"tokens:     none to pay for: {plan.model} runs on this computer")
    else:
        (into, out), (into_most, out_most) = plan.tokens
        supposed = f"{PIXELS_PER_TOKEN} pixels to a token; models differ, some by ten times"
        supposed = "as calls took in the earlier run of --out" if plan.pace == "earlier" else supposed
        say(console, f"tokens:     {_range(into, into_most)} in and {_range(out, out_most)} out ({supposed})")
    if plan.usd is not None:
        prices = f"${settings.price_in:g} in and ${settings.price_out:g} out per million tokens"
        least, most = map(_dollars, plan.usd)
        say(console, f"money:      {least if least == most else f'{least} to {most}'} at {prices}")
        if settings.budget_usd is not None and plan.usd[1] > settings.budget_usd:
            limit = _dollars(settings.budget_usd)
            say(console, f"            the budget of {limit} may end before that; descriptions come first")
    if plan.minutes is not None:
        span = spoken_seconds(*(60 * minutes for minutes in plan.minutes))
        say(console, f"time:       {span} ({_pace(plan, options)})")
    else:
        say(console, f"time:       not known for {plan.model}")
    for doubt in plan.doubts:
        say(console, doubt)
    if plan.held:
        say(console, f"Not counted: {counted(plan.held, 'answer')} that --out already holds; nothing is asked twice.")
    say(console, "Nothing was asked and nothing was written.")
