"""Time and memory per decoded token over the length of the context, for the full cache and for paged ones.

Stores are filled with random rows instead of reading a prompt: what a token costs depends on how many rows there are, not on what they say.
At each length the caches take turns token by token, so that whatever disturbs the machine disturbs all of them. A step is one token through
the layers (without the head, which no cache changes) and its commit, now and then with the page that leaves the window.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, Qwen3Config

from hoarfrost.cache import Store
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.variants import FULL, MEANING, paged_config
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.hub import Checkpoint
from hoarfrost.target import PackedRows, Target
from hoarfrost.target.loading import load_model, pick_device, pick_dtype
from hoarfrost.tree import DraftTree

CHUNK_ROWS = 2048
# Layers of published models; the vocabulary is left small, since the head is not measured.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "qwen3-8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
}


@dataclass(frozen=True)
class SpeedSettings:
    """What is measured: every cache (`full` or an index of the ice store) at every context length."""

    caches: tuple[str, ...] = (FULL, "ice")
    contexts: tuple[int, ...] = (2048, 8192, 32768)
    budget: int = 256
    reuse: int = 1
    num_steps: int = 32

    def __post_init__(self) -> None:
        if not self.caches or not self.contexts or min(self.contexts) < 1 or self.num_steps < 1:
            raise InvalidInput("Give at least one cache, contexts of at least 1 row, and at least 1 step.")
        self.cache_configs()

    def cache_configs(self) -> dict[str, IceConfig | None]:
        """The caches with their settings; `None` is the full cache. Raises `InvalidInput` for what cannot be."""
        return {cache: None if cache == FULL else paged_config(cache, self.budget, self.reuse) for cache in self.caches}


@dataclass(frozen=True)
class SpeedRecord:
    """One cache at one context length: median and slowest step, what it took to fill, and bytes; peak_bytes is that of filling it."""

    cache: str
    context: int
    ms_per_token: float
    max_ms: float
    start_ms: float
    hot_bytes: int
    cold_bytes: int
    index_bytes: int
    peak_bytes: int | None


def random_target(shape: str, num_layers: int, max_positions: int, *, dtype: str = "auto", device: str = "auto") -> Target:
    """A target with random weights in the shape of a published model's layers; it has no tokenizer."""
    if shape not in SHAPES:
        raise InvalidInput(f"Unknown shape {shape!r}; choose one of {', '.join(SHAPES)}.")
    config: PreTrainedConfig = Qwen3Config(
        vocab_size=1024, num_hidden_layers=num_layers, max_position_embeddings=max_positions, tie_word_embeddings=True, **SHAPES[shape]
    )
    place = pick_device(device)
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config, dtype=pick_dtype(dtype, place)).save_pretrained(folder)  # type: ignore[no-untyped-call]
        model, stack = load_model(Checkpoint(shape, Path(folder)), config, pick_dtype(dtype, place), place)
    return Target(model, None, f"{num_layers} layers of {shape}", stack)


def measure(target: Target, settings: SpeedSettings, on_case: Callable[[str], None] = lambda case: None) -> dict[str, Any]:
    """Measures all caches at all lengths, the shortest first; the result is made of JSON values."""
    records: list[SpeedRecord] = []
    for context in sorted(settings.contexts):
        if context + settings.num_steps > target.max_positions:
            raise InvalidInput(f"A context of {context} rows and {settings.num_steps} steps exceed the {target.max_positions} positions.")
        on_case(f"context {context:,}")
        records += _measure_context(target, settings, context)
    header = describe_run({**asdict(settings), **MEANING}, evaluation="cache speed", target=target)
    return {**header, "summary": [asdict(record) for record in records]}


@torch.inference_mode()
def _measure_context(target: Target, settings: SpeedSettings, context: int) -> Iterator[SpeedRecord]:
    stores: dict[str, Store] = {}
    peaks, start_ms = {}, {}
    for cache, config in settings.cache_configs().items():
        before = _start_peak()
        stores[cache] = target.new_store(context + settings.num_steps, config)
        start_ms[cache] = _fill(target, stores[cache], context)
        peaks[cache] = _peak_since(before)
    steps: dict[str, list[float]] = {cache: [] for cache in stores}
    for number in range(settings.num_steps):
        for cache, store in stores.items():
            steps[cache].append(_step(target, store, number))
    for cache, store in stores.items():
        by_tier = store.bytes_by_tier()
        cold, index = by_tier.pop("cold", 0), by_tier.pop("index", 0)
        # The first step warms up.
        times = steps[cache][1:] or steps[cache]
        yield SpeedRecord(
            cache, context, statistics.median(times), max(times), start_ms[cache], sum(by_tier.values()), cold, index, peaks[cache]
        )


def _fill(target: Target, store: Store, num_rows: int) -> float:
    """Random keys and values of about unit length per entry; returns the milliseconds that starting to decode took."""
    random = torch.Generator(device=target.device).manual_seed(num_rows)
    store.reserve(num_rows)
    for start in range(0, num_rows, CHUNK_ROWS):
        shape = (2, target.num_kv_heads, min(CHUNK_ROWS, num_rows - start), target.head_dim)
        for layer in range(target.num_layers):
            keys, values = torch.randn(shape, generator=random, dtype=torch.float32, device=target.device).to(target.dtype)
            store.append(layer, keys, values)
        store.commit(range(shape[2]))
    began = time.perf_counter()
    store.start_decoding()
    return 1000 * (time.perf_counter() - began)


def _step(target: Target, store: Store, token_id: int) -> float:
    began = time.perf_counter()
    target.forward(PackedRows.from_trees([store], [DraftTree.single(token_id)], target.device))
    store.commit([0])
    if target.device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)


def _start_peak() -> int | None:
    """Starts counting the peak of the process's memory anew, where the system can (Linux); returns what is in use."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmRSS")
    return None


def _peak_since(before: int | None) -> int | None:
    return None if before is None else _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
