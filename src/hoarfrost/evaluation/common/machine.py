"""What every result file says beside its figures: the machine, the versions, the commit, the command and the settings, seeds among them.

Everything here is looked up when asked and returned as plain JSON values; a fact that cannot be found is `None` or an empty list, never
an error. torch is only imported for the accelerators. Nothing here measures anything.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hoarfrost

if TYPE_CHECKING:
    from hoarfrost.target import Target

VERSIONED_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "safetensors")

# The names in /proc/cpuinfo that decide which kernels of torch, and which of ours, can run.
X86_INSTRUCTION_SETS = ("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx_vnni")
X86_MATRIX_INSTRUCTION_SETS = ("amx_tile", "amx_int8", "amx_bf16")
ARM_INSTRUCTION_SETS = ("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2")


def describe_run(settings: Mapping[str, Any], *, evaluation: str | None = None, target: Target | None = None) -> dict[str, Any]:
    """The header of a result, the same but for its command whenever the same thing is measured on the same machine.

    `evaluation` is what the result is one of, for those who read it; `target` the model measured, which is described in the settings.
    """
    return {
        **({"evaluation": evaluation} if evaluation else {}),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": describe_commit(),
        "command": describe_command(),
        "settings": {**settings, **(describe_target(target) if target else {})},
    }


def describe_target(target: Target) -> dict[str, Any]:
    import torch

    return {
        "model": target.name,
        "dtype": str(target.dtype).removeprefix("torch."),
        "weights": target.weights,
        "device": str(target.device),
        "num_threads": torch.get_num_threads(),
    }


def describe_command() -> list[str]:
    """What this process was called with; the installed command goes by its name, not by where it lies."""
    program = Path(sys.argv[0])
    return ["hoarfrost" if program.name in ("hoarfrost", "__main__.py") else str(program), *sys.argv[1:]]


def describe_machine() -> dict[str, Any]:
    """Returns the CPU model, its cores and threads, memory, instruction sets, accelerators and operating system, as JSON values."""
    fields = _cpu_fields()
    return {
        "cpu": _cpu_model(fields),
        "num_cores": _num_cores(fields),
        "num_threads": _num_threads(),
        "memory_bytes": _memory_bytes(),
        "instruction_sets": _instruction_sets(fields),
        "accelerators": describe_accelerators(),
        "operating_system": _operating_system(),
        "architecture": platform.machine(),
    }


def describe_accelerators() -> list[str]:
    """Returns the names of the devices besides the CPU that torch can use here."""
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return ["Apple GPU (mps)"]
    return []


def describe_versions() -> dict[str, str | None]:
    """Returns the version of Python and of each package that decides speed or output; `None` for one that is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "hoarfrost": hoarfrost.__version__}
    for package in VERSIONED_PACKAGES:
        versions[package] = package_version(package)
    return versions


def package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe_commit() -> str | None:
    """Returns `git describe` of the Hoarfrost checkout that this code runs from, with `-dirty` if files differ from the commit.

    A virtual environment inside the checkout counts as the checkout. `None` outside of one: another project's repository that happens
    to hold the installed package is not taken for ours.
    """
    here = Path(__file__).resolve().parent
    top = _git(here, "rev-parse", "--show-toplevel")
    if top is None or _git(Path(top), "ls-files", "--error-unmatch", "src/hoarfrost/evaluation/common/machine.py") is None:
        return None
    return _git(Path(top), "describe", "--always", "--tags", "--abbrev=12", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_fields() -> list[dict[str, str]]:
    """The blocks of /proc/cpuinfo, one per hardware thread; empty where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return [{key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())} for block in blocks]


def _cpu_model(fields: list[dict[str, str]]) -> str | None:
    for block in fields:
        for key in ("model name", "Model", "Hardware"):
            if block.get(key):
                return block[key]
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or None


def _num_cores(fields: list[dict[str, str]]) -> int | None:
    """Physical cores; a machine that does not tell them apart from its threads gives the threads."""
    cores = {(block["physical id"], block["core id"]) for block in fields if "physical id" in block and "core id" in block}
    if cores:
        return len(cores)
    described = _sysctl("hw.physicalcpu")
    return int(described) if described else os.cpu_count()


def _num_threads() -> int:
    """Hardware threads this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _operating_system() -> str:
    """The distribution and the kernel's series; the full kernel release says more about the host than a result needs."""
    series = ".".join(platform.release().split(".")[:2])
    kernel = f"{platform.system()} {series}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _instruction_sets(fields: list[dict[str, str]]) -> list[str]:
    present = set((fields[0].get("flags") or fields[0].get("Features") or "").split()) if fields else set()
    known = (*X86_INSTRUCTION_SETS, *X86_MATRIX_INSTRUCTION_SETS, *ARM_INSTRUCTION_SETS)
    return [name for name in known if name in present]


def _sysctl(name: str) -> str | None:
    if platform.system() != "Darwin":
        return None
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
