"""`hoarfrost eval`: what a cache costs in accuracy, on retrieval tasks, on LongBench and as loss on long documents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoarfrost.cli.options import EXIT_INTERRUPTED, Chat, Device, Dtype, Model, given, load_engine, parse_list, shows_defaults_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hoarfrost.evaluation.common.journal import OutcomeJournal

app = typer.Typer(help="Measure what a cache costs in accuracy.", no_args_is_help=True)

Caches = Annotated[str | None, typer.Option(help="Caches separated by commas.")]
Budgets = Annotated[str | None, typer.Option(help="Rows a query attends to per KV head and layer, separated by commas.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder with the data; else HOARFROST_DATA, else the hub.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result here; a run that was cut off goes on.")]


@app.command(cls=shows_defaults_of("hoarfrost.evaluation.caches.retrieval:RetrievalSettings"))
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
    data_dir: DataDir = None,
    json_file: JsonFile = None,
) -> None:
    """Passkeys, needles, look-ups, variables and common words: how many are found with each cache and budget."""
    from hoarfrost.evaluation.caches.records import AnswerJournal
    from hoarfrost.evaluation.caches.retrieval import RetrievalBenchmark, RetrievalSettings, make_result

    settings = RetrievalSettings(
        **_lists(caches=(caches, str), budgets=(budgets, int), tasks=(tasks, str), lengths=(lengths, int), texts=(texts, str)),
        **given(limit=limit, seed=seed, num_decoded=num_decoded, chat=chat),
        ask_later=ask_later,
    )
    benchmark = RetrievalBenchmark(load_engine(model, "none", dtype, device), settings, data_dir)
    header = benchmark.describe()
    journal = _open_journal(AnswerJournal, json_file, header)
    outcomes = _run(benchmark.num_samples, journal, benchmark.run)
    _finish(journal, json_file, make_result({**header, "command": ["hoarfrost", *sys.argv[1:]]}, outcomes))


def _lists(**options: tuple[str | None, Callable[[str], Any]]) -> dict[str, Any]:
    """The lists that a user gave, each from its text and the kind of its values."""
    return {name: parse_list(text, kind, f"--{name}") for name, (text, kind) in options.items() if text is not None}


def _open_journal(kind: type[Any], json_file: Path | None, header: dict[str, Any]) -> Any:
    journal, message = kind.beside(json_file, header)
    if message:
        typer.echo(message, err=True)
    return journal


def _run(num_samples: int, journal: OutcomeJournal[Any], run: Callable[..., Any]) -> Any:
    """Runs with a progress bar; Ctrl-C says whether the same command goes on."""
    from hoarfrost.cli.progress import sample_progress

    try:
        with sample_progress(num_samples) as on_sample:
            return run(journal, on_sample)
    except KeyboardInterrupt:
        remedy = "" if journal.path is None else "; the same command goes on from here"
        typer.echo(f"Interrupted{remedy}.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _finish(journal: OutcomeJournal[Any], json_file: Path | None, result: dict[str, Any]) -> None:
    if json_file is not None:
        journal.finish(json_file, result)
    print_report(result)


def print_report(result: dict[str, Any]) -> None:
    """Prints the tables of a result and what they mean."""
    from rich.console import Console

    from hoarfrost.evaluation.caches.report import report_of

    tables, caption = report_of(result)
    console = Console(highlight=False, markup=False)
    for table in tables:
        console.print(table.to_rich())
    console.print(caption)


@app.command(cls=shows_defaults_of("hoarfrost.evaluation.caches.longbench:LongBenchSettings"))
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
    data_dir: DataDir = None,
    json_file: JsonFile = None,
) -> None:
    """LongBench or MiniLongBench, with their own metrics, with each cache and budget."""
    from hoarfrost.evaluation.caches.longbench import LongBench, LongBenchSettings, make_result
    from hoarfrost.evaluation.caches.records import AnswerJournal

    settings = LongBenchSettings(
        **_lists(caches=(caches, str), budgets=(budgets, int), tasks=(tasks, str)),
        **given(bench=bench, limit=limit, max_prompt_tokens=max_prompt_tokens, chat=chat),
    )
    benchmark = LongBench(load_engine(model, "none", dtype, device), settings, data_dir)
    header = benchmark.describe()
    journal = _open_journal(AnswerJournal, json_file, header)
    outcomes = _run(benchmark.num_samples, journal, benchmark.run)
    _finish(journal, json_file, make_result({**header, "command": ["hoarfrost", *sys.argv[1:]]}, outcomes))


@app.command(cls=shows_defaults_of("hoarfrost.evaluation.caches.loss:LossSettings"))
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
    data_dir: DataDir = None,
    json_file: JsonFile = None,
) -> None:
    """Loss on long texts, divergence from the full cache, and how much of the attention each cache catches."""
    from hoarfrost.evaluation.caches.loss import LossBenchmark, LossSettings, make_result
    from hoarfrost.evaluation.caches.loss_records import LossJournal

    settings = LossSettings(
        **_lists(caches=(caches, str), budgets=(budgets, int), texts=(texts, str), contexts=(contexts, int)),
        **given(continuation=continuation, limit=limit, seed=seed),
    )
    benchmark = LossBenchmark(load_engine(model, "none", dtype, device), settings, data_dir)
    header = benchmark.describe()
    journal = _open_journal(LossJournal, json_file, header)
    outcomes = _run(benchmark.num_samples, journal, benchmark.run)
    _finish(journal, json_file, make_result({**header, "command": ["hoarfrost", *sys.argv[1:]]}, outcomes))


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A result that an evaluation wrote with --json.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print the tables of a result file."""
    from hoarfrost.cli.plot import read_result
    from hoarfrost.evaluation.caches.report import to_markdown

    result = read_result(file)
    if markdown:
        typer.echo(to_markdown(result), nl=False)
    else:
        print_report(result)
