"""`hoarfrost eval`: what a cache costs in accuracy, on retrieval tasks, on LongBench and as loss on long documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoarfrost.cli.bench import print_report
from hoarfrost.cli.options import (
    Chat,
    Device,
    Dtype,
    JsonFile,
    Model,
    PlainCommand,
    PlainGroup,
    Weights,
    given,
    load_engine,
    parse_list,
    shows_defaults_of,
)
from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(cls=PlainGroup, help="Measure what a cache costs in accuracy.", no_args_is_help=True)
EVALUATION = "hoarfrost.evaluation."

Caches = Annotated[str | None, typer.Option(help="Caches separated by commas.")]
Budgets = Annotated[str | None, typer.Option(help="Rows a query attends to per KV head and layer, separated by commas.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the data; else HOARFROST_DATA, else the hub.")]


@app.command(
    cls=shows_defaults_of(
        EVALUATION + "caches.retrieval:RetrievalSettings",
        choices={
            "caches": EVALUATION + "caches.variants:CACHES",
            "tasks": EVALUATION + "caches.retrieval_tasks:TASKS",
            "texts": EVALUATION + "prompts.long_texts:SOURCES",
        },
    )
)
def retrieval(
    model: Model,
    caches: Caches = None,
    budgets: Budgets = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks separated by commas.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens of a sample, answer included, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option(help="Samples per task and length.")] = None,
    texts: Annotated[str | None, typer.Option(help="What the facts are hidden in.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples.")] = None,
    num_decoded: Annotated[int | None, typer.Option(help="Tokens, all facts among them, that are decoded through the cache first.")] = None,
    ask_later: Annotated[bool, typer.Option("--ask-later", help="Let the question go through the cache as well.")] = False,
    chat: Chat = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    data_dir: DataDir = None,
    json_file: JsonFile = None,
) -> None:
    """Passkeys, needles, look-ups, variables and common words: how many are found with each cache and budget."""
    from hoarfrost.cli.measuring import measure
    from hoarfrost.evaluation.caches.retrieval import RetrievalBenchmark, RetrievalSettings
    from hoarfrost.evaluation.results import report_of

    settings = RetrievalSettings(
        **_lists(caches=(caches, str), budgets=(budgets, int), tasks=(tasks, str), lengths=(lengths, int), texts=(texts, str)),
        **given(limit=limit, seed=seed, num_decoded=num_decoded, chat=chat),
        ask_later=ask_later,
    )
    measure(RetrievalBenchmark(load_engine(model, "none", dtype, device, weights), settings, data_dir), json_file, report_of)


def _lists(**options: tuple[str | None, Callable[[str], Any]]) -> dict[str, Any]:
    """The lists that a user gave, each from its text and the kind of its values."""
    return {name: parse_list(text, kind, f"--{name}") for name, (text, kind) in options.items() if text is not None}


@app.command(
    cls=shows_defaults_of(
        EVALUATION + "caches.longbench:LongBenchSettings",
        choices={"caches": EVALUATION + "caches.variants:CACHES", "tasks": EVALUATION + "caches.longbench_tasks:long_tasks"},
    )
)
def longbench(
    model: Model,
    caches: Caches = None,
    budgets: Budgets = None,
    bench: Annotated[str | None, typer.Option(help="minilongbench (237 prompts) or longbench.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Tasks separated by commas; by default all 21.")] = None,
    limit: Annotated[int | None, typer.Option(help="Prompts per task; by default all.")] = None,
    max_prompt_tokens: Annotated[int | None, typer.Option(help="Cut prompts in the middle to so many tokens.")] = None,
    chat: Chat = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    data_dir: DataDir = None,
    json_file: JsonFile = None,
) -> None:
    """LongBench or MiniLongBench, with their own metrics, with each cache and budget."""
    from hoarfrost.cli.measuring import measure
    from hoarfrost.evaluation.caches.longbench import LongBench, LongBenchSettings
    from hoarfrost.evaluation.results import report_of

    settings = LongBenchSettings(
        **_lists(caches=(caches, str), budgets=(budgets, int), tasks=(tasks, str)),
        **given(bench=bench, limit=limit, max_prompt_tokens=max_prompt_tokens, chat=chat),
    )
    measure(LongBench(load_engine(model, "none", dtype, device, weights), settings, data_dir), json_file, report_of)


@app.command(cls=shows_defaults_of(EVALUATION + "caches.loss:LossSettings", choices={"caches": EVALUATION + "caches.variants:CACHES"}))
def loss(
    model: Model,
    caches: Caches = None,
    budgets: Budgets = None,
    texts: Annotated[str | None, typer.Option(help="Of essays, books.")] = None,
    contexts: Annotated[str | None, typer.Option(help="Tokens that are read before, separated by commas.")] = None,
    continuation: Annotated[int | None, typer.Option(help="Tokens that are decoded through the cache.")] = None,
    limit: Annotated[int | None, typer.Option(help="Stretches per source and context.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the stretches.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    data_dir: DataDir = None,
    json_file: JsonFile = None,
) -> None:
    """Loss on long texts, divergence from the full cache, and how much of the attention each cache catches."""
    from hoarfrost.cli.measuring import measure
    from hoarfrost.evaluation.caches.loss import LossBenchmark, LossSettings
    from hoarfrost.evaluation.results import report_of

    settings = LossSettings(
        **_lists(caches=(caches, str), budgets=(budgets, int), texts=(texts, str), contexts=(contexts, int)),
        **given(continuation=continuation, limit=limit, seed=seed),
    )
    measure(LossBenchmark(load_engine(model, "none", dtype, device, weights), settings, data_dir), json_file, report_of)


@app.command(cls=PlainCommand)
def report(
    file: Annotated[Path, typer.Argument(help="A result that an evaluation wrote with --json.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print the tables of a result file."""
    from hoarfrost.evaluation.results import DECODING, PEERS, name_of, read_result, report_of

    result = read_result(file)
    if name_of(result) in (DECODING, PEERS):
        raise InvalidInput("The file is no result of `hoarfrost eval`, `bench cache` or `bench index`.")
    print_report(report_of(result), markdown)
