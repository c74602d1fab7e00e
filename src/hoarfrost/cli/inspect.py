"""`hoarfrost inspect`: what the query of a question's last token fetched from a cache, and why a drafter's acceptance is what it is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoarfrost.cli.options import (
    Chat,
    Device,
    Drafter,
    Dtype,
    JsonFile,
    Model,
    PlainGroup,
    PromptData,
    Weights,
    given,
    ice_config,
    load_engine,
    parse_budget,
    parse_list,
    shows_defaults_of,
)
from hoarfrost.cli.prompts import encode_prompt, read_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hoarfrost.evaluation.caches.inspection import FetchedRow, QueryFetch
    from hoarfrost.evaluation.common.tables import Report, TextTable

app = typer.Typer(cls=PlainGroup, help="Look at what a cache or a drafter does.", no_args_is_help=True)


@app.command(cls=shows_defaults_of("hoarfrost.cache.ice_config:IceConfig", renamed={"kv_budget": "budget"}))
def cache(
    model: Model,
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from standard input.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="Read the text that the question is about from this file.")] = None,
    kv_budget: Annotated[int | None, typer.Option(help="Rows a query attends to per KV head and layer.")] = None,
    new_tokens: Annotated[int, typer.Option(help="Show as well what the queries fetched that choose so many tokens of the answer.")] = 0,
    chat: Chat = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    json_file: JsonFile = None,
) -> None:
    """Show which pages the query of the question's last token fetched, and what they say.

    mass: share of the attention to earlier rows that the rows read would get, in %; best: what as many rows could get.
    """
    from hoarfrost.cli.measuring import deliver
    from hoarfrost.evaluation.caches.inspection import closing_length, inspect_prompt, make_result
    from hoarfrost.files import check_writable

    config = ice_config(kv_budget)
    if json_file is not None:
        check_writable(json_file)
    text = read_prompt(question, prompt_file)
    engine = load_engine(model, "none", dtype, device, weights)
    ids = encode_prompt(engine, text, None, chat)
    num_closing = closing_length(ids, encode_prompt(engine, text + "\N{SNOWFLAKE}", None, chat))
    fetches = inspect_prompt(engine, ids, num_closing, config, new_tokens)
    deliver(make_result(engine, config, len(ids), fetches), lambda _: _report(fetches), json_file)


@app.command(
    cls=shows_defaults_of(
        "hoarfrost.evaluation.decode.benchmark:DecodeSettings",
        renamed={"tree_budget": "budgets"},
        choices={"sets": "hoarfrost.evaluation.prompts.sets:PROMPT_SETS"},
    )
)
def drafter(
    model: Model,
    sets: Annotated[str, typer.Option("--set", help="Prompt sets separated by commas; `all`: the ten of the DDTree paper.")],
    drafter: Drafter = "auto",
    limit: Annotated[int | None, typer.Option(help="Prompts per set; by default as many as the DDTree paper takes.")] = None,
    temperatures: Annotated[str | None, typer.Option("--temperature", help="One or more, separated by commas.")] = None,
    tree_budget: Annotated[str | None, typer.Option(help="Nodes of the tree, or `auto`.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    chat: Chat = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    data_dir: PromptData = None,
    json_file: JsonFile = None,
) -> None:
    """Show how often the drafter's guesses are right and accepted, per depth and temperature, and what that suggests.

    Beside them stands what its training run measured on answers held back, if its folder still has the log of it.
    """
    from hoarfrost.cli.measuring import deliver, prompt_progress
    from hoarfrost.evaluation.decode.acceptance import DrafterInspection
    from hoarfrost.evaluation.decode.acceptance_report import report_acceptance
    from hoarfrost.evaluation.decode.benchmark import DecodeSettings
    from hoarfrost.evaluation.prompts.sets import load_sets
    from hoarfrost.files import check_writable
    from hoarfrost.training.report import read_held_out

    settings = DecodeSettings(
        modes=("chain", "tree"),
        **given(
            budgets=None if tree_budget is None else (parse_budget(tree_budget, "--tree-budget"),),
            temperatures=None if temperatures is None else parse_list(temperatures, float, "--temperature"),
            max_new_tokens=max_new_tokens,
            chat=chat,
        ),
    )
    if json_file is not None:
        check_writable(json_file)
    prompts = load_sets(parse_list(sets, str, "--set"), data_dir=data_dir, limit=limit)
    engine = load_engine(model, drafter, dtype, device, weights)
    inspection = DrafterInspection(engine, settings, prompts)
    assert engine.drafter is not None
    held_out = read_held_out(Path(engine.drafter.name), engine.drafter.horizon)
    with prompt_progress(inspection.num_prompts) as on_prompt:
        outcomes = inspection.run(on_prompt=on_prompt)
    deliver({**inspection.result(inspection.describe(), outcomes), "held_out": held_out}, report_acceptance, json_file)


def _report(fetches: Sequence[QueryFetch]) -> Report:
    from rich.console import Console

    from hoarfrost.evaluation.common.tables import Report

    width = Console().width
    return Report([table for fetch in fetches for table in (_heads(fetch, width), _rows(fetch.top))], ())


def _heads(fetch: QueryFetch, width: int) -> TextTable:
    from hoarfrost.evaluation.common.tables import TextTable

    rows = []
    for head in fetch.heads:
        pages = "all" if head.pages is None else str(len(head.pages))
        positions = "" if head.pages is None else runs([position for page in head.pages for position in page], width // 5)
        top = f"{head.top[0].position}: {head.top[0].text}" if head.top else ""
        shares = (f"{100 * head.mass:.1f}", f"{100 * head.best_mass:.1f}")
        rows.append((str(head.layer), str(head.head), positions, top, pages, str(head.num_read), *shares))
    header = ("layer", "head", "positions", "most attention", "pages", "rows", "mass", "best")
    return TextTable(f"{fetch.token!r} at {fetch.position}, then {fetch.chosen!r}", header, 4, tuple(rows))


def _rows(rows: Sequence[FetchedRow]) -> TextTable:
    from hoarfrost.evaluation.common.tables import TextTable

    cells = tuple((row.text, str(row.position), str(row.num_heads), f"{100 * row.share:.1f}") for row in rows)
    return TextTable("Fetched by most heads", ("text", "position", "heads", "share"), 1, cells, sections=False)


def runs(positions: Sequence[int], room: int) -> str:
    """Positions as `4-19, 36, +12`: the longest runs first, as many as fit into `room` characters, and how many rows are left."""
    ordered = sorted(positions)
    starts = [0, *(index for index, (before, after) in enumerate(pairwise(ordered), 1) if after != before + 1)]
    found = sorted(
        ((ordered[start], ordered[stop - 1]) for start, stop in pairwise([*starts, len(ordered)])), key=lambda run: run[0] - run[1]
    )
    text, num_left = "", len(ordered)
    for first, last in found:
        num_left -= last - first + 1
        longer = text + (", " if text else "") + (str(first) if first == last else f"{first}-{last}")
        if text and len(longer + (f", +{num_left}" if num_left else "")) > room:
            return f"{text}, +{num_left + last - first + 1}"
        text = longer
    return text
