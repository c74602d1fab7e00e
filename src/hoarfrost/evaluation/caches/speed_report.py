"""The tables of `hoarfrost bench cache` and `bench index` results, from their JSON alone."""

from __future__ import annotations

from typing import Any

from hoarfrost.evaluation.caches.retrieval_report import run_caption
from hoarfrost.evaluation.caches.variants import cache_title
from hoarfrost.evaluation.decode.report import TextTable

SPEED_HEADER = ("context", "cache", "ms/token", "slowest", "start s", "hot MiB", "cold MiB", "index MiB", "peak MiB")
INDEX_HEADER = ("data", "keys", "index", "build ms", "query ms", "recall", "mass", "oracle", "bytes")


def speed_tables(result: dict[str, Any]) -> list[TextTable]:
    """Time and memory, the lengths of the context one after the other."""
    rows = sorted(result["summary"], key=lambda row: row["context"])
    return [TextTable("Time and memory of a decoded token", SPEED_HEADER, 2, tuple(map(_speed_cells, rows)))]


def speed_caption(result: dict[str, Any]) -> str:
    """Where and how the figures were measured, in sentences."""
    settings = result["settings"]
    return (
        f"{run_caption(result)} Stores filled with random rows, budget {settings['budget']}, one search for {settings['reuse']} layer(s), "
        f"median and slowest of {settings['num_steps']} tokens; start: building the indexes; peak: what filling and building took."
    )


def index_tables(result: dict[str, Any]) -> list[TextTable]:
    """What an index costs and finds, per KV head."""
    return [TextTable("Page indexes, per KV head", INDEX_HEADER, 3, tuple(map(_index_cells, result["summary"])))]


def index_caption(result: dict[str, Any]) -> str:
    """Where and how the figures were measured, in sentences."""
    settings, machine = result["settings"], result["machine"]
    return (
        f"{settings['dim']} dimensions, {settings['pages']} pages of {settings['page_size']}, {settings['threads']} thread(s), "
        f"{machine['cpu'] or 'unknown CPU'}, commit {result['commit'] or 'unknown'}. query: a search for the query heads of one KV head; "
        "recall and mass: of the best keys and of the softmax, in the pages fetched; oracle: mass of as many best single rows; bytes: "
        "index per key."
    )


def _speed_cells(row: dict[str, Any]) -> tuple[str, ...]:
    sizes = (row[name] for name in ("hot_bytes", "cold_bytes", "index_bytes", "peak_bytes"))
    times = (f"{row['ms_per_token']:.2f}", f"{row['max_ms']:.2f}", f"{row['start_ms'] / 1000:.2f}")
    return (f"{row['context']:,}", cache_title(row["cache"]), *times, *("-" if size is None else f"{size / 2**20:.1f}" for size in sizes))


def _index_cells(row: dict[str, Any]) -> tuple[str, ...]:
    costs = (f"{row['build_ms_per_head']:.1f}", f"{row['query_ms']:.3f}")
    found = (f"{row['recall']:.2f}", f"{row['mass']:.3f}", f"{row['token_oracle_mass']:.3f}", f"{row['bytes_per_key']:.0f}")
    return (row["data"], f"{row['keys']:,}", cache_title(row["index"]), *costs, *found)
