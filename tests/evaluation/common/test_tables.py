"""No cell of a table is cut where the table would fit with its headings folded."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hoarfrost.evaluation.common.tables import TextTable

TABLE = TextTable("Title", ("cache name", "index MiB", "peak MiB"), 1, (("ice-estimate", "1024.5", "2048.5"), ("full", "0.0", "1.0")))


@pytest.mark.parametrize(("width", "heading"), [(40, "cache name"), (29, "cache")])
def test_headings_fold_only_where_they_must(width: int, heading: str) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(TABLE.to_rich(width))
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert any(line.split("  ")[0].strip() == heading for line in lines)
    assert "ice-estimate" in "\n".join(lines)
    assert "…" not in "\n".join(lines)
    assert [one for line in lines for one in line.split() if one in ("1024.5", "2048.5")] == ["1024.5", "2048.5"]
