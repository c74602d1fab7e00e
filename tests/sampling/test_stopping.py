"""An output ends where its tokens and text say, whatever pieces it arrives in, and shows nothing past that point."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hoarfrost.sampling import Emission, RepetitionDetector, SamplingParams, StopChecker
from hoarfrost.sampling.stopping import MAX_PERIOD

EOS = 0
TOKENS = ["", "a", "b", "ab", "ba", "abc", "c", "xaab", "cc"]  # the text of each id; id 0 is the end of sequence
FEW_IDS = st.lists(st.integers(1, len(TOKENS) - 1), max_size=40)


class LaggingText:
    """A detokenizer over `TOKENS` that keeps the last character back, as a real one keeps back incomplete characters."""

    def __init__(self) -> None:
        self.kept = ""

    def push(self, token_id: int) -> str:
        text = self.kept + TOKENS[token_id]
        self.kept = text[-1:]
        return text[: len(text) - len(self.kept)]

    def flush(self) -> str:
        text, self.kept = self.kept, ""
        return text


class PromptText(LaggingText):
    """A detokenizer over `TOKENS` that gives every token's text at once."""

    def push(self, token_id: int) -> str:
        return TOKENS[token_id]


def checker(detokenizer: Callable[[], LaggingText] = PromptText, **params: object) -> StopChecker:
    return StopChecker(SamplingParams(**{"max_new_tokens": 1000, **params}), [EOS], detokenizer())


def feed_in_pieces(stop_checker: StopChecker, token_ids: list[int], sizes: list[int]) -> list[Emission]:
    """Feed pieces of the given sizes, over and over, until the tokens are used up."""
    emissions, start = [], 0
    while start < len(token_ids):
        size = sizes[len(emissions) % len(sizes)]
        emissions.append(stop_checker.feed(token_ids[start : start + size]))
        start += size
    return emissions


def first_stop(text: str, stop: list[str], known: int = 0) -> tuple[int, int] | None:
    """(end, start) of the stop string that is complete first in the text, of those that end after `known` characters."""
    found = []
    for string in stop:
        start = text.find(string, max(0, known - len(string) + 1))
        if start >= 0:
            found.append((start + len(string), start))
    return min(found, default=None)


STOPS = st.lists(st.text("abcx", min_size=1, max_size=5), max_size=3)
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=4)
DETOKENIZERS = st.sampled_from([PromptText, LaggingText])


@given(token_ids=FEW_IDS, stop=STOPS, sizes=SIZES, eos_at=st.none() | st.integers(0, 40), detokenizer=DETOKENIZERS)
def test_the_text_is_the_whole_text_cut_at_the_first_stop(
    token_ids: list[int], stop: list[str], sizes: list[int], eos_at: int | None, detokenizer: type[LaggingText]
) -> None:
    if eos_at is not None:
        token_ids[eos_at:eos_at] = [EOS]
    shown_ids = token_ids[: token_ids.index(EOS)] if EOS in token_ids else token_ids
    whole = "".join(TOKENS[token_id] for token_id in shown_ids)
    found = first_stop(whole, stop)

    stop_checker = checker(detokenizer, stop=stop)
    emissions = feed_in_pieces(stop_checker, token_ids, sizes)
    emissions.append(stop_checker.close("aborted"))
    text = "".join(emission.text for emission in emissions)
    assert text == (whole if found is None else whole[: found[1]])
    assert emissions[-1].finish_reason == ("stop" if found or EOS in token_ids else "aborted")

    emitted = [token_id for emission in emissions for token_id in emission.token_ids]
    assert emitted == token_ids[: len(emitted)]
    assert stop_checker.num_tokens == len(emitted)
    if found is None:
        assert emitted == token_ids[: token_ids.index(EOS) + 1 if EOS in token_ids else None]
    elif detokenizer is PromptText:  # the last token is the one that completed the stop string
        lengths = [len("".join(TOKENS[token_id] for token_id in emitted[:count])) for count in (len(emitted) - 1, len(emitted))]
        assert lengths[0] < found[0] <= lengths[1]


@given(token_ids=FEW_IDS, stop=STOPS, sizes=SIZES)
def test_what_is_shown_early_is_never_taken_back_and_no_more_than_needed_is_held(
    token_ids: list[int], stop: list[str], sizes: list[int]
) -> None:
    stop_checker, shown, whole = checker(stop=stop), "", ""
    for token_id in token_ids:
        emission = stop_checker.feed([token_id])
        shown, whole = shown + emission.text, whole + TOKENS[token_id]
        if emission.finish_reason:
            break
        held = [size for string in stop for size in range(1, len(string)) if whole.endswith(string[:size])]
        assert shown == whole[: len(whole) - max(held, default=0)]


@given(token_ids=FEW_IDS, stop=STOPS, sizes=SIZES, min_new_tokens=st.integers(0, 20))
@example(token_ids=[1, 2, 1], stop=["ab", "abc"], sizes=[1], min_new_tokens=2)
def test_stop_strings_complete_before_the_minimum_are_text(
    token_ids: list[int], stop: list[str], sizes: list[int], min_new_tokens: int
) -> None:
    whole = "".join(TOKENS[token_id] for token_id in token_ids)
    early = "".join(TOKENS[token_id] for token_id in token_ids[:min_new_tokens])
    found = first_stop(whole, stop, len(early))
    stop_checker = checker(stop=stop, min_new_tokens=min_new_tokens)
    emissions = [*feed_in_pieces(stop_checker, token_ids, sizes), stop_checker.close("length")]
    assert "".join(emission.text for emission in emissions) == (whole if found is None else whole[: found[1]])


@pytest.mark.parametrize("params", [{}, {"stop_token_ids": (4,), "ignore_eos": True}], ids=str)
def test_ending_ids_stay_in_the_ids_but_not_in_the_text(params: dict[str, object]) -> None:
    end = 4 if params else EOS
    assert checker(**params).feed([1, 2, end, 3]) == Emission([1, 2, end], "ab", "stop")
    assert checker(**params, min_new_tokens=2).feed([1, end, end, 3]) == Emission([1, end, end], "a" + TOKENS[end], "stop")
    assert checker(**params).feed([end]) == Emission([end], "", "stop")


def test_ignored_eos_is_an_ordinary_token() -> None:
    assert checker(ignore_eos=True).feed([1, EOS, 2]) == Emission([1, EOS, 2], "ab", None)


@pytest.mark.parametrize("detokenizer", [PromptText, LaggingText])
def test_length_ends_the_output_and_shows_what_was_held(detokenizer: type[LaggingText]) -> None:
    stop_checker = checker(detokenizer, max_new_tokens=3, stop="abz")
    assert stop_checker.feed([6, 3]).finish_reason is None
    assert stop_checker.feed([3, 1, 1]).finish_reason == "length"
    assert checker(detokenizer, max_new_tokens=3, stop="abz").feed([6, 3, 3, 1]) == Emission([6, 3, 3], "cabab", "length")


def test_a_stop_comes_before_length_and_repetition_at_the_same_token() -> None:
    assert checker(max_new_tokens=2, stop="ab").feed([1, 2]) == Emission([1, 2], "", "stop")
    assert checker(max_new_tokens=2).feed([1, EOS]).finish_reason == "stop"
    assert checker(stop="a" * 12, stop_on_repetition=True).feed([1] * 12).finish_reason == "stop"
    assert checker(max_new_tokens=12, stop_on_repetition=True).feed([1] * 12).finish_reason == "repetition"


def test_of_two_stop_strings_the_one_complete_first_wins_and_the_longer_at_the_same_character() -> None:
    assert checker(stop=("abcz", "bc")).feed([1, 2, 6]) == Emission([1, 2, 6], "a", "stop")
    assert checker(stop=("bc", "abc", "c")).feed([2, 5]) == Emission([2, 5], "b", "stop")


def test_nothing_comes_after_the_end() -> None:
    stop_checker = checker(stop="c")
    assert stop_checker.feed([1, 6, 2, 2]) == Emission([1, 6], "a", "stop")
    assert stop_checker.feed([1, 2]) == Emission([], "", "stop")
    assert stop_checker.close("aborted") == Emission([], "", "stop")


def repeats(token_ids: list[int]) -> bool:
    """Whether the tokens end in a repetition, read off the last 96 of them: the plain twin."""
    for period in range(1, MAX_PERIOD + 1):
        num_tokens = max(3 * period, 12)
        tail = token_ids[-num_tokens:]
        if len(tail) == num_tokens and tail[period:] == tail[:-period]:
            return True
    return False


@given(prefix=st.lists(st.integers(0, 2), max_size=30), gram=st.lists(st.integers(0, 3), min_size=1, max_size=36), count=st.integers(1, 14))
def test_repetition_equals_its_plain_twin(prefix: list[int], gram: list[int], count: int) -> None:
    token_ids, detector = prefix + gram * count, RepetitionDetector()
    for end in range(1, len(token_ids) + 1):
        assert detector.push(token_ids[end - 1]) == repeats(token_ids[:end])


@pytest.mark.parametrize(("period", "num_tokens"), [(1, 12), (3, 12), (4, 12), (5, 15), (32, 96), (33, None)])
def test_repetition_ends_the_output_at_the_third_copy(period: int, num_tokens: int | None) -> None:
    token_ids = [100, 101, *list(range(period)) * 20]
    texts = type("Texts", (PromptText,), {"push": lambda self, token_id: "x"})
    emission = StopChecker(SamplingParams(stop_on_repetition=True, max_new_tokens=1000), [], texts()).feed(token_ids)
    assert emission.finish_reason == (None if num_tokens is None else "repetition")
    assert len(emission.token_ids) == (len(token_ids) if num_tokens is None else 2 + num_tokens)
    assert emission.text == "x" * len(emission.token_ids)


def test_repetition_waits_for_the_minimum_and_for_being_asked() -> None:
    assert checker().feed([1] * 50).finish_reason is None
    assert len(checker(stop_on_repetition=True, min_new_tokens=30).feed([1] * 50).token_ids) == 31
