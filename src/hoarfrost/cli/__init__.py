"""The command `hoarfrost`, one file per verb.

Data goes to stdout, everything said about it to stderr. Exit codes: 0 done, 1 something here does not work (a model that failed, a machine
without room, a full disk, a fault that `doctor` finds), 2 bad input (both with one sentence on stderr, no traceback), 130 interrupted. The
verbs import torch, and what needs it, when they run: `hoarfrost --help` answers at once.
"""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

import hoarfrost
from hoarfrost.cli import bench, bench_cache, bench_index, demo, doctor, drafters, eval, inspect, plot, run, train
from hoarfrost.cli.options import PlainGroup, show_log
from hoarfrost.errors import InvalidInput, ModelFault, ResourceExhausted

EXIT_FAULT, EXIT_INVALID_INPUT = 1, 2
STORAGE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

app = typer.Typer(
    name="hoarfrost",
    help="Decode Hugging Face language models several times faster, with the same output.",
    cls=PlainGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
app.add_typer(bench.app, name="bench")
bench_cache.register(bench.app)
bench_index.register(bench.app)
app.add_typer(eval.app, name="eval")
app.add_typer(inspect.app, name="inspect")
app.add_typer(train.app, name="train")
plot.register(app)
doctor.register(app)
drafters.register(app)
demo.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hoarfrost {hoarfrost.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the command; turns bad input into one sentence and exit code 2, a full disk and its like into one and exit code 1."""
    show_log()
    try:
        app()
    except InvalidInput as error:
        typer.echo(f"hoarfrost: {error}", err=True)
        sys.exit(EXIT_INVALID_INPUT)
    except (ModelFault, ResourceExhausted) as error:
        typer.echo(f"hoarfrost: {error}", err=True)
        sys.exit(EXIT_FAULT)
    except OSError as error:
        if error.errno not in STORAGE_FAULTS:
            raise
        where = f"{error.filename} could not be written: " if error.filename else "A file could not be written: "
        typer.echo(f"hoarfrost: {where}{error.strerror}; make room, or choose another place.", err=True)
        sys.exit(EXIT_FAULT)
