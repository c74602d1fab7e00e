"""Hoarfrost beside other engines: the same prompts, weights and threads, greedily, prompt by prompt in turns.

    python benchmarks/peers/run.py smollm2 --sets gsm8k,humaneval --limit 8 --threads 1 --json build/peers/result.json

Every engine runs in a process of its own, and all but transformers in an environment of its own, which is made under build/peers the first
time. A run that was cut off goes on where it was. An engine that cannot be installed or cannot run the model is named with the reason.
`hoarfrost plot RESULT.json` makes the table anew. docs/benchmarks.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from comparison import TIMEOUT_SECONDS, Comparison
from peers import BUILD, GGUF_WORKERS, HOARFROST, PEERS, Peer, PeerFailure, worker_command
from worker_process import WorkerProcess

from hoarfrost.cli.measuring import prompt_progress
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.journal import Journal, make_result
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.decode.peers import PeerRecord, report_peers, summarise_peers
from hoarfrost.evaluation.prompts.sets import Prompt, load_sets
from hoarfrost.models import SHIPPED, drafter_of

EXIT_INVALID_INPUT, EXIT_INTERRUPTED = 2, 130
LEFT_OUT = "the time until an engine's first tokens come (prefill), conversion and loading"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2", help="a model folder, a GGUF file, or an alias")
    parser.add_argument("--drafter", type=Path, help="folder of a DFlash drafter; by default the shipped one of the alias, if any")
    parser.add_argument("--peers", default=",".join(PEERS), help="of %(default)s")
    parser.add_argument("--sets", default="all", help="prompt sets separated by commas, or all")
    parser.add_argument("--limit", type=int, help="prompts per set; by default as many as the DDTree paper takes")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="engines without bfloat16 run in float32")
    parser.add_argument("--data-dir", type=Path, help="folder whose eval/ holds the sets; else HOARFROST_DATA, else the hub")
    parser.add_argument("--json", type=Path, default=BUILD / "result.json", help="the result (default: build/peers/result.json)")
    return parser.parse_args()


def resolve_models(arguments: argparse.Namespace) -> tuple[Path, Path | None]:
    """The folders of target and drafter."""
    model = SHIPPED[arguments.model].locate() if arguments.model in SHIPPED else Path(arguments.model)
    drafter = arguments.drafter or drafter_of(arguments.model)
    for folder in (None if is_gguf(model) else model, drafter):
        if folder is not None and not (folder / "config.json").is_file():
            raise InvalidInput(f"{folder} is no model folder (it has no config.json); give a folder, a GGUF file, or an alias.")
    return model.resolve(), drafter.resolve() if drafter else None


def is_gguf(model: Path) -> bool:
    return model.suffix == ".gguf" and model.is_file()


def choose_peers(names: str, model: Path, has_drafter: bool) -> list[Peer]:
    """The peers asked for; those that need a drafter only where there is one, those that read no GGUF file only for other models."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in PEERS]
    if unknown or not chosen:
        raise InvalidInput(f"Unknown peer {(unknown or ['(none)'])[0]!r}; choose from {', '.join(PEERS)}.")
    peers = [PEERS[name] for name in dict.fromkeys(chosen)]
    able = [peer for peer in peers if peer.worker in GGUF_WORKERS] if is_gguf(model) else peers
    return [peer for peer in able if has_drafter or peer.mode not in ("chain", "tree")]


def start_workers(
    stack: ExitStack, arguments: argparse.Namespace, peers: list[Peer]
) -> tuple[dict[str, WorkerProcess], dict[str, dict[str, Any]], dict[str, str]]:
    """Per worker its process and its greeting, and why others did not start."""
    model, drafter = resolve_models(arguments)
    processes, greetings, failures = {}, {}, {}
    for worker in dict.fromkeys((HOARFROST, *(peer.worker for peer in peers))):
        cache = BUILD / "models" / f"{worker}-{fingerprint(model)}"
        options = ["--model", str(model), "--dtype", arguments.dtype, "--num-threads", str(arguments.threads), "--cache", str(cache)]
        try:
            command = [*worker_command(worker), *options, *(["--drafter", str(drafter)] if drafter else [])]
            process = WorkerProcess(command, BUILD / f"{worker}.log", arguments.threads)
            stack.callback(process.close)
            greetings[worker] = process.receive(TIMEOUT_SECONDS)
            processes[worker] = process
        except PeerFailure as failure:
            failures[worker] = str(failure)
    if HOARFROST in failures:
        raise InvalidInput(f"Hoarfrost itself cannot run this model: {failures[HOARFROST]}")
    return processes, greetings, failures


def fingerprint(model: Path) -> str:
    """Tells apart the models whose converted weights are kept: path, and size and time of each weight file."""
    files = [model] if is_gguf(model) else sorted(model.glob("*.safetensors"))
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(f"{model} {stats}".encode()).hexdigest()[:12]


def describe(arguments: argparse.Namespace, prompts: list[Prompt], peers: list[Peer], greetings: dict[str, Any]) -> dict[str, Any]:
    """The header of the result."""
    settings = {
        "model": arguments.model,
        "drafter": str(arguments.drafter or (arguments.model if drafter_of(arguments.model) else None)),
        "max_new_tokens": arguments.max_new_tokens,
        "num_threads": arguments.threads,
        "dtype": arguments.dtype,
        "num_prompts": dict(Counter(prompt.set_name for prompt in prompts)),
        "stop_on_repetition": True,
        "left_out": LEFT_OUT,
    }
    return {**describe_run(settings), "peers": {peer.name: {"label": peer.label, **greetings[peer.worker]} for peer in peers}}


def main() -> None:
    arguments = parse_arguments()
    with ExitStack() as stack:
        prompts = load_sets(arguments.sets.split(","), data_dir=arguments.data_dir, limit=arguments.limit)
        model, drafter = resolve_models(arguments)
        wanted = choose_peers(arguments.peers, model, drafter is not None)
        processes, greetings, unstarted = start_workers(stack, arguments, wanted)
        failures = {peer.name: unstarted[peer.worker] for peer in wanted if peer.worker in unstarted}
        peers = [peer for peer in wanted if peer.worker in processes]
        header = describe(arguments, prompts, peers, greetings)
        journal, message = Journal.beside(arguments.json, header, PeerRecord)
        if message:
            print(message, file=sys.stderr)
        comparison = Comparison(processes, peers, arguments.max_new_tokens, failures)
        planned = ((one.set_name, one.prompt_id, partial(comparison.measure, one, index)) for index, one in enumerate(prompts))
        with prompt_progress(len(prompts)) as on_prompt:
            outcomes = journal.run(planned, on_prompt)
        result = make_result({**header, "failures": comparison.failures}, outcomes, summarise_peers)
        journal.finish(arguments.json, result)
    report_peers(result).print()


if __name__ == "__main__":
    try:
        main()
    except (InvalidInput, PeerFailure) as error:
        print(f"peers: {error}", file=sys.stderr)
        sys.exit(EXIT_INVALID_INPUT)
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
