"""`hoarfrost bench`: measures decoding, and makes tables from what was measured."""

from __future__ import annotations

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
    PlainCommand,
    PlainGroup,
    PromptData,
    Weights,
    given,
    load_engine,
    parse_budget,
    parse_list,
    shows_defaults_of,
)
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.decode.modes import MODES

if TYPE_CHECKING:
    from hoarfrost.evaluation.common.tables import Report

app = typer.Typer(cls=PlainGroup, help="Measure decoding; make tables from the results.", no_args_is_help=True)
DECODE_SETTINGS = "hoarfrost.evaluation.decode.benchmark:DecodeSettings"


@app.command(cls=shows_defaults_of(DECODE_SETTINGS, choices={"sets": "hoarfrost.evaluation.prompts.sets:PROMPT_SETS"}))
def decode(
    model: Model,
    drafter: Drafter = "auto",
    sets: Annotated[str, typer.Option(help="Prompt sets separated by commas; `all`: the ten of the DDTree paper.")] = "all",
    limit: Annotated[int | None, typer.Option(help="Prompts per set; by default as many as the DDTree paper takes.")] = None,
    temperatures: Annotated[str | None, typer.Option("--temperature", help="One or more, separated by commas.")] = None,
    modes: Annotated[str | None, typer.Option(help=f"Of {', '.join(MODES)}, separated by commas.")] = None,
    budgets: Annotated[str | None, typer.Option(help="Tree budgets, separated by commas: numbers of nodes, or `auto`.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first prompt; the next has the next.")] = None,
    chat: Chat = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    data_dir: PromptData = None,
    json_file: JsonFile = None,
) -> None:
    """Compare plain decoding, DFlash chain and DDTree on real prompts.

    The modes alternate prompt by prompt. Answers end where they start to repeat themselves. With --json a run that was cut off goes on.
    """
    from hoarfrost.cli.measuring import measure
    from hoarfrost.engine import Limits
    from hoarfrost.evaluation.decode.benchmark import DecodeBenchmark, DecodeSettings
    from hoarfrost.evaluation.decode.report import report_speed
    from hoarfrost.evaluation.prompts.sets import load_sets

    settings = DecodeSettings(
        **given(
            modes=parse_list(modes, str, "--modes") if modes is not None else None,
            budgets=tuple(parse_budget(one, "--budgets") for one in parse_list(budgets, str, "--budgets")) if budgets is not None else None,
            temperatures=parse_list(temperatures, float, "--temperature") if temperatures is not None else None,
            max_new_tokens=max_new_tokens,
            seed=seed,
            chat=chat,
        )
    )
    prompts = load_sets(parse_list(sets, str, "--sets"), data_dir=data_dir, limit=limit)
    benchmark = DecodeBenchmark(load_engine(model, drafter, dtype, device, weights, limits=Limits(prefix_bytes=0)), settings, prompts)
    measure(benchmark, json_file, report_speed)


@app.command(cls=PlainCommand)
def report(
    file: Annotated[Path, typer.Argument(help="A result that `bench decode --json` wrote.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print the tables of a result file."""
    from hoarfrost.evaluation.decode.report import report_speed
    from hoarfrost.evaluation.results import DECODING, name_of, read_result

    result = read_result(file)
    if name_of(result) != DECODING:
        raise InvalidInput(f"The file {file} is no result of `bench decode`; `hoarfrost plot` makes its tables.")
    print_report(report_speed(result), markdown)


def print_report(report: Report, markdown: bool) -> None:
    if markdown:
        typer.echo(report.to_markdown(), nl=False)
    else:
        report.print()
