"""`hoarfrost bench index`: page indexes side by side on synthetic keys."""

from __future__ import annotations

from typing import Annotated

import typer

from hoarfrost.cli.options import JsonFile, given, parse_list, shows_defaults_of

SETTINGS = "hoarfrost.evaluation.index.benchmark:IndexSettings"


def index(
    keys: Annotated[str | None, typer.Option(help="Numbers of keys, separated by commas.")] = None,
    dim: Annotated[int | None, typer.Option(help="Dimensions of a key.")] = None,
    heads: Annotated[int | None, typer.Option(help="KV heads; times are per head.")] = None,
    data: Annotated[str | None, typer.Option(help="Of gaussian, clustered, separated by commas.")] = None,
    indexes: Annotated[str | None, typer.Option(help="Of ice, dci, quest, exact, separated by commas.")] = None,
    page_size: Annotated[int | None, typer.Option(help="Rows of a page.")] = None,
    pages: Annotated[int | None, typer.Option(help="Pages that a search returns.")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries that quality is averaged over.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Builds and searches that are timed.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; the goals are set for one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the keys.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure how page indexes build, search, and what they find.

    Builds and searches alternate between the indexes; searches start with cold caches.
    """
    from hoarfrost.cli.measuring import case_progress, deliver
    from hoarfrost.evaluation.index.benchmark import IndexSettings, run_index_benchmark
    from hoarfrost.evaluation.index.report import report_index
    from hoarfrost.files import check_writable

    settings = IndexSettings(
        **given(
            keys=parse_list(keys, int, "--keys") if keys is not None else None,
            data=parse_list(data, str, "--data") if data is not None else None,
            indexes=parse_list(indexes, str, "--indexes") if indexes is not None else None,
            dim=dim,
            heads=heads,
            page_size=page_size,
            pages=pages,
            queries=queries,
            repeats=repeats,
            threads=threads,
            seed=seed,
        )
    )
    if json_file is not None:
        check_writable(json_file)
    with case_progress() as begin:
        result = run_index_benchmark(settings, on_case=begin)
    deliver(result, report_index, json_file)


def register(app: typer.Typer) -> None:
    app.command(cls=shows_defaults_of(SETTINGS))(index)
