"""`hoarfrost demo`: answers a dozen real questions and shows what the draft tree gains on this machine.

The model is `smollm2`, fetched once. One answer of each kind streams, what came from the tree underlined (in « » where the output is no
terminal) and counted below; then plain decoding, DFlash chain (where there is a drafter) and DDTree decode all prompts and a table compares
them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hoarfrost.cli.options import EXIT_INTERRUPTED, Device, Drafter, Dtype, Model, PlainCommand, Weights, load_engine

if TYPE_CHECKING:
    from rich.console import Console

    from hoarfrost.engine import Engine, Piece
    from hoarfrost.evaluation.common.journal import Outcome
    from hoarfrost.evaluation.decode.records import DecodeRecord
    from hoarfrost.evaluation.prompts.sets import Prompt

NUM_STREAMED_TOKENS = 160
NUM_COMPARED_TOKENS = 128
TREE_STYLE = "underline green"


@dataclass(frozen=True)
class DemoPrompts:
    """The prompts in the package, and the kind of text that each of their sets asks for."""

    kinds: dict[str, str]
    prompts: tuple[Prompt, ...]

    @classmethod
    def load(cls) -> DemoPrompts:
        from hoarfrost.evaluation import prompts as room
        from hoarfrost.evaluation.prompts.sets import Prompt

        content = json.loads((Path(room.__file__).parent / "demo_prompts.json").read_text(encoding="utf-8"))
        prompts = tuple(Prompt(entry["set"], entry["prompt_id"], (entry["text"],)) for entry in content["prompts"])
        return cls({name: source["kind"] for name, source in content["sources"].items()}, prompts)

    def first_of_each_kind(self) -> list[Prompt]:
        return [next(prompt for prompt in self.prompts if prompt.set_name == name) for name in self.kinds]


def demo(
    model: Model = "smollm2", drafter: Drafter = "auto", dtype: Dtype = "auto", device: Device = "auto", weights: Weights = "auto"
) -> None:
    """Answer real questions with a small model and compare plain decoding, DFlash chain and DDTree."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    shipped = DemoPrompts.load()
    try:
        engine = load_engine(model, drafter, dtype, device, weights)
        source = f"drafter {engine.drafter.name}" if engine.drafter else "no drafter: the tree grows out of the text so far alone"
        marks = "Underlined" if marks_by_style(console) else "In « »"
        console.print(f"One answer of each kind from {model} ({source}). A small model is often wrong; this is about how fast it answers.")
        console.print(f"{marks}: what the tree guessed right, several tokens in one pass of the model.\n")
        for prompt in shipped.first_of_each_kind():
            stream_answer(console, engine, prompt, shipped.kinds[prompt.set_name])
        console.print(f"Now all {len(shipped.prompts)} prompts, each in every mode.\n")
        compare(console, engine, shipped.prompts)
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def marks_by_style(console: Console) -> bool:
    """Whether underlining will be seen."""
    return console.is_terminal and not console.is_dumb_terminal


def stream_answer(console: Console, engine: Engine, prompt: Prompt, kind: str) -> None:
    """Streams one answer; what was guessed right is marked."""
    from hoarfrost.evaluation.prompts.encoding import encode_messages
    from hoarfrost.sampling import SamplingParams

    console.rule(f"{kind} ({prompt.set_name} {prompt.prompt_id})", align="left")
    console.out(prompt.turns[0], style="dim", highlight=False)
    params = SamplingParams(max_new_tokens=NUM_STREAMED_TOKENS, stop_on_repetition=True)
    ids = encode_messages(engine, [{"role": "user", "content": prompt.turns[0]}])
    by_style = marks_by_style(console)
    num_from_tree = 0
    for piece in engine.stream(ids, params):
        guessed, rest = split_piece(engine.tokenizer, piece)
        console.out(guessed if by_style or not guessed else f"«{guessed}»", style=TREE_STYLE, highlight=False, end="")
        console.out(rest, highlight=False, end="")
        num_from_tree += piece.num_from_tree
        if piece.statistics is not None:
            figures = piece.statistics
            cut = " ... (cut off here)" if piece.finish_reason == "length" else ""
            console.out(cut, style="dim", highlight=False)
            console.out(
                f"-> {figures.num_tokens} tokens in {figures.num_rounds} rounds ({figures.tau:.2f} a round), {num_from_tree} of them "
                f"from the tree, {figures.tokens_per_second:.0f} tokens/s\n",
                style="bold",
                highlight=False,
            )


def split_piece(tokenizer: Any, piece: Piece) -> tuple[str, str]:
    """A piece's text as (guessed by the tree, chosen by the target behind it); all of it is guessed where the two cannot be parted."""
    if not piece.num_from_tree:
        return "", piece.text
    guessed = tokenizer.decode(piece.token_ids[: piece.num_from_tree], skip_special_tokens=True)
    return (guessed, piece.text[len(guessed) :]) if piece.text.startswith(guessed) else (piece.text, "")


def compare(console: Console, engine: Engine, prompts: Sequence[Prompt]) -> None:
    """Measures the modes on all prompts, in turns, and prints the table."""
    from hoarfrost.cli.measuring import prompt_progress
    from hoarfrost.evaluation.decode.benchmark import DecodeBenchmark, DecodeSettings
    from hoarfrost.evaluation.decode.report import mode_table, report_speed, speedup_by_set

    modes = ("ar", "chain", "tree") if engine.drafter else ("ar", "tree")
    budgets = (engine.tree.budget,) if engine.tree.budget else DecodeSettings().budgets
    settings = DecodeSettings(modes=modes, budgets=budgets, max_new_tokens=NUM_COMPARED_TOKENS)
    benchmark = DecodeBenchmark(engine, settings, prompts)
    with prompt_progress(len(prompts)) as on_prompt:
        outcomes = benchmark.run(on_prompt=on_prompt)
    header = benchmark.describe()
    overall = benchmark.result(header, [_pooled(outcome) for outcome in outcomes])["summary"]
    result = benchmark.result(header, outcomes)
    console.print(mode_table(overall, f"{len(prompts)} real prompts, one after the other, in turns").to_rich())
    console.print(speedup_by_set(result["summary"]))
    console.print(report_speed(result).notes[0], style="dim")


def _pooled(outcome: Outcome[DecodeRecord]) -> Outcome[DecodeRecord]:
    """The same records as if all sets were one."""
    records = [replace(record, set="all", prompt_id=f"{record.set} {record.prompt_id}") for record in outcome.records]
    return replace(outcome, set="all", records=records)


def register(app: typer.Typer) -> None:
    app.command(cls=PlainCommand)(demo)
