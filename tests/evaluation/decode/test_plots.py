"""Every figure that the data allows is drawn, with a legend that does not lean on colour; skipped without matplotlib."""

from __future__ import annotations

from typing import Any

import pytest
from decode_results import make_decode_result, reliability

matplotlib = pytest.importorskip("matplotlib")

from hoarfrost.evaluation.common.plots import style  # noqa: E402
from hoarfrost.evaluation.decode import plots  # noqa: E402


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    with style():
        return dict(plots.plot_decoding({**make_decode_result(), "reliability": reliability()}))


def test_all_kinds_are_drawn(figures: dict[str, Any]) -> None:
    assert list(figures) == ["speedup", "budget", "acceptance", "stages", "reliability"]


def test_a_panel_per_temperature(figures: dict[str, Any]) -> None:
    assert {stem: len(figure.axes) for stem, figure in figures.items()} == {
        "speedup": 2,
        "budget": 4,
        "acceptance": 2,
        "stages": 2,
        "reliability": 2,
    }


def test_axes_say_what_they_show(figures: dict[str, Any]) -> None:
    for figure in figures.values():
        for axis in figure.axes:
            assert axis.get_xlabel() or axis.get_ylabel()


def test_series_differ_without_colour(figures: dict[str, Any]) -> None:
    hatches = [container[0].get_hatch() for container in figures["acceptance"].axes[0].containers]
    assert len(set(hatches)) == len(hatches) == 2
    styles = {(str(line.get_linestyle()), line.get_marker()) for line in figures["budget"].axes[0].lines if line.get_linewidth() > 1}
    assert len(styles) == 3


def test_colour_is_the_same_for_every_stage_of_the_engine() -> None:
    from hoarfrost.engine.statistics import STAGES

    assert tuple(plots.STAGE_STYLES) == STAGES


def test_nothing_is_drawn_without_data() -> None:
    stems = [stem for stem, _ in plots.plot_decoding(make_decode_result((0.0,), (("ar", 0),)))]
    assert stems == ["stages"]


def test_files_are_the_same_every_time(figures: dict[str, Any], tmp_path: Any) -> None:
    for name in ("one.svg", "two.svg"):
        with style():
            plots.plot_stages(make_decode_result()).savefig(tmp_path / name, metadata={"Date": None})  # type: ignore[union-attr]
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
