"""The chooser samples exactly the distribution that transformers' warpers define, and is a function of its arguments alone."""

import itertools
import math

import numpy as np
import pytest
import torch
from devices import DEVICES
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hoarfrost.errors import ModelFault
from hoarfrost.sampling import Chooser, SamplingParams, choose_greedy_rows, distribution, gumbel_noise_plain, probabilities

FILTERS = [
    dict(zip(("top_k", "top_p", "min_p"), values, strict=True)) for values in itertools.product((None, 1, 12), (1.0, 0.9, 0.4), (0.0, 0.08))
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
PLACES = [(device, dtype) for device in DEVICES for dtype in DTYPES if (device, dtype) != ("mps", torch.float64)]


def warped(logits_row: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """The distribution after transformers' warpers, in the order in which its `generate` applies them."""
    scores = TemperatureLogitsWarper(float(params.temperature))(None, logits_row[None].float())
    if params.top_k is not None:
        scores = TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(None, scores)
    if params.min_p > 0:
        scores = MinPLogitsWarper(params.min_p)(None, scores)
    return scores.softmax(dim=-1)[0]


def fully_sorted(logits_row: torch.Tensor, params: SamplingParams, slack: float) -> list[int]:
    """What the filters keep after a sort of the whole row, thresholds loosened by `slack`: the plain twin."""
    values = logits_row.to(torch.float64).numpy()
    order = np.lexsort((np.arange(len(values)), -values))[: np.isfinite(values).sum()]
    if params.top_k is not None:
        order = order[values[order] >= values[order][: params.top_k][-1]]
    weights = np.exp((values[order].astype(np.float64) - values.max()) / params.temperature)
    before = np.cumsum(weights) - weights
    kept = weights >= params.min_p * (1 - slack)
    if params.top_p < 1:
        kept &= before <= (params.top_p + slack) * weights.sum()
    kept[0] = True
    return order[kept].tolist()


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize(("vocab_size", "spread"), [(40, 1.0), (3000, 0.3), (3000, 4.0)])
def test_filters_equal_transformers(filters: dict[str, float], temperature: float, vocab_size: int, spread: float) -> None:
    params = SamplingParams(temperature=temperature, **filters)
    for seed in range(3):
        logits = torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * spread
        expected = warped(logits, params)
        actual = probabilities(logits, params)
        assert torch.equal(actual > 0, expected > 0)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_among_equal_logits_the_lower_ids_are_kept_and_as_many_as_in_transformers(filters: dict[str, float]) -> None:
    params = SamplingParams(temperature=0.9, **filters)
    logits = (torch.randn(500, generator=torch.Generator().manual_seed(3)) * 4).round() / 2
    actual, expected = probabilities(logits, params) > 0, warped(logits, params) > 0
    assert sorted(logits[actual].tolist()) == sorted(logits[expected].tolist())
    lowest = logits[actual].min()
    kept_of_lowest = actual[logits == lowest]
    assert kept_of_lowest[: kept_of_lowest.sum()].all()
    if params.top_p == 1:
        assert torch.equal(actual, expected)


@st.composite
def rows(draw: st.DrawFn) -> torch.Tensor:
    """Rows peaked and flat, with many equal values or few, some tokens impossible, sizes about the borders of the prefix search."""
    vocab_size = draw(st.sampled_from([1, 2, 31, 32, 63, 64, 65, 2047, 2048, 2100, 5000]))
    values = np.random.default_rng(draw(st.integers(0, 10**6))).standard_normal(vocab_size).astype(np.float32)
    values *= draw(st.sampled_from([0.0, 0.05, 1.0, 5.0]))
    if draw(st.booleans()):
        values = np.round(values * 4) / 4
    if draw(st.booleans()):
        values[1 :: draw(st.integers(2, 5))] = -math.inf
    return torch.from_numpy(values).to(draw(st.sampled_from(DTYPES)))


@given(
    logits=rows(),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.sampled_from([None, 1, 40, 1000, 10**6]),
    top_p=st.sampled_from([1.0, 0.99, 0.8, 0.1, 1e-6]),
    min_p=st.sampled_from([0.0, 1e-4, 0.2, 1.0]),
)
def test_the_prefix_search_equals_a_full_sort(
    logits: torch.Tensor, temperature: float, top_k: int | None, top_p: float, min_p: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    scaled, token_ids = distribution._kept(logits, params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distribution, "_takes_all", lambda values, num_wanted: True)
        scaled_in_full, token_ids_in_full = distribution._kept(logits, params)
    np.testing.assert_array_equal(token_ids, token_ids_in_full)
    np.testing.assert_array_equal(scaled, scaled_in_full)
    least, most = fully_sorted(logits, params, -1e-5), fully_sorted(logits, params, 1e-5)
    assert len(least) <= len(token_ids)
    assert token_ids.tolist() == most[: len(token_ids)]


@pytest.mark.parametrize(("device", "dtype"), PLACES)
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_the_choice_is_the_argmax_of_log_probability_plus_noise(filters: dict[str, float], dtype: torch.dtype, device: str) -> None:
    params = SamplingParams(temperature=0.8, seed=5, **filters)
    chooser = Chooser(params)
    logits = (torch.randn(20, 700, generator=torch.Generator().manual_seed(1)) * 2).to(dtype)
    for position, row in enumerate(logits):
        noisy = probabilities(row, params).double().log() + gumbel_noise_plain(5, position, torch.arange(700)).double()
        assert chooser.choose(row.to(device), position, 0) == noisy.argmax().item()


@pytest.mark.parametrize(
    "all_kept", [{"top_k": 10**6}, {"top_p": math.nextafter(1, 0)}, {"min_p": 1e-30}, {"top_k": 3000, "min_p": 1e-30}], ids=str
)
def test_filters_that_keep_everything_change_nothing(all_kept: dict[str, float]) -> None:
    logits = torch.randn(30, 3000, generator=torch.Generator().manual_seed(2))
    free, filtered = Chooser(SamplingParams(temperature=1.3)), Chooser(SamplingParams(temperature=1.3, **all_kept))
    assert [free.choose(row, i, 0) for i, row in enumerate(logits)] == [filtered.choose(row, i, 0) for i, row in enumerate(logits)]


@pytest.mark.parametrize("filters", [*FILTERS[::4], {"top_k": 4, "top_p": 0.9, "min_p": 0.05}], ids=str)
def test_sampled_frequencies_fit_the_exact_distribution(filters: dict[str, float]) -> None:
    params = SamplingParams(temperature=1.2, seed=17, **filters)
    logits = torch.randn(24, generator=torch.Generator().manual_seed(4)) * 1.5
    chooser, num_draws = Chooser(params), 4000
    counts = np.bincount([chooser.choose(logits, position, 0) for position in range(num_draws)], minlength=24)
    expected = warped(logits, params).double().numpy() * num_draws
    assert counts[expected == 0].sum() == 0
    if (expected > 0).sum() > 1:
        assert fit(counts[expected > 0], expected[expected > 0]) > 1e-3


def fit(counts: np.ndarray, expected: np.ndarray) -> float:
    """The p-value of the chi-square test, cells that expect fewer than five draws being merged."""
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    present = expected > 0
    return float(stats.chisquare(counts[present], expected[present] * counts.sum() / expected.sum()).pvalue)


def test_draws_at_consecutive_positions_and_of_other_seeds_are_independent() -> None:
    logits = torch.tensor([1.0, 0.5, 0.0, 0.7])
    choosers = {seed: Chooser(SamplingParams(temperature=1.0, seed=seed)) for seed in (0, 1, 2**62)}
    draws = {seed: [chooser.choose(logits, position, 0) for position in range(3000)] for seed, chooser in choosers.items()}
    pairs = [(draws[0][:-1], draws[0][1:]), (draws[0][:-2], draws[0][2:]), (draws[0], draws[1]), (draws[0][:-1], draws[1][1:])]
    for one, other in [*pairs, (draws[1], draws[2**62])]:
        table = np.zeros((4, 4))
        np.add.at(table, (one, other), 1)
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_draws_along_seeds_fit_the_distribution_too() -> None:
    logits = torch.tensor([1.0, 0.5, 0.0, 0.7])
    counts = np.bincount([Chooser(SamplingParams(temperature=1.0, seed=seed)).choose(logits, 9, 0) for seed in range(2000)], minlength=4)
    assert fit(counts, logits.softmax(0).double().numpy() * 2000) > 1e-3


def test_the_lowest_temperature_is_greedy() -> None:
    logits = torch.randn(50, 300, generator=torch.Generator().manual_seed(6))
    cold = [Chooser(SamplingParams(temperature=1e-5, **filters)) for filters in ({}, {"top_k": 20}, {"top_p": 0.9})]
    for chooser in cold:
        assert [chooser.choose(row, i, 0) for i, row in enumerate(logits)] == choose_greedy_rows(logits)


@pytest.mark.parametrize(("device", "dtype"), PLACES)
def test_greedy_takes_the_lowest_of_equal_ids(dtype: torch.dtype, device: str) -> None:
    logits = torch.randn(6, 900, generator=torch.Generator().manual_seed(7)).mul(2).round().to(device, dtype)
    expected = [int((row == row.max()).nonzero()[0]) for row in logits]
    assert choose_greedy_rows(logits) == expected
    assert [Chooser(SamplingParams()).choose(row, 0, 0) for row in logits] == expected
    assert probabilities(logits[0], SamplingParams()).nonzero().tolist() == [[expected[0]]]


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}, {"temperature": 1.0, "top_p": 0.5}], ids=str
)
class TestEveryMode:
    def test_ending_ids_are_banned_until_the_minimum(self, sampling: dict[str, float]) -> None:
        logits = torch.zeros(8)
        logits[[2, 5]] = 50.0
        before = logits.clone()
        chooser = Chooser(SamplingParams(min_new_tokens=3, stop_token_ids=(5, 10**6), **sampling), eos_token_ids=[2])
        early = {chooser.choose(logits, position, position % 3) for position in range(60)}
        assert early <= {0, 1, 3, 4, 6, 7}
        assert all(chooser.choose(logits, position, 3) in (2, 5) for position in range(10))
        assert torch.equal(logits, before)
        assert chooser.is_greedy(3) == (not sampling)
        assert not chooser.is_greedy(2)

    def test_eos_is_not_banned_when_it_ends_nothing(self, sampling: dict[str, float]) -> None:
        logits = torch.tensor([0.0, 0.0, 50.0, 0.0])
        assert Chooser(SamplingParams(min_new_tokens=3, ignore_eos=True, **sampling), eos_token_ids=[2]).choose(logits, 0, 0) == 2

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize("place", [0, 150, 299])
    def test_logits_that_are_not_finite_are_refused(self, sampling: dict[str, float], bad: float, place: int) -> None:
        logits = torch.randn(300, generator=torch.Generator().manual_seed(8))
        logits[place] = bad
        with pytest.raises(ModelFault, match="NaN or infinite"):
            Chooser(SamplingParams(**sampling)).choose(logits, 0, 0)

    def test_a_vocabulary_banned_whole_is_refused(self, sampling: dict[str, float]) -> None:
        with pytest.raises(ModelFault, match="every token is banned"):
            Chooser(SamplingParams(**sampling)).choose(torch.full((9,), -math.inf), 0, 0)

    def test_impossible_tokens_are_never_chosen(self, sampling: dict[str, float]) -> None:
        logits = torch.full((300,), -math.inf)
        logits[[7, 200]] = torch.tensor([0.0, -1.0])
        assert {Chooser(SamplingParams(**sampling)).choose(logits, position, 0) for position in range(40)} <= {7, 200}


def test_float64_logits_are_told_apart_where_float32_could_not() -> None:
    logits = torch.tensor([1.0, 1.0 + 1e-12, 0.0], dtype=torch.float64)
    assert choose_greedy_rows(logits[None]) == [1]
    assert Chooser(SamplingParams(temperature=1.0, top_k=1)).choose(logits, 0, 0) == 1


def test_the_position_and_seed_decide_and_nothing_else() -> None:
    logits = torch.zeros(1000)

    def choose(seed: int, position: int, num_generated: int) -> int:
        return Chooser(SamplingParams(temperature=1.0, seed=seed)).choose(logits, position, num_generated)

    assert choose(1, 5, 0) == choose(1, 5, 9)
    assert len({choose(seed, position, 0) for seed in range(5) for position in range(5)}) > 20
