"""`hoarfrost doctor`: what is installed, what the machine has, and what works here. Exit code 1 if something does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from hoarfrost.cli.options import PlainCommand

if TYPE_CHECKING:
    from hoarfrost.models import PublishedModel

EXIT_FAULT = 1
OK, NOTE, FAULT = "ok", "note", "FAULT"
STYLES = {OK: "green", NOTE: "yellow", FAULT: "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `state` is ok, note (works, could be better) or FAULT."""

    name: str
    state: str
    detail: str


def versions() -> Iterator[Finding]:
    from hoarfrost.evaluation.common.machine import describe_commit, describe_versions

    found = describe_versions()
    yield Finding("hoarfrost", OK, f"{found.pop('hoarfrost')} (commit {describe_commit() or 'unknown'})")
    for name, version in found.items():
        yield Finding(name, OK if version else FAULT, version or "not installed")


def machine() -> Iterator[Finding]:
    from hoarfrost.evaluation.common.machine import describe_machine

    found = describe_machine()
    memory = f"{found['memory_bytes'] / 2**30:.1f} GiB" if found["memory_bytes"] else "unknown memory"
    yield Finding("system", OK, f"{found['operating_system']}, {found['architecture']}")
    yield Finding("CPU", OK, f"{found['cpu']}: {found['num_cores']} cores, {found['num_threads']} threads, {memory}")
    yield Finding("processor flags", OK, " ".join(found["instruction_sets"]) or "unknown")
    yield threads(found["num_cores"] or 1, found["num_threads"])
    yield accelerators(found["accelerators"])


def threads(num_cores: int, num_threads: int) -> Finding:
    """How many threads kernels and torch use, of those that the process may run on."""
    import torch

    used, useful = torch.get_num_threads(), min(num_cores, num_threads)
    if used == 1 and useful > 1:
        return Finding("threads", NOTE, f"1, where {useful} cores are free to use: slow; unset OMP_NUM_THREADS, or set it to {useful}")
    if used > num_threads:
        return Finding("threads", NOTE, f"{used} on {num_threads} hardware threads: slow; set OMP_NUM_THREADS to {useful}")
    return Finding("threads", OK, f"{used} (OMP_NUM_THREADS sets it)")


def accelerators(names: list[str]) -> Finding:
    import torch

    if names:
        return Finding("accelerators", OK, ", ".join(names))
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}" if torch.version.hip else None
    unused = f"; torch is a build for {build}, which costs disk only" if build else ""
    return Finding("accelerators", NOTE, f"none: decoding runs on the CPU{unused}")


def precision() -> Iterator[Finding]:
    from hoarfrost.target.loading import pick_device, pick_dtype

    device = pick_device("auto")
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    detail = f"{dtype} on {device}"
    yield Finding("dtype auto", OK, detail if dtype == "bfloat16" else f"{detail} (no native bfloat16 there)")


def native_kernels() -> Iterator[Finding]:
    import os
    import platform

    from hoarfrost.kernels import INSTRUCTION_SET_VARIABLE, instruction_set_in_use, instruction_sets

    present, used, forced = instruction_sets(), instruction_set_in_use(), os.environ.get(INSTRUCTION_SET_VARIABLE)
    why = f"forced by {INSTRUCTION_SET_VARIABLE}; there are" if forced else "the best of"
    if len(present) == 1 and platform.machine() in ("x86_64", "AMD64"):
        yield Finding("instruction set", NOTE, f"{used}, the only one: slow; AVX2 or more makes decoding several times faster")
    else:
        yield Finding("instruction set", OK if used == present[-1] else NOTE, f"{used}, {why} {', '.join(present)}")
    for name in WEIGHTS:
        yield path_of(name)


WEIGHTS = ("float32", "bfloat16", "int8")


def path_of(name: str) -> Finding:
    """What decoding on the CPU runs for weights of this type: asked of the code that loads them."""
    import torch

    from hoarfrost.kernels.decoder import NativeLayer
    from hoarfrost.kernels.linear import can_multiply
    from hoarfrost.kernels.quantized import quantize

    dtype = torch.bfloat16 if name == "int8" else getattr(torch, name)
    weight = quantize(torch.zeros(64, 64)) if name == "int8" else torch.zeros(64, 64, dtype=dtype)
    products = "products of our own" if can_multiply(weight) else "torch's products"
    if NativeLayer.can_run(weight, dtype, head_dim=64):
        return Finding(f"{name} on the CPU", OK, f"native layers, {products}")
    return Finding(f"{name} on the CPU", NOTE, f"no native layers: torch's, with {products}")


def shipped_models() -> Iterator[Finding]:
    from hoarfrost.models import SHIPPED, PublishedModel

    for alias, pair in SHIPPED.items():
        if isinstance(pair, PublishedModel):
            yield published(pair)
            continue
        weights = [folder / "model.safetensors" for folder in (pair.target, pair.drafter)]
        missing = [path for path in weights if not path.is_file()]
        if missing:
            yield Finding(alias, FAULT, f"{missing[0]} is missing; reinstall the package, or build the pair with recipes/{alias}")
        else:
            sizes = [f"{path.stat().st_size / 1e6:.1f} MB" for path in weights]
            yield Finding(alias, OK, f"target {sizes[0]}, drafter {sizes[1]}")
            yield decoding(alias)


def published(model: PublishedModel) -> Finding:
    """Whether a model that is fetched is here already; nothing is fetched."""
    file = model.file
    drafter = "its drafter is in the package" if model.drafter else "no drafter in the package yet: decodes with retrieval alone"
    if file.is_here:
        return Finding(model.name, OK, f"target {file.member_bytes / 1e6:.1f} MB in {file.path}; {drafter}")
    return Finding(model.name, NOTE, f"not fetched yet: its first use fetches {file.wheel_bytes / 1e6:.0f} MB to {file.path}; {drafter}")


def decoding(alias: str) -> Finding:
    """Decodes a few tokens in all modes, in float32, and compares them."""
    from hoarfrost.engine import Engine
    from hoarfrost.sampling import SamplingParams
    from hoarfrost.tree import TreeConfig

    engine = Engine.load(alias, dtype="float32")
    ids, params = engine.chat("What is 6 times 7?"), SamplingParams(max_new_tokens=24)
    modes = {"plain decoding": TreeConfig.autoregressive(), "DFlash chain": TreeConfig.chain(), "DDTree": TreeConfig()}
    answers = {name: engine.generate([ids], params, tree=tree)[0].token_ids for name, tree in modes.items()}
    differing = [name for name, answer in answers.items() if answer != answers["plain decoding"]]
    if differing:
        return Finding("decoding", FAULT, f"{' and '.join(differing)} gave other tokens than plain decoding")
    return Finding("decoding", OK, f"{', '.join(modes)} gave the same {len(answers['DDTree'])} tokens")


EXTRAS = {"plot": ("matplotlib", "the figures of `plot`"), "bench": ("datasets", "prompt sets from the hub")}


def extras() -> Iterator[Finding]:
    """Optional packages, and what lacks without them."""
    from hoarfrost.evaluation.common.machine import package_version

    for extra, (package, purpose) in EXTRAS.items():
        version = package_version(package)
        missing = f"{package} is not installed, for {purpose}: pip install 'hoarfrost[{extra}]'"
        yield Finding(f"extra {extra}", OK if version else NOTE, f"{package} {version}" if version else missing)


HUB_PROBE = "Qwen/Qwen3-8B"


def hub() -> Iterator[Finding]:
    """Whether the Hugging Face hub answers: one question, and no long wait."""
    from huggingface_hub import constants

    from hoarfrost.hub import HubRefusal, ask

    try:
        ask(HUB_PROBE)
    except HubRefusal as refusal:
        yield Finding("hub", NOTE, f"{refusal}; models come from folders and from {constants.HF_HUB_CACHE}")
    else:
        yield Finding("hub", OK, f"{constants.ENDPOINT} answers")


def drafters() -> Iterator[Finding]:
    """Which models have drafters, and which of these are served."""
    from hoarfrost.models import SHIPPED
    from hoarfrost.models.released import released_drafters

    shipped = [alias for alias, model in SHIPPED.items() if model.drafter]
    served = [one.target for one in released_drafters() if one.refusal is None]
    yield Finding("drafters", OK, f"in the package for {', '.join(shipped)}; released and served for {', '.join(served)}")
    others = len(released_drafters()) - len(served)
    yield Finding("", OK, f"{others} more are known and not served: `hoarfrost drafters` says why")


def prompt_sets() -> Iterator[Finding]:
    from hoarfrost.evaluation.common.machine import package_version
    from hoarfrost.evaluation.prompts.sets import PROMPT_SETS
    from hoarfrost.evaluation.prompts.sources import DATA_VARIABLE, find_data_dir

    folder = find_data_dir(None)
    if folder is None:
        hub = "they come from the Hugging Face hub" if package_version("datasets") else "and the `datasets` package for the hub is missing"
        yield Finding("prompt sets", NOTE, f"{DATA_VARIABLE} is not set, {hub}; only `bench decode` needs them")
        return
    present = [name for name, one in PROMPT_SETS.items() if (folder / "eval" / one.file_name).is_file()]
    state = OK if len(present) == len(PROMPT_SETS) else NOTE
    yield Finding("prompt sets", state, f"{len(present)} of {len(PROMPT_SETS)} in {folder}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    versions,
    extras,
    machine,
    precision,
    native_kernels,
    shipped_models,
    drafters,
    hub,
    prompt_sets,
)


def examine(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """The findings of one check; one that breaks down is a finding itself, so that the others still run."""
    findings: list[Finding] = []
    try:
        for finding in check():
            findings.append(finding)
    except Exception as error:
        findings.append(Finding(check.__name__.replace("_", " "), FAULT, f"{type(error).__name__}: {error}"))
    return findings


def doctor() -> None:
    """Show versions, devices and what works here."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None)
    for _ in range(3):
        table.add_column(overflow="fold")
    findings = [finding for check in CHECKS for finding in examine(check)]
    for finding in findings:
        table.add_row(finding.name, Text(finding.state, style=STYLES[finding.state]), Text(finding.detail))
    Console(highlight=False).print(table)
    faults = [finding.name for finding in findings if finding.state == FAULT]
    if faults:
        typer.echo(f"Does not work here: {', '.join(faults)}.", err=True)
        raise typer.Exit(EXIT_FAULT)


def register(app: typer.Typer) -> None:
    app.command(cls=PlainCommand)(doctor)
