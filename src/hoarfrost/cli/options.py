"""What several verbs share: options, lists, and the defaults that belong to the dataclasses.

An option that is a field of a settings dataclass is `None` here until a user gives it, and only what was given is passed on. So the
dataclass alone knows the default; `shows_defaults_of` looks it up when somebody asks for the help, not when the command starts.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.engine import Engine
    from hoarfrost.tree import TreeConfig

Value = TypeVar("Value")

COMMANDS = ("demo", "run", "doctor", "bench", "eval", "inspect", "train", "plot")
EXIT_INTERRUPTED = 130
SAMPLING_PARAMS, TREE_CONFIG = "hoarfrost.sampling:SamplingParams", "hoarfrost.tree:TreeConfig"

Model = Annotated[
    str, typer.Argument(help="A folder, a GGUF file, a Hugging Face hub id, or `tiny`, the pair that ships with the package.")
]
Drafter = Annotated[
    str, typer.Option(help="Folder or hub id of a DFlash drafter; `auto`: the shipped one, if any; `none`: decode without.")
]
Dtype = Annotated[
    str,
    typer.Option(help="float32, bfloat16, float16, or `auto`: bfloat16 where that is the faster type, else float32."),
]
Weights = Annotated[
    str,
    typer.Option(help="int8 (8-bit blocks, on a CPU), float, or `auto`: as the model holds them; a quantised GGUF file stays quantised."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ..., or `auto`: the accelerator, if there is one.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result here as JSON; - is standard output, and the tables then go to stderr.")
]
Chat = Annotated[bool | None, typer.Option("--chat/--no-chat", help="Use the model's chat template, or not. By default where it has one.")]


def given(**options: Any) -> dict[str, Any]:
    """The options that a user gave."""
    return {name: value for name, value in options.items() if value is not None}


def load_engine(model: str, drafter: str, dtype: str, device: str, weights: str, **options: Any) -> Engine:
    """Loads the models with nothing but warnings that matter on stderr; `options` are further ones of `Engine.load`, if not None. Raises
    `InvalidInput` for what cannot be loaded."""
    from transformers.utils import logging

    from hoarfrost.engine import Engine

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    chosen = None if drafter == "none" else drafter
    return Engine.load(model, drafter=chosen, dtype=dtype, device=device, weights=weights, **given(**options))


def parse_list(text: str, kind: Callable[[str], Value], option: str) -> tuple[Value, ...]:
    """Splits `16,32` into values of `kind`."""
    try:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise InvalidInput(f"{option} takes {kind.__name__} values separated by commas, not {text!r}.") from None


def choose_tree(mode: str | None, budget: str | None) -> TreeConfig | None:
    """The tree that `--mode` and `--tree-budget` ask for; `None` leaves it to the engine."""
    from hoarfrost.tree import TreeConfig

    if mode not in (None, "ar", "chain", "tree"):
        raise InvalidInput(f"Unknown mode {mode!r}; choose ar (plain decoding), chain (DFlash) or tree (DDTree).")
    if mode in ("ar", "chain") and budget is not None:
        raise InvalidInput(f"--tree-budget {budget} does not go with --mode {mode}; leave one of them out.")
    if mode == "ar":
        return TreeConfig.autoregressive()
    if mode == "chain":
        return TreeConfig.chain()
    return None if mode is None and budget is None else TreeConfig(**given(budget=budget and parse_budget(budget, "--tree-budget")))


def parse_budget(text: str, option: str) -> int | Literal["auto"]:
    """A number of nodes, or `auto`."""
    try:
        return "auto" if text == "auto" else int(text)
    except ValueError:
        raise InvalidInput(f"{option} takes a number of nodes or `auto`, not {text!r}.") from None


def shows_defaults_of(
    *places: str, renamed: Mapping[str, str] | None = None, choices: Mapping[str, str] | None = None
) -> type[TyperCommand]:
    """A command class whose help shows the defaults of dataclasses, each a `module:Class`; `renamed` maps an option to its field, and
    `choices` to the names (`module:NAMES`, or a function that gives them) that it takes."""

    class CommandWithDefaults(PlainCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            defaults = _defaults(places)
            for option in self.params:
                name = option.name or ""
                value = defaults.get((renamed or {}).get(name, name))
                known = _load(choices[name]) if choices and name in choices else ()
                names = tuple(known() if callable(known) else known)
                if names and isinstance(option, TyperOption):
                    option.help = f"{option.help} Names: {', '.join(names)}."
                if option.default is None and value not in (None, ()):
                    listed = ", ".join(map(str, value)) if isinstance(value, tuple) else value
                    option.default = "all" if names and value == names else listed
            super().format_help(ctx, formatter)

    return CommandWithDefaults


class PlainCommand(TyperCommand):
    """A command that says at once, to a terminal, which model it loads, and whose help is complete at 80 columns: a default is a sentence
    behind the others, which folds where it is long, and a switch shows no type."""

    def invoke(self, ctx: Any) -> Any:
        model = ctx.params.get("model") or ctx.params.get("target")
        if model is not None:
            say(f"Loading {model} ...")
        return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for option in self.get_params(ctx):
            if isinstance(option, (TyperArgument, TyperOption)):
                _describe(option)
        super().format_help(ctx, formatter)


class PlainGroup(TyperGroup):
    """A group of commands in the order in which people need them; others follow."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: COMMANDS.index(name) if name in COMMANDS else len(COMMANDS))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for option in self.get_params(ctx):
            if isinstance(option, (TyperArgument, TyperOption)):
                _describe(option)
        super().format_help(ctx, formatter)


def _describe(option: TyperArgument | TyperOption) -> None:
    if isinstance(option, TyperOption) and option.is_flag:
        option.metavar = ""
    elif option.default is not None and not option.required and option.show_default:
        option.help = f"{option.help or ''} Default: {option.default}.".strip()
    option.show_default = False


def say(text: str) -> None:
    """Tells somebody at a terminal what is going on, on stderr."""
    if sys.stderr is not None and sys.stderr.isatty():
        typer.echo(text, err=True)


class _StderrHandler(logging.Handler):
    """The package's own log: warnings on stderr, and at a terminal what takes long as well."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            typer.echo(self.format(record), err=True)
        else:
            say(self.format(record))


def show_log() -> None:
    logger = logging.getLogger("hoarfrost")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler(logging.INFO))
        logger.setLevel(logging.INFO)


def _defaults(places: tuple[str, ...]) -> dict[str, Any]:
    return {one.name: one.default for place in places for one in fields(_load(place)) if one.default is not MISSING}


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
