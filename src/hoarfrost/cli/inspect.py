"""`hoarfrost inspect cache`: what the query of a question's last token fetched, per layer and KV head."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoarfrost.cli.options import Chat, Device, Dtype, JsonFile, Model, PlainGroup, Weights, given, load_engine, shows_defaults_of
from hoarfrost.cli.run import encode_prompt, read_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hoarfrost.evaluation.caches.inspection import FetchedRow, QueryFetch

app = typer.Typer(cls=PlainGroup, help="Look at what a cache does.", no_args_is_help=True)

NUMBERS_WIDTH = 44  # of the columns of figures, with what stands between columns


@app.callback()
def _verbs() -> None:
    """Keeps `cache` a verb of its own, though it is the only one."""


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
    from rich.console import Console

    from hoarfrost.cache.ice_config import IceConfig
    from hoarfrost.evaluation.caches.inspection import closing_length, inspect_prompt, make_result
    from hoarfrost.files import check_writable, is_standard_output, write_json

    config = IceConfig(**given(budget=kv_budget))
    if json_file is not None:
        check_writable(json_file)
    text = read_prompt(question, prompt_file)
    engine = load_engine(model, "none", dtype, device, weights)
    ids = encode_prompt(engine, text, None, chat)
    num_closing = closing_length(ids, encode_prompt(engine, text + "\N{SNOWFLAKE}", None, chat))
    fetches = inspect_prompt(engine, ids, num_closing, config, new_tokens)
    console = Console(highlight=False, markup=False, stderr=json_file is not None and is_standard_output(json_file))
    try:
        if json_file is not None:
            write_json(json_file, make_result(engine, config, len(ids), fetches))
    finally:
        for fetch in fetches:
            console.print(_heads(fetch, console.width), _rows(fetch.top), sep="\n")


def _heads(fetch: QueryFetch, width: int) -> Table:
    table = _table(f"{fetch.token!r} at {fetch.position}, then {fetch.chosen!r}", ("layer", "head", "pages", "rows", "mass", "best"))
    room = width // 5
    table.add_column("positions", no_wrap=True, max_width=room)
    table.add_column("most attention", no_wrap=True, max_width=max(10, width - room - NUMBERS_WIDTH))
    for head in fetch.heads:
        pages = "all" if head.pages is None else str(len(head.pages))
        shares = (f"{100 * head.mass:.1f}", f"{100 * head.best_mass:.1f}")
        positions = "" if head.pages is None else runs([position for page in head.pages for position in page], room)
        top = f"{head.top[0].position}: {head.top[0].text}" if head.top else ""
        table.add_row(str(head.layer), str(head.head), pages, str(head.num_read), *shares, positions, top)
    return table


def _rows(rows: Sequence[FetchedRow]) -> Table:
    table = _table("Fetched by most heads", ("position", "heads", "share"))
    table.add_column("text", no_wrap=True)
    for row in rows:
        table.add_row(str(row.position), str(row.num_heads), f"{100 * row.share:.1f}", row.text)
    return table


def _table(title: str, figures: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    return table


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
