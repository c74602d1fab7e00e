"""`hoarfrost bench cache`: time and bytes per decoded token over the length of the context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hoarfrost.cli.options import Device, Dtype, JsonFile, Weights, given, parse_list, shows_defaults_of
from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.target import Target

SETTINGS = "hoarfrost.evaluation.caches.speed:SpeedSettings"


def cache(
    model: Annotated[str | None, typer.Argument(help="A folder, a GGUF file, a hub id or `smollm2`; leave it out with --shape.")] = None,
    shape: Annotated[str | None, typer.Option(help="Random weights in this shape instead of a model: qwen3-0.6b, qwen3-8b.")] = None,
    layers: Annotated[int, typer.Option(help="How many layers of that shape.")] = 4,
    contexts: Annotated[str | None, typer.Option(help="Rows that are there already, separated by commas.")] = None,
    caches: Annotated[str | None, typer.Option(help="full, and indexes of the ice store: ice, dci, quest, exact, ice-estimate.")] = None,
    budget: Annotated[int | None, typer.Option(help="Rows a query attends to per KV head and layer.")] = None,
    reuse: Annotated[int | None, typer.Option(help="Layers that share one index and its choice.")] = None,
    steps: Annotated[int | None, typer.Option(help="Tokens decoded per cache and context.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    weights: Weights = "auto",
    json_file: JsonFile = None,
) -> None:
    """Compare the time of a token and the memory of the context; stores are filled with random rows."""
    from hoarfrost.cli.measuring import case_progress, deliver
    from hoarfrost.evaluation.caches.report import report_speed
    from hoarfrost.evaluation.caches.speed import SpeedSettings, measure
    from hoarfrost.files import check_writable

    settings = SpeedSettings(
        **given(
            contexts=parse_list(contexts, int, "--contexts") if contexts is not None else None,
            caches=parse_list(caches, str, "--caches") if caches is not None else None,
            budget=budget,
            reuse=reuse,
            num_steps=steps,
        )
    )
    if json_file is not None:
        check_writable(json_file)
    target = _load(model, shape, layers, max(settings.contexts) + settings.num_steps, dtype, device, weights)
    with case_progress() as begin:
        result = measure(target, settings, on_case=begin)
    deliver(result, report_speed, json_file)


def _load(model: str | None, shape: str | None, layers: int, max_positions: int, dtype: str, device: str, weights: str) -> Target:
    from transformers.utils import logging

    from hoarfrost.evaluation.caches.speed import random_target
    from hoarfrost.progress import regular_lines
    from hoarfrost.target import Target

    if (model is None) == (shape is None):
        raise InvalidInput("Give one model, or --shape for random weights.")
    if shape is not None and weights != "auto":
        raise InvalidInput(f"--weights {weights} goes with a model; random weights of --shape are float.")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with regular_lines(lambda: f"Loading {model or shape}"):
        if model is not None:
            return Target.load(model, dtype=dtype, device=device, weights=weights)
        return random_target(str(shape), layers, max_positions, dtype=dtype, device=device)


def register(app: typer.Typer) -> None:
    app.command(cls=shows_defaults_of(SETTINGS, renamed={"steps": "num_steps"}))(cache)
