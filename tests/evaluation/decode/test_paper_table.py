"""The paper's figures are printed as they are, and the table has ours beside them in the paper's layout."""

from __future__ import annotations

from statistics import fmean

import pytest
from decode_results import VARIANTS, make_decode_result

from hoarfrost.evaluation.decode.paper import PAPER_MODELS, PAPER_TABLE, SET_NAMES
from hoarfrost.evaluation.decode.report import mode_means_table, paper_tables
from hoarfrost.evaluation.prompts.sets import PROMPT_SETS


def test_the_papers_table_is_whole() -> None:
    assert set(SET_NAMES) == set(PROMPT_SETS)
    assert set(PAPER_TABLE) == {(temperature, name) for temperature in (0.0, 1.0) for name in PROMPT_SETS}
    assert all(tuple(cells) == PAPER_MODELS for cells in PAPER_TABLE.values())
    for cells in PAPER_TABLE.values():
        for cell in cells.values():
            assert 1 < cell.chain_speedup < cell.tree_speedup < cell.tree_tau
            assert cell.chain_speedup < cell.chain_tau


@pytest.mark.parametrize(
    ("temperature", "model", "means"),
    [
        (0.0, "Qwen3-4B", (4.27, 6.00, 6.03, 8.71)),
        (1.0, "Qwen3-8B", (3.44, 4.91, 5.23, 7.62)),
        (0.0, PAPER_MODELS[2], (3.90, 5.19, 5.64, 7.51)),
    ],
)
def test_the_papers_columns_have_their_known_means(temperature: float, model: str, means: tuple[float, ...]) -> None:
    columns = zip(*(PAPER_TABLE[temperature, name][model] for name in PROMPT_SETS), strict=True)
    assert [fmean(column) for column in columns] == pytest.approx(means, abs=0.006)


def test_a_cell_has_the_budget_that_is_fastest_on_its_set() -> None:
    cold, warm = paper_tables(make_decode_result())
    gsm8k, mt_bench, mean = cold.rows
    assert gsm8k[:3] == ("GSM8K", "1.60/2.00 → 2.14/3.00 (B=16)", "2.22/3.00")
    assert mt_bench[1].endswith("2.14/3.00 (B=16)")
    assert gsm8k[4] == "4.78/6.57 → 6.75/9.54"
    assert mean[0] == "mean"
    assert mean[1] == "1.60/2.00 → 2.14/3.00"
    assert mean[4] == f"{fmean((4.78, 2.56)):.2f}/{fmean((6.57, 4.28)):.2f} → {fmean((6.75, 4.10)):.2f}/{fmean((9.54, 6.58)):.2f}"
    assert "temperature 1" in warm.title
    assert warm.rows[0][4] == "4.33/5.93 → 6.27/8.95"


def test_columns_are_only_there_where_they_say_something() -> None:
    [table] = paper_tables(make_decode_result((0.7,), [variant for variant in VARIANTS if variant[1] != "auto"]))
    assert table.header == ("prompts", "tiny: chain → DDTree")
    [table] = paper_tables(make_decode_result((0.0,), sets=("demo",)))
    assert table.header == ("prompts", "tiny: chain → DDTree", "tiny: DDTree auto")
    assert len(table.rows) == 1


def test_several_tree_modes_get_a_table_of_their_means() -> None:
    assert mode_means_table(make_decode_result()) is None
    table = mode_means_table(make_decode_result(variants=(*VARIANTS, ("tree-uncoupled", 16))))
    assert table is not None
    assert table.header == ("mode", "T = 0", "T = 1")
    assert table.rows[0] == ("DFlash chain", "1.60/2.00", "1.60/2.00")
    assert table.rows[-1] == ("DDTree uncoupled 16", "1.79/2.50", "1.79/2.50")
    unpaired = mode_means_table(make_decode_result((0.0,), (("tree", 16), ("tree-uncoupled", 16))))
    assert unpaired is not None
    assert unpaired.rows[1] == ("DDTree uncoupled 16", "-/2.50")


def test_what_was_not_measured_has_no_column() -> None:
    [table] = paper_tables(make_decode_result((0.0,), (("ar", 0), ("tree", "auto"))))
    assert table.header[:2] == ("prompts", "tiny: DDTree auto")
    assert table.rows[0][1] == "2.22/3.00"
    [table] = paper_tables(make_decode_result((0.0,), (("ar", 0), ("chain", 7), ("tree", "auto"))))
    assert table.header[:3] == ("prompts", "tiny: chain", "tiny: DDTree auto")
    assert table.rows[0][1] == table.rows[-1][1] == "1.60/2.00"


def test_what_has_nothing_to_be_compared_with_is_a_dash() -> None:
    [table] = paper_tables(make_decode_result((0.0,), (("chain", 7), ("tree", 16))))
    assert table.rows[0][1] == "- → -"
    assert table.rows[-1][1] == "- → -"
