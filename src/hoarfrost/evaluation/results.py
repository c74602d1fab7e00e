"""Result files: which kind one is, what its tables say, which figures it has data for. Nothing but the file is needed for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches import plots as cache_plots
from hoarfrost.evaluation.caches import report as cache_report
from hoarfrost.evaluation.common.plots import Named
from hoarfrost.evaluation.common.tables import Report, Result
from hoarfrost.evaluation.decode.peers import report_peers
from hoarfrost.evaluation.decode.plots import plot_decoding, plot_peers
from hoarfrost.evaluation.decode.report import report_method
from hoarfrost.evaluation.index.report import plot_index, report_index

DECODING, PEERS = "table", "peers"


class Kind(NamedTuple):
    """What is made of a kind of result."""

    report: Callable[[Result], Report]
    plot: Callable[[Result], Iterator[Named]]


KINDS = {
    DECODING: Kind(report_method, plot_decoding),
    PEERS: Kind(report_peers, plot_peers),
    "retrieval": Kind(cache_report.report_retrieval, cache_plots.plot_retrieval),
    "longbench": Kind(cache_report.report_longbench, cache_plots.plot_longbench),
    "loss": Kind(cache_report.report_loss, cache_plots.plot_loss),
    "cache speed": Kind(cache_report.report_speed, cache_plots.plot_speed),
    "index": Kind(report_index, plot_index),
}
"""By the name that stands in the result under `evaluation`, or in the markers of a document."""


def read_result(file: Path) -> dict[str, Any]:
    """A result file's content. Raises `InvalidInput` for what cannot be read or is no result."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"The result file {file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise InvalidInput(f"The result file {file} is not JSON.") from None
    if not isinstance(result, dict) or not (
        {"machine", "settings", "summary"} <= result.keys() and result.keys() & {"records", "evaluation"}
    ):
        raise InvalidInput(f"The file {file} is no result of `hoarfrost bench` or `hoarfrost eval`.")
    return result


def name_of(result: Result) -> str:
    """The name of a result's kind. Raises `InvalidInput` for one that has none here."""
    name = PEERS if "peers" in result else str(result.get("evaluation", DECODING))
    if name not in KINDS:
        raise InvalidInput(f"The file is no result of `hoarfrost bench` or `hoarfrost eval`: its evaluation is {name!r}.")
    return name


def report_of(result: Result) -> Report:
    """Its tables, and what was measured where."""
    return KINDS[name_of(result)].report(result)


def figures_of(result: Result) -> Iterator[Named]:
    """Every figure that it has data for; needs matplotlib."""
    return KINDS[name_of(result)].plot(result)
