"""`hoarfrost run`: decodes one prompt; the text streams to stdout, one line of figures goes to stderr.

Ctrl-C ends the stream cleanly: what was decoded stays, the figures so far follow, the exit code is 130.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoarfrost.cli.options import (
    EXIT_INTERRUPTED,
    SAMPLING_PARAMS,
    TREE_CONFIG,
    Chat,
    Device,
    Drafter,
    Dtype,
    Model,
    Weights,
    choose_tree,
    given,
    load_engine,
    shows_defaults_of,
)
from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.engine import Engine, Piece, Statistics


@dataclass
class Transcript:
    """What a stream has given so far."""

    began: float = field(default_factory=time.perf_counter)
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    num_from_tree: int = 0
    finish_reason: str = "interrupted"
    statistics: Statistics | None = None

    def take(self, pieces: Iterator[Piece], echo: bool) -> bool:
        """Takes in the pieces as they come, echoing their text to stdout; says whether the stream came to its end."""
        try:
            for piece in pieces:
                self._add(piece)
                if echo:
                    typer.echo(piece.text, nl=False)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            return False
        return True

    def _add(self, piece: Piece) -> None:
        self.texts.append(piece.text)
        self.token_ids.extend(piece.token_ids)
        self.num_from_tree += piece.num_from_tree
        if piece.finish_reason is not None:
            self.finish_reason, self.statistics = piece.finish_reason, piece.statistics

    def summary(self) -> str:
        """One line on what was decoded and how fast."""
        if self.statistics is None:
            seconds = time.perf_counter() - self.began
            return f"interrupted after {len(self.token_ids)} tokens in {seconds:.2f} s, {self.num_from_tree} of them from the tree"
        figures = self.statistics
        return (
            f"{figures.num_tokens} tokens in {figures.decode_seconds:.2f} s: {figures.tokens_per_second:.1f} tokens/s, "
            f"{figures.tau:.2f} tokens a round (tau), {figures.num_rounds} rounds of {figures.ms_per_round:.1f} ms, {self.num_from_tree} "
            f"tokens from the tree; prompt of {figures.num_prompt_tokens} tokens in {figures.prefill_seconds:.2f} s; "
            f"ended by {self.finish_reason}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "text": "".join(self.texts),
            "token_ids": self.token_ids,
            "num_from_tree": self.num_from_tree,
            "finish_reason": self.finish_reason,
            "statistics": None if self.statistics is None else statistics_to_json(self.statistics),
        }


def statistics_to_json(statistics: Statistics) -> dict[str, Any]:
    derived = {name: getattr(statistics, name) for name in ("tau", "tokens_per_second", "ms_per_round")}
    return {**asdict(statistics), **derived}


def read_prompt(prompt: str | None, prompt_file: Path | None) -> str:
    """The prompt from the command line or (`-`) standard input, behind that of the file, if any. Raises `InvalidInput` if there is none."""
    if prompt is None and prompt_file is None:
        raise InvalidInput("Give a prompt: as text, as - for standard input, or with --prompt-file FILE.")
    parts = []
    if prompt_file is not None:
        try:
            parts.append(prompt_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 (byte {error.start}); convert it first"
            raise InvalidInput(f"The prompt file {prompt_file} cannot be read: {reason}.") from None
    if prompt is not None:
        parts.append(read_standard_input() if prompt == "-" else prompt)
    return "\n\n".join(parts)


def read_standard_input() -> str:
    """All of standard input, which must be UTF-8 whatever the locale says. Raises `InvalidInput` if it is closed or anything else."""
    if sys.stdin is None:
        raise InvalidInput("Standard input is closed; give the prompt as text, or with --prompt-file FILE.")
    try:
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")  # type: ignore[union-attr]
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Standard input is not UTF-8 (byte {error.start}); convert the prompt to UTF-8 first.") from None
    except OSError as error:
        raise InvalidInput(f"Standard input cannot be read ({error.strerror}); give the prompt as text.") from None


def encode_prompt(engine: Engine, prompt: str, system: str | None, chat: bool | None) -> list[int]:
    from hoarfrost.evaluation.prompts.encoding import encode_messages

    if system is not None and chat is False:
        raise InvalidInput("--system needs the chat template; leave out --no-chat, or write the instruction into the prompt.")
    messages = [{"role": "user", "content": prompt}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return encode_messages(engine, messages, True if system is not None else chat)


def run(
    model: Model,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - reads it from standard input.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="Read the prompt, or what comes before it, from this file.")] = None,
    system: Annotated[str | None, typer.Option(help="System message of the chat.")] = None,
    chat: Chat = None,
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
    stop: Annotated[list[str] | None, typer.Option(metavar="<str>", help="Text that ends the answer; may be given several times.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write one JSON object (text, token ids, statistics) here; - is standard output, in place of the text."
        ),
    ] = None,
) -> None:
    """Decode one prompt and stream the answer."""
    from hoarfrost.cache.ice_config import IceConfig
    from hoarfrost.files import check_writable, is_standard_output, write_text
    from hoarfrost.sampling import SamplingParams

    if json_file is not None:
        check_writable(json_file)
    text = read_prompt(prompt, prompt_file)
    params = SamplingParams(
        **given(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            stop=tuple(stop) if stop else None,
        )
    )
    tree = choose_tree(mode, tree_budget)
    engine = load_engine(model, drafter, dtype, device, weights, cache=None if kv_budget is None else IceConfig(budget=kv_budget))
    transcript = Transcript()
    echo = json_file is None or not is_standard_output(json_file)
    finished = transcript.take(engine.stream(encode_prompt(engine, text, system, chat), params, tree=tree), echo=echo)
    if echo:
        typer.echo("")
    typer.echo(transcript.summary(), err=True)
    if json_file is not None:
        write_text(json_file, json.dumps({"model": model, **transcript.to_json()}, ensure_ascii=False) + "\n")
    if not finished:
        raise typer.Exit(EXIT_INTERRUPTED)


def register(app: typer.Typer) -> None:
    app.command(cls=shows_defaults_of(SAMPLING_PARAMS, TREE_CONFIG, renamed={"tree_budget": "budget"}))(run)
