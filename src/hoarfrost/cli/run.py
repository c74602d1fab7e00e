"""`hoarfrost run`: decodes prompts; a single answer streams to stdout and one line of figures goes to stderr, many are lines of JSON.

Ctrl-C ends the stream cleanly: what was decoded stays, the figures so far follow, the exit code is 130.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoarfrost.cli.many import answer_many
from hoarfrost.cli.options import (
    EXIT_INTERRUPTED,
    SAMPLING_PARAMS,
    TREE_CONFIG,
    Chat,
    Device,
    Drafter,
    Dtype,
    Model,
    Offline,
    Revision,
    Threads,
    Weights,
    choose_tree,
    given,
    ice_config,
    load_engine,
    prepare,
    shows_defaults_of,
)
from hoarfrost.cli.own_settings import tell_of_own_settings
from hoarfrost.cli.prompts import encode_prompt, read_prompt, read_prompts, unescape
from hoarfrost.cli.transcript import Transcript
from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.engine import Engine
    from hoarfrost.sampling import SamplingParams
    from hoarfrost.tree import TreeConfig


def run(
    model: Model,
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt; - reads it from standard input. -- goes before one like -5."),
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="Read the prompt, or what comes before it, from this file.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Answer many prompts, one on each line, or (.jsonl) objects with prompt or messages; prints a JSON object each."),
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", "-n", help="Answers to each prompt, with seeds one up each; prints a JSON object each.")
    ] = 1,
    system: Annotated[str | None, typer.Option(help="System message of the chat.")] = None,
    chat: Chat = None,
    thinking: Annotated[bool, typer.Option("--thinking/--no-thinking", help="Let a model that can do so think first.")] = False,
    drafter: Drafter = "auto",
    mode: Annotated[str | None, typer.Option(help="ar, chain or tree; by default tree where there is a drafter.")] = None,
    tree_budget: Annotated[str | None, typer.Option(help="Guesses verified in one pass (DDTree's budget): a number, or `auto`.")] = None,
    kv_budget: Annotated[
        int | None, typer.Option(help="Attend to so many rows of the context per KV head and layer (IceCache); by default to all.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 decodes greedily.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample among the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample among the likeliest tokens that together have this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Drop tokens less likely than this share of the likeliest one.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text, whatever the tree.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    min_new_tokens: Annotated[int | None, typer.Option(help="Shortest answer; the end is held off until then.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="<str>", help="Text that ends the answer, \\n a new line; may be repeated.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    revision: Revision = None,
    threads: Threads = None,
    offline: Offline = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the JSON (text, token ids, statistics) here; - is standard output, in place of the text."),
    ] = None,
) -> None:
    """Decode a prompt and stream the answer.

    tau, in the line of figures: tokens that a pass of the model brings, 1 where nothing is guessed right.
    """
    prepare(threads, offline)

    from hoarfrost.files import check_writable
    from hoarfrost.sampling import SamplingParams

    if json_file is not None:
        check_writable(json_file)
    if prompts is not None and (prompt is not None or prompt_file is not None):
        raise InvalidInput("--prompts brings the prompts; leave out the other one.")
    texts = [read_prompt(prompt, prompt_file)] if prompts is None else read_prompts(prompts)
    params = SamplingParams(
        **given(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            stop=tuple(map(unescape, stop)) if stop else None,
        )
    )
    if mode == "chain" and drafter == "none":
        raise InvalidInput("--mode chain needs a drafter, and --drafter none takes none; leave one of them out.")
    if samples < 1:
        raise InvalidInput(f"--samples {samples} is no number of answers; give at least 1.")
    if samples > 1 and params.temperature == 0:
        raise InvalidInput(f"All {samples} samples would be the same at temperature 0; give --temperature as well.")
    tree = choose_tree(mode, tree_budget)
    cache = None if kv_budget is None else ice_config(kv_budget)
    engine = load_engine(model, drafter, dtype, device, weights, cache=cache, revision=revision)
    if mode == "chain" and engine.drafter is None:
        raise InvalidInput(f"--mode chain needs a drafter and {model} is decoded without; name one (--drafter), or leave --mode out.")
    if temperature is None:
        tell_of_own_settings(engine)
    encoded = [encode_prompt(engine, text, system, chat, thinking=thinking) for text in texts]
    if prompts is None and samples == 1:
        finished = answer_one(engine, encoded[0], params, tree, model, json_file)
    else:
        finished = answer_many(engine, encoded, params, tree, samples, json_file)
    if not finished:
        raise typer.Exit(EXIT_INTERRUPTED)


def answer_one(
    engine: Engine, prompt: list[int], params: SamplingParams, tree: TreeConfig | None, model: str, json_file: Path | None
) -> bool:
    """Streams one answer; says whether it came to its end."""
    from hoarfrost.files import is_standard_output, write_text

    transcript = Transcript()
    echo = json_file is None or not is_standard_output(json_file)
    finished = transcript.take(engine.stream(prompt, params, tree=tree), echo=echo)
    if echo:
        typer.echo("")
    typer.echo(transcript.summary(), err=True)
    if json_file is not None:
        write_text(json_file, json.dumps({"model": model, **transcript.to_json()}, ensure_ascii=False) + "\n")
    return finished


def register(app: typer.Typer) -> None:
    app.command(cls=shows_defaults_of(SAMPLING_PARAMS, TREE_CONFIG, renamed={"tree_budget": "budget"}))(run)
