"""What a round costs on this machine: measured once per model, drafter, device and dtype, and kept in the user's cache folder.

The table holds the milliseconds of a pass of the target over n packed rows at two context lengths, and of the drafter over S sequences.
Between the measured points it is linear. Measuring stops where a pass costs more than any tree could bring in, and after about a second:
of a model whose every point would take longer, few points are measured, once each; of a large one no fewer than `LEAST_POINTS`. A file
that cannot be read, belongs to something else or is a month old is measured anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import hoarfrost
from hoarfrost.cache import Store
from hoarfrost.drafting import Drafter
from hoarfrost.files import write_json
from hoarfrost.target import PackedRows, Target
from hoarfrost.tree import DraftTree
from hoarfrost.user_cache import cache_folder

logger = logging.getLogger("hoarfrost")

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1025)
"""Up to the root and `tree.MAX_BUDGET` nodes: no tree grows larger than what was measured."""
ROWS_OF_SLOW_MODELS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1025)
LEAST_POINTS = 4
MEASURING_SECONDS = 1.0
PASSES_OF_ALL_POINTS = 720
"""What measuring every point takes, in passes over one row: 22 sizes up to where a pass costs 16 of them, six times, at two contexts."""
BATCHES = (1, 2, 4, 8)
CONTEXTS = (128, 1024)
SLOW_MS = 1000 * MEASURING_SECONDS / PASSES_OF_ALL_POINTS
MAX_AGE_SECONDS = 30 * 24 * 3600
FORMAT = 1


@dataclass(frozen=True)
class CostModel:
    """Milliseconds of the parts of a round. `verify_ms[c][i]`: a pass over `rows[i]` rows with `contexts[c]` tokens behind them;
    `draft_ms[i]`: a pass of the drafter over `batches[i]` sequences (empty without a drafter)."""

    rows: tuple[int, ...]
    contexts: tuple[int, ...]
    verify_ms: tuple[tuple[float, ...], ...]
    batches: tuple[int, ...]
    draft_ms: tuple[float, ...]

    @cached_property
    def _tables(self) -> list[NDArray[np.float64]]:
        """Per measured context the times of passes over 1, 2, 3 ... rows."""
        return [np.interp(np.arange(1, self.rows[-1] + 1), self.rows, one) for one in self.verify_ms]

    def row_ms(self, context: float) -> NDArray[np.float64]:
        """float64 [N]: entry n - 1 is the time of a pass over n rows whose sequences have `context` tokens behind them."""
        tables = self._tables
        if len(tables) == 1:
            return tables[0]
        share = (context - self.contexts[0]) / (self.contexts[1] - self.contexts[0])
        grown: NDArray[np.float64] = tables[0] + max(share, 0.0) * np.maximum(tables[1] - tables[0], 0.0)
        return grown

    def draft_time_ms(self, num_sequences: int) -> float:
        """Time of one pass of the drafter; beyond the largest measured batch it grows in proportion."""
        if not self.draft_ms:
            return 0.0
        beyond = max(1.0, num_sequences / self.batches[-1])
        return float(np.interp(num_sequences, self.batches, self.draft_ms)) * beyond


def load_costs(target: Target, drafter: Drafter | None, folder: Path | None = None) -> CostModel:
    """The cost model of this pair on this machine: from the cache folder, or measured now and kept there."""
    key = describe(target, drafter)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = (folder or cache_folder()) / f"costs-{digest}.json"
    kept = read_costs(path, key)
    if kept is not None:
        return kept
    logger.info("Measuring what a round of %s costs on this machine, once; kept in %s.", target.name, path)
    costs = measure(target, drafter)
    keep_costs(path, {"format": FORMAT, "key": key, "measured_at": time.time(), "costs": asdict(costs)})
    return costs


def keep_costs(path: Path, content: dict[str, Any]) -> None:
    """Writes the table. A folder that cannot be written (another user's, read-only, full) is no reason not to decode: said once."""
    try:
        write_json(path, content)
    except OSError as error:
        warn_once(f"The measured costs could not be kept in {path.parent} ({error.strerror or error}); the next start measures again.")


@cache
def warn_once(message: str) -> None:
    logger.warning(message)


def describe(target: Target, drafter: Drafter | None) -> dict[str, Any]:
    """What the costs depend on."""
    config = target.model.config.to_dict()
    shape = {name: value for name, value in sorted(config.items()) if isinstance(value, int) and not isinstance(value, bool)}
    device = target.device
    return {
        "model_type": config["model_type"],
        "shape": shape,
        "modules": sorted({type(module).__name__ for module in target.model.modules()}),  # a packed model is faster than its stock twin
        "drafter": None if drafter is None else [type(drafter).__name__, drafter.horizon, list(drafter.taps), drafter.name],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": str(target.dtype),
        "weights": target.weights,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "versions": [hoarfrost.__version__, torch.__version__],
    }


def read_costs(path: Path, key: dict[str, Any]) -> CostModel | None:
    """The kept costs, if they are whole, of this machine and fresh; a warning says why what is in a file is not used. Of a file that
    cannot be read nothing is said here: if it cannot be written either, `keep_costs` does."""
    try:
        text = path.read_bytes()
    except OSError:
        return None
    try:
        content = json.loads(text)
        costs = CostModel(**{name: _as_tuple(value) for name, value in content["costs"].items()})
        age, kept_key, version = time.time() - float(content["measured_at"]), content["key"], content["format"]
        _check(costs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("The measured costs in %s cannot be used (%s: %s); measuring anew.", path, type(error).__name__, error)
        return None
    if version != FORMAT or kept_key != json.loads(json.dumps(key)):
        logger.warning("The measured costs in %s belong to another model, machine or version; measuring anew.", path)
        return None
    return costs if 0 <= age < MAX_AGE_SECONDS else None


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(one) for one in value) if isinstance(value, list) else value


def _check(costs: CostModel) -> None:
    times = [*costs.draft_ms, *(ms for table in costs.verify_ms for ms in table)]
    shapes = [len(table) == len(costs.rows) for table in costs.verify_ms]
    if not (costs.rows and costs.rows[0] == 1 and all(shapes) and len(shapes) == len(costs.contexts) and all(0 < ms < 1e9 for ms in times)):
        raise ValueError("the table is not whole")


@torch.inference_mode()
def measure(target: Target, drafter: Drafter | None) -> CostModel:
    """Times passes of the target and the drafter on stores filled with nothing in particular."""
    horizon = drafter.horizon if drafter is not None else 16
    contexts = tuple(context for context in CONTEXTS if context + ROWS[-1] < target.max_positions) or (1,)
    stores = {context: filled_store(target, context, capacity=context + ROWS[-1]) for context in contexts}
    began = time.perf_counter()
    is_slow = _verify_ms(target, stores[contexts[0]], 1) > SLOW_MS
    grid: tuple[int, ...] = ROWS_OF_SLOW_MODELS if is_slow else ROWS
    tables: list[list[float]] = []
    for context in contexts:
        times: list[float] = []
        for num_rows in grid:
            times.append(_verify_ms(target, stores[context], num_rows, is_slow=is_slow))
            is_late = is_slow and time.perf_counter() - began > MEASURING_SECONDS
            if (is_late and len(times) >= LEAST_POINTS) or times[-1] > (horizon + 1) * times[0]:
                break
        if tables and is_late:
            break  # what is missing at the second context is worth less than points of the first
        grid = grid[: len(times)]
        tables.append(rising(times))
        if is_late:
            break
    contexts = contexts[: len(tables)]
    draft_ms = [_draft_ms(target, drafter, size, is_slow=is_slow) for size in BATCHES] if drafter is not None else []
    return CostModel(
        rows=grid,
        contexts=contexts,
        verify_ms=tuple(tuple(table[: len(grid)]) for table in tables),
        batches=BATCHES if draft_ms else (),
        draft_ms=tuple(draft_ms),
    )


def rising(times: Sequence[float]) -> list[float]:
    """Times of ever larger passes, none longer than a later one: what is out of line was disturbed."""
    return np.minimum.accumulate(np.array(times)[::-1])[::-1].tolist()  # type: ignore[no-any-return]


def filled_store(target: Target, length: int, capacity: int) -> Store:
    """A store with `length` committed rows of zeros."""
    store = target.new_store(capacity)
    rows = torch.zeros((target.num_kv_heads, length, target.head_dim), dtype=target.dtype, device=target.device)
    for layer in range(target.num_layers):
        store.append(layer, rows, rows)
    store.commit(range(length))
    return store


def _verify_ms(target: Target, store: Store, num_rows: int, *, is_slow: bool = False) -> float:
    parents = [-1, *((row - 1) // 2 for row in range(1, num_rows))]
    tree = DraftTree.from_parents([0] * num_rows, parents)

    def verify() -> None:
        hidden, _ = target.forward(PackedRows.from_trees([store], [tree], target.device))
        target.logits(hidden)
        store.commit([])

    return median_ms(verify, target.device, is_slow=is_slow)


def _draft_ms(target: Target, drafter: Drafter, num_sequences: int, *, is_slow: bool = False) -> float:
    states: Sequence[Any] = [drafter.new_state(256) for _ in range(num_sequences)]
    width = len(drafter.taps) * target.hidden_size
    drafter.extend(states, [torch.zeros((128, width), dtype=target.dtype, device=target.device)] * num_sequences)
    added = [torch.zeros((3, width), dtype=target.dtype, device=target.device)] * num_sequences

    def draft() -> None:
        drafter.extend(states, added)
        drafter.propose(states, [0] * num_sequences)

    return median_ms(draft, target.device, is_slow=is_slow)


def median_ms(work: Callable[[], None], device: torch.device, *, is_slow: bool = False) -> float:
    """Median of five timed calls after one for warming up; a single call where `is_slow`, which on a CPU is even enough without."""
    if not is_slow or device.type != "cpu":
        work()
    times: list[float] = []
    while len(times) < (1 if is_slow else 5):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
