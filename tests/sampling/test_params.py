"""Sampling parameters accept what makes sense, normalise it, and refuse the rest with a sentence that names field and value."""

import math

import numpy as np
import pytest

from hoarfrost.errors import InvalidInput
from hoarfrost.sampling import SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", math.nan),
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", 1e-9),
        ("temperature", "warm"),
        ("top_k", 0),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -0.01),
        ("min_p", 1.5),
        ("min_p", math.nan),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 0.5),
        ("max_new_tokens", 0),
        ("max_new_tokens", None),
        ("min_new_tokens", -1),
        ("stop", ("a", "")),
        ("stop", ""),
        ("stop", (3,)),
        ("stop_token_ids", (-1,)),
        ("stop_token_ids", 3),
    ],
)
def test_out_of_range_is_refused_by_name_and_value(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        SamplingParams(**{field: value})
    assert field.split("_")[0] in str(caught.value)
    shown = value[-1] if isinstance(value, tuple) else value
    assert repr(shown) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_minimum_above_maximum_names_both() -> None:
    with pytest.raises(InvalidInput, match=r"min_new_tokens \(9\).*max_new_tokens \(8\)"):
        SamplingParams(min_new_tokens=9, max_new_tokens=8)


def test_values_are_normalised_so_that_equal_requests_are_equal() -> None:
    given = SamplingParams(stop="END", stop_token_ids=[np.int64(3)], seed=np.int64(5), top_k=np.int32(4))
    assert given == SamplingParams(stop=("END",), stop_token_ids=(3,), seed=5, top_k=4)
    assert hash(given) == hash(SamplingParams(stop=["END"], stop_token_ids=(3,), seed=5, top_k=4))
    assert type(given.seed) is int
    assert type(SamplingParams(temperature=np.float64(0.7)).temperature) is float


def test_ending_ids_follow_ignore_eos() -> None:
    assert SamplingParams(stop_token_ids=(7,)).ending_ids([2, 3]) == {2, 3, 7}
    assert SamplingParams(stop_token_ids=(7,), ignore_eos=True).ending_ids([2, 3]) == {7}
