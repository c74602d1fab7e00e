from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hoarfrost.errors import InvalidInput
from hoarfrost.tree import MAX_BUDGET, TreeConfig


@pytest.mark.parametrize("budget", [0, 1, 1024, np.int64(16)])
def test_accepts(budget: int) -> None:
    assert TreeConfig(budget).budget == budget


@pytest.mark.parametrize("budget", [-1, 1025, True, 16.0, float("nan"), "16", None])
def test_a_bad_budget_is_named_with_its_range(budget: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"budget is {budget!r}; .* 0 .* to 1024"):
        TreeConfig(budget)


@pytest.mark.parametrize("max_width", [0, -3, True, 1.5, float("nan"), "2"])
def test_a_bad_width_is_named(max_width: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"max_width is {max_width!r}"):
        TreeConfig(4, max_width)


def test_ways_of_decoding_are_settings() -> None:
    assert TreeConfig().budget == "auto"
    assert TreeConfig.autoregressive().budget == 0
    assert TreeConfig.published(16) == TreeConfig(16, None, calibration=False, coupling=False, retrieval=False)
    assert TreeConfig.chain() == TreeConfig(MAX_BUDGET, 1, calibration=False, coupling=False, retrieval=False)
