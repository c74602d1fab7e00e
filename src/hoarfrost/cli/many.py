"""Answers to many prompts, or several to one: decoded together, a JSON object on a line of its own for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hoarfrost.cli.transcript import Transcript
from hoarfrost.errors import ModelFault

if TYPE_CHECKING:
    from hoarfrost.engine import Engine
    from hoarfrost.sampling import SamplingParams
    from hoarfrost.tree import TreeConfig


def answer_many(
    engine: Engine,
    prompts: Sequence[list[int]],
    params: SamplingParams,
    tree: TreeConfig | None,
    num_samples: int,
    json_file: Path | None,
) -> bool:
    """Prints each answer when it is there, or writes all in their order to `json_file`; says whether all came to their end.

    `index` counts prompts from 0; the samples of one differ in their `seed`. Raises `ModelFault` in the end where answers failed: each of
    these lines says how, and the others are whole.
    """
    from hoarfrost.engine import Request
    from hoarfrost.files import is_standard_output, write_text
    from hoarfrost.progress import progress_bar

    planned = [(index, replace(params, seed=params.seed + number)) for index in range(len(prompts)) for number in range(num_samples)]
    names, transcripts, lines = {}, {}, {}
    echo = json_file is None or is_standard_output(json_file)
    num_failed = 0
    try:
        for place, (index, own) in enumerate(planned):
            request_id = engine.add(Request(prompts[index], own, tree))
            names[request_id], transcripts[request_id] = (place, index, own.seed), Transcript()
        with progress_bar("answers", total=len(planned)) as advance:
            while transcripts:
                for request_id, piece in engine.step():
                    transcripts[request_id].add(piece)
                    if piece.finish_reason is None:
                        continue
                    transcript = transcripts.pop(request_id)
                    num_failed += piece.error is not None
                    error = {} if piece.error is None else {"error": str(piece.error)}
                    place, index, seed = names[request_id]
                    lines[place] = to_line({"index": index, "seed": seed, **transcript.to_json(), **error})
                    if echo:
                        typer.echo(lines[place], nl=False)
                    advance(1)
    except KeyboardInterrupt:
        typer.echo(f"Interrupted after {len(lines)} of {len(planned)} answers.", err=True)
        return False
    finally:
        if json_file is not None and not echo:
            write_text(json_file, "".join(lines[place] for place in sorted(lines)))
    if num_failed:
        raise ModelFault(f"{num_failed} of {len(planned)} answers failed; their lines say how.")
    return True


def to_line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"
