"""The table of a loss result, from its JSON alone: one per source and context, a row per cache and budget."""

from __future__ import annotations

from typing import Any

from hoarfrost.evaluation.caches.retrieval_report import percent, run_caption, variant_cells
from hoarfrost.evaluation.decode.report import TextTable

HEADER = ("cache", "budget", "loss", "added", "95 %", "KL", "top 1", "mass", "best", "recall")


def loss_tables(result: dict[str, Any]) -> list[TextTable]:
    places = dict.fromkeys((row["texts"], row["context"]) for row in result["summary"])
    tables = []
    for texts, context in places:
        rows = [row for row in result["summary"] if (row["texts"], row["context"]) == (texts, context)]
        title = f"Loss in nats on {texts} behind {context} tokens"
        tables.append(TextTable(title, HEADER, 1, tuple(map(_cells, rows))))
    return tables


def loss_caption(result: dict[str, Any]) -> str:
    """Where and how the figures were measured, in sentences."""
    settings = result["settings"]
    return " ".join(
        [
            run_caption(result),
            f"{settings['limit']} stretches per source and context, {settings['continuation']} tokens decoded in each, teacher-forced.",
            f"Budget: {settings['budget_is']}; the context is read with exact attention.",
            "added: loss over that of the full cache, with its 95 % interval over stretches; KL: divergence from the full cache's "
            "prediction in nats; top 1: both find the same token likeliest; mass: share of the attention to earlier rows that the rows "
            "read would get, in %, best: what as many rows could get; recall: share of those best rows among the rows read.",
        ]
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    low, high = row["added_interval"]
    shares = (percent(row[name]) for name in ("top1", "mass", "best_mass", "recall"))
    return (*variant_cells(row), f"{row['loss']:.3f}", f"{row['added_loss']:.4f}", f"{low:.4f}..{high:.4f}", f"{row['kl']:.4f}", *shares)
