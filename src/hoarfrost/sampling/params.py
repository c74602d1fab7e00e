"""What one request asks of sampling and stopping: a frozen value, checked once, where it is made.

This module chooses nothing and stops nothing: `distribution.Chooser` and `stopping.StopChecker` read these fields.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

from hoarfrost.errors import InvalidInput, check_unicode

MAX_SEED = 2**63 - 1
MIN_TEMPERATURE = 1e-5  # below, sampling is greedy in all but name, and float32 cannot hold the scaled logits


@dataclass(frozen=True)
class SamplingParams:
    """How the tokens of one request are chosen, and when it ends.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token, and then `top_k`, `top_p`, `min_p` and `seed` have no say.
        top_k: keep the k likeliest tokens (and whatever ties with the k-th); None keeps all.
        top_p: keep the likeliest tokens until their probabilities sum to at least this; 1 keeps all.
        min_p: keep tokens at least this likely relative to the likeliest; 0 keeps all.
        seed: keys the noise; the same seed, prompt and weights give the same tokens.
        max_new_tokens: the output ends here with finish reason "length".
        min_new_tokens: no stop counts within the first `min_new_tokens` tokens, and end-of-sequence and stop ids are not chosen there.
        stop: strings that end the output and are cut from its text; one string may be given bare.
        stop_token_ids: ids that end the output, besides the model's end-of-sequence ids.
        ignore_eos: treat end-of-sequence ids as ordinary tokens.
        stop_on_repetition: end the output once it repeats itself (`stopping.RepetitionDetector` says when).

    Raises:
        InvalidInput: a field out of its range; the message names field, value and range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    max_new_tokens: int = 256
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    stop_on_repetition: bool = False

    def __post_init__(self) -> None:
        wanted = f"0 (greedy) or a finite number of at least {MIN_TEMPERATURE}"
        self._set("temperature", _real_number("temperature", self.temperature, wanted, _is_temperature))
        self._set("top_p", _real_number("top_p", self.top_p, "above 0 and at most 1 (1 keeps every token)", lambda x: 0 < x <= 1))
        self._set("min_p", _real_number("min_p", self.min_p, "between 0 and 1 (0 keeps every token)", lambda x: 0 <= x <= 1))
        if self.top_k is not None:
            self._set("top_k", _whole_number("top_k", self.top_k, 1, "use None to keep every token"))
        self._set("seed", _whole_number("seed", self.seed, 0, f"use one between 0 and {MAX_SEED}"))
        if self.seed > MAX_SEED:
            raise InvalidInput(f"seed must be at most {MAX_SEED} (63 bits), got {self.seed}.")
        self._set("max_new_tokens", _whole_number("max_new_tokens", self.max_new_tokens, 1, "ask for at least one token"))
        self._set("min_new_tokens", _whole_number("min_new_tokens", self.min_new_tokens, 0, "use 0 for no minimum"))
        if self.min_new_tokens > self.max_new_tokens:
            raise InvalidInput(
                f"min_new_tokens ({self.min_new_tokens}) exceeds max_new_tokens ({self.max_new_tokens}); lower the one or raise the other."
            )
        self._set("stop", _stop_strings(self.stop))
        self._set("stop_token_ids", _stop_ids(self.stop_token_ids))

    def _set(self, name: str, value: object) -> None:
        """Store the normalised value of a field, which only construction may do."""
        object.__setattr__(self, name, value)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken, without noise."""
        return self.temperature == 0

    @property
    def keeps_all(self) -> bool:
        """Whether no filter restricts the vocabulary."""
        return self.top_k is None and self.top_p == 1 and self.min_p == 0

    def ending_ids(self, eos_token_ids: Iterable[int]) -> frozenset[int]:
        """The ids that end the output: the stop ids, and the model's end-of-sequence ids unless they are ignored."""
        return frozenset(self.stop_token_ids) if self.ignore_eos else frozenset((*self.stop_token_ids, *eos_token_ids))


def _is_temperature(value: float) -> bool:
    return value == 0 or MIN_TEMPERATURE <= value < math.inf


def _real_number(name: str, value: object, wanted: str, is_valid: Callable[[float], bool]) -> float:
    """`value` as a Python float in range; NaN fails every comparison, so it needs no case of its own."""
    if not isinstance(value, Real) or not is_valid(float(value)):
        raise InvalidInput(f"{name} must be {wanted}, got {value!r}.")
    return float(value)


def _whole_number(name: str, value: int, minimum: int, remedy: str) -> int:
    """`value` as a Python int of at least `minimum`; numpy's integers are welcome, floats are not."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name} must be a whole number, got {value!r}; {remedy}.") from None
    if number < minimum:
        raise InvalidInput(f"{name} must be at least {minimum}, got {number}; {remedy}.")
    return number


def _stop_strings(stop: str | Iterable[str]) -> tuple[str, ...]:
    """The stop strings as a tuple; an empty one would stop everything at once, so it is refused."""
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise InvalidInput(f"every stop string must be a string of at least one character, got {string!r}; leave it out.")
        check_unicode(string, "A stop string")
    return strings


def _stop_ids(stop_token_ids: Iterable[int]) -> tuple[int, ...]:
    """The stop ids as a tuple of non-negative Python ints."""
    if not isinstance(stop_token_ids, Iterable):
        raise InvalidInput(f"stop_token_ids must be a sequence of token ids, got {stop_token_ids!r}; put a single id in a tuple.")
    return tuple(_whole_number("every stop token id", token_id, 0, "take ids from the vocabulary") for token_id in stop_token_ids)
