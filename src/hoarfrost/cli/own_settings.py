"""What a model's authors recommend for sampling (`generation_config.json`), said where it is not what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from hoarfrost.engine import Engine

NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
UNSERVED = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def tell_of_own_settings(engine: Engine) -> None:
    """One line on stderr if the model has settings of its own that greedy decoding leaves aside: an answer without options is the same on
    every machine."""
    config = engine.target.model.generation_config
    if not getattr(config, "do_sample", False):
        return
    settings = {name: value for name, value in _given(config, NEUTRAL).items() if value is not None}
    settings.setdefault("temperature", 1.0)
    penalties = "".join(f"; its {name} of {value} is not served" for name, value in _given(config, UNSERVED).items())
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    typer.echo(f"Decoding greedily; the model's own settings are {options}{penalties}.", err=True)


def _given(config: Any, neutral: dict[str, float]) -> dict[str, Any]:
    return {name: value for name, default in neutral.items() if (value := getattr(config, name, None)) not in (None, default)}
