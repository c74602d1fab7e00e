"""What an index result says, from its JSON alone: its table, and its figure where there are several numbers of keys."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from hoarfrost.evaluation.caches.plots import line_panels, series_of
from hoarfrost.evaluation.caches.variants import cache_title
from hoarfrost.evaluation.common.plots import Named
from hoarfrost.evaluation.common.tables import Report, Result, Summary, TextTable, commit

HEADER = ("data", "keys", "index", "build ms", "query ms", "recall", "mass", "oracle", "bytes")


def report_index(result: Result) -> Report:
    """What an index costs and finds, per KV head."""
    settings = result["settings"]
    note = (
        f"{settings['dim']} dimensions, {settings['pages']} pages of {settings['page_size']}, {settings['threads']} thread(s), "
        f"{result['machine']['cpu'] or 'unknown CPU'}, {commit(result)}. query: a search for the query heads of one KV head; "
        "recall and mass: of the best keys and of the softmax, in the pages fetched; oracle: mass of as many best single rows; bytes: "
        "index per key."
    )
    return Report([TextTable("Page indexes, per KV head", HEADER, 3, tuple(map(_cells, result["summary"])))], [note])


def _cells(row: Summary) -> tuple[str, ...]:
    costs = (f"{row['build_ms_per_head']:.1f}", f"{row['query_ms']:.3f}")
    found = (f"{row['recall']:.2f}", f"{row['mass']:.3f}", f"{row['token_oracle_mass']:.3f}", f"{row['bytes_per_key']:.0f}")
    return (row["data"], f"{row['keys']:,}", cache_title(row["index"]), *costs, *found)


def plot_index(result: Result) -> Iterator[Named]:
    """Time to build and to search over the number of keys, where there are several numbers; the data that comes first."""
    rows = sorted((row for row in result["summary"] if row["data"] == result["summary"][0]["data"]), key=lambda row: row["keys"])
    if len({row["keys"] for row in rows}) < 2:
        return
    build, search = (series_of(rows, "index", "keys", itemgetter(field)) for field in ("build_ms_per_head", "query_ms"))
    yield "index-growth", line_panels("keys", [("Build", "ms per KV head", build), ("Search", "ms per KV head", search)])
