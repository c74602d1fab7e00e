"""Samples: exactly as long as asked for, the same for the same seed, with the fact where its depth says and the answer nowhere else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.retrieval_samples import SampleMaker, scatter
from hoarfrost.evaluation.caches.retrieval_tasks import TASKS, score_answer
from hoarfrost.evaluation.prompts.encoding import encoder, make_frame
from hoarfrost.evaluation.prompts.long_texts import NUM_BOOKS, draw_tokens, load_texts

TOKENIZER = byte_tokenizer()
TEXT = "".join(f"Sentence number {index} is about nothing at all. " for index in range(400))
SINGLE = ("passkey", "needle", "keys", "lookup")


def maker(**changes: object) -> SampleMaker:
    return SampleMaker(encoder(TOKENIZER), make_frame(TOKENIZER), [(TEXT,), (TEXT.upper(),)], **changes)  # type: ignore[arg-type]


def text_of(ids: tuple[int, ...]) -> str:
    return str(TOKENIZER.decode(list(ids)))


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=12)
@given(length=st.integers(900, 2500), index=st.integers(0, 9), seed=st.integers(0, 5))
def test_a_sample_takes_exactly_its_length_and_holds_its_facts(task: str, length: int, index: int, seed: int) -> None:
    sample = maker(seed=seed).make(task, length, index, 10)
    assert len(sample.prompt_ids) + len(sample.lead_ids) + sample.max_new_tokens == length
    prompt = text_of(sample.prompt_ids)
    assert prompt.startswith("<|im_start|>user\n")
    assert prompt.endswith("?<|im_end|>\n<|im_start|>assistant\n")
    exercise = TASKS[task](random.Random(f"{seed}/{task}/{length}/{index}"))
    assert all(f"\n{fact}\n" in prompt for fact in exercise.facts)
    assert score_answer(sample.expected, " " + " ".join(sample.expected)) == 1
    assert sample == maker(seed=seed).make(task, length, index, 10)
    assert sample != maker(seed=seed + 1).make(task, length, index, 10)


@pytest.mark.parametrize("task", SINGLE)
def test_depths_are_spread_evenly_and_the_fact_asked_for_stands_there(task: str) -> None:
    positions = []
    for index in range(8):
        sample = maker().make(task, 3000, index, 8)
        fact = TASKS[task](random.Random(f"0/{task}/3000/{index}")).facts[0]
        positions.append(text_of(sample.prompt_ids).index(f"\n{fact}\n") / 3000)
        assert sample.depth == (index + 0.5) / 8
        assert abs(positions[-1] - sample.depth) < 0.2
    assert positions == sorted(positions)


def test_assignments_stay_in_order_and_lead_to_every_variable() -> None:
    prompt = text_of(maker().make("variables", 2000, 3, 10).prompt_ids)
    values: dict[str, str] = {}
    for line in prompt.splitlines():
        if line.startswith("VAR "):
            name, value = line[4:].split(" = ")
            values[name] = values[value.removeprefix("VAR ")] if value.startswith("VAR ") else value
    asked = prompt.split("hold the value ")[1][:5]
    assert {name for name, value in values.items() if value == asked} == set(maker().make("variables", 2000, 3, 10).expected)


def test_common_words_are_named_more_often_than_others() -> None:
    sample = maker().make("common", 2500, 0, 1)
    words = [line.removeprefix("Word: ") for line in text_of(sample.prompt_ids).splitlines() if line.startswith("Word: ")]
    counts = {word: words.count(word) for word in words}
    assert min(counts[word] for word in sample.expected) > max(count for word, count in counts.items() if word not in sample.expected)


@pytest.mark.parametrize("task", TASKS)
def test_facts_that_are_decoded_lie_behind_what_is_read(task: str) -> None:
    sample = maker(num_decoded=1200).make(task, 2600, 0, 10)
    assert sample.num_decoded == 1200
    read, decoded = text_of(sample.prompt_ids[:-1200]), text_of(sample.prompt_ids[-1200:])
    exercise = TASKS[task](random.Random(f"0/{task}/2600/0"))
    assert all(f"{fact}\n" in decoded for fact in exercise.facts)
    assert not any(f"\n{fact}\n" in read for fact in exercise.facts)


def test_a_question_asked_later_is_all_that_goes_through_the_cache() -> None:
    sample = maker(ask_later=True).make("passkey", 2000, 2, 10)
    assert text_of(sample.prompt_ids[-sample.num_decoded :]).startswith("\n\nWhat is the passkey?<|im_end|>")
    assert sample.prompt_ids == maker().make("passkey", 2000, 2, 10).prompt_ids


def test_without_a_chat_template_the_prompt_is_plain_text() -> None:
    frame = make_frame(TOKENIZER, chat=False)
    assert (frame.opening_ids, frame.closing) == ((), "\n")
    plain = byte_tokenizer()
    plain.chat_template = None
    assert make_frame(plain) == frame
    with pytest.raises(InvalidInput, match="no chat template"):
        make_frame(plain, chat=True)


@pytest.mark.parametrize(
    ("changes", "length", "said"),
    [({}, 60, "give a longer one"), ({"num_decoded": 30}, 900, "cannot hold"), ({"num_decoded": 900}, 900, "cannot hold")],
)
def test_what_does_not_fit_is_said(changes: dict[str, object], length: int, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        maker(**changes).make("passkey", length, 0, 1)


@given(prose=st.lists(st.integers(0, 9), max_size=20), cuts=st.lists(st.integers(0, 20), max_size=5))
def test_scattering_keeps_the_prose_and_the_facts(prose: list[int], cuts: list[int]) -> None:
    cuts = [min(cut, len(prose)) for cut in cuts]
    tokens = scatter(prose, [[100 + index, 200] for index in range(len(cuts))], cuts)
    assert [token for token in tokens if token < 100] == prose
    assert sorted(token for token in tokens if 100 <= token < 200) == [100 + index for index in range(len(cuts))]


@pytest.mark.parametrize(
    ("expected", "answer", "score"),
    [
        (["12345"], " 12345.", 1.0),
        (["12345"], "12345", 1.0),
        (["12345"], " 123456", 0.0),
        (["12345"], " It is 12345", 0.0),
        (["apple"], " apples", 0.0),
        (["A1", "B2"], " B2 and A1", 1.0),
        (["A1", "B2"], " B22, A1", 0.5),
    ],
)
def test_scores(expected: list[str], answer: str, score: float) -> None:
    assert score_answer(expected, answer) == score


class TestTexts:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "long" / "essays").mkdir(parents=True)
        (tmp_path / "train").mkdir()
        (tmp_path / "long" / "essays" / "b.txt").write_text("second", encoding="utf-8")
        (tmp_path / "long" / "essays" / "a.txt").write_text("first", encoding="utf-8")
        lines = ['{"text": "One\\r\\nmorning"}', *['{"text": "another"}'] * NUM_BOOKS]
        (tmp_path / "train" / "classic_books.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return tmp_path

    def test_essays_in_order_and_the_first_books(self, data_dir: Path) -> None:
        assert load_texts("essays", data_dir) == ("first", "second")
        assert load_texts("books", data_dir) == ("One\nmorning", *["another"] * (NUM_BOOKS - 1))

    def test_missing_texts_are_said(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="There are no essays"):
            load_texts("essays", tmp_path)
        with pytest.raises(InvalidInput, match=r"classic_books\.jsonl cannot be read"):
            load_texts("books", tmp_path)
        with pytest.raises(InvalidInput, match="Unknown source of long texts 'tweets'"):
            load_texts("tweets", tmp_path)

    @given(num_tokens=st.integers(0, 200), seed=st.integers(0, 20))
    def test_a_stretch_has_exactly_as_many_tokens_and_goes_on_in_the_next_text(self, num_tokens: int, seed: int) -> None:
        encode: Callable[[str], list[int]] = lambda text: list(text.encode())  # noqa: E731
        texts = ("one two three", "four five", "six")
        tokens = draw_tokens(texts, num_tokens, random.Random(seed), encode)
        assert len(tokens) == num_tokens
        assert bytes(tokens).decode() in "".join(texts) * 20
