"""What several verbs share: options, lists, and the defaults that belong to the dataclasses.

An option that is a field of a settings dataclass is `None` here until a user gives it, and only what was given is passed on. So the
dataclass alone knows the default; `shows_defaults_of` looks it up when somebody asks for the help, not when the command starts.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.cache.ice_config import IceConfig
    from hoarfrost.engine import Engine
    from hoarfrost.tree import TreeConfig

Value = TypeVar("Value")

COMMANDS = ("demo", "run", "doctor", "drafters", "bench", "eval", "inspect", "train", "plot")
EXIT_INTERRUPTED = 130
SAMPLING_PARAMS, TREE_CONFIG = "hoarfrost.sampling:SamplingParams", "hoarfrost.tree:TreeConfig"

Model = Annotated[str, typer.Argument(help="A folder, a GGUF file, a Hugging Face hub id, or the alias `smollm2`.")]
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
PromptData = Annotated[Path | None, typer.Option(help="Folder whose eval/ holds the sets; else HOARFROST_DATA, else the hub.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the CPU; by default OMP_NUM_THREADS, else one per core.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no hub and no package index (HF_HUB_OFFLINE=1).")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")]
Chat = Annotated[bool | None, typer.Option("--chat/--no-chat", help="Use the model's chat template, or not. By default where it has one.")]


def given(**options: Any) -> dict[str, Any]:
    """The options that a user gave."""
    return {name: value for name, value in options.items() if value is not None}


def prepare(threads: int | None, offline: bool) -> None:
    """What has to be known before torch and the hub's library are imported, and is told to them if they are already."""
    if threads is not None:
        if threads < 1:
            raise InvalidInput(f"--threads {threads} is no number of threads; give at least 1.")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        if "huggingface_hub.constants" in sys.modules:
            sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def load_engine(model: str, drafter: str, dtype: str, device: str, weights: str, **options: Any) -> Engine:
    """Loads the models with nothing but warnings that matter on stderr; `options` are further ones of `Engine.load`, if not None. Raises
    `InvalidInput` for what cannot be loaded."""
    from transformers.utils import logging

    from hoarfrost.engine import Engine
    from hoarfrost.progress import regular_lines

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    chosen = None if drafter == "none" else drafter
    with regular_lines(lambda: f"Loading {model}"):
        return Engine.load(model, drafter=chosen, dtype=dtype, device=device, weights=weights, **given(**options))


def ice_config(budget: int | None) -> IceConfig:
    """The cache of `--kv-budget`, whose sinks and window a command leaves as they are."""
    from hoarfrost.cache.ice_config import IceConfig

    least = IceConfig().least_budget
    if budget is not None and budget < least:
        raise InvalidInput(f"A budget of {budget} rows (--kv-budget) is too small; give at least {least}.")
    return IceConfig(**given(budget=budget))


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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, dashes_for_texts(args, self.params))

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


def dashes_for_texts(args: list[str], params: Sequence[Any]) -> list[str]:
    """Puts texts that begin with a dash (`- a list`, `-5 + 3`: no option's name holds a space) behind `--`, where they are arguments."""
    if "--" in args:
        return args
    takes_value = {name for one in params if isinstance(one, TyperOption) and not one.is_flag for name in one.opts}
    options: list[str] = []
    texts: list[str] = []
    for before, arg in zip(("", *args), args, strict=False):
        is_text = arg.startswith("-") and any(map(str.isspace, arg.partition("=")[0])) and before not in takes_value
        (texts if is_text else options).append(arg)
    return [*options, "--", *texts] if texts else args


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
