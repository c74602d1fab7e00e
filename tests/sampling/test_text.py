"""The pieces of text concatenate to what the tokenizer makes of all ids at once, for every kind of tokenizer, and break no character."""

import functools
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hoarfrost.sampling import Detokenizer, SamplingParams, StopChecker
from hoarfrost.sampling.text import _BYTE_OF, MAX_WAITING

CORPUS = [
    "The cat sat on the mat, and the dog looked on.",
    "Numbers: 1, 22, 333. Quotes: don't, it's.",
    "你好世界。今天天气很好。",
    "Faces 🙂 and flags 🇩🇪, families 👩‍👩‍👧 too; naïve café.",
    "def f(x):\n    return x  # two  spaces\n",
]
SPECIAL = ["<|end|>", "<|start|>"]
NUM_BYTES = 256


@functools.cache
def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2's scheme: the ids that follow the special ones begin with the 256 bytes, and some tokens were added as text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet, special_tokens=SPECIAL))
    tokenizer.add_tokens(["<tool>", "日本", "a b", "été", AddedToken("<note>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", clean_up_tokenization_spaces=True)


def sentence_piece(*, has_bytes: bool, decoder: decoders.Decoder) -> PreTrainedTokenizerFast:
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(NUM_BYTES)] if has_bytes else []
    tokenizer = Tokenizer(models.BPE(byte_fallback=has_bytes, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=430 if has_bytes else 180, special_tokens=[*SPECIAL, "<unk>", *byte_tokens])
    tokenizer.train_from_iterator([line for line in CORPUS if line.isascii()] * 3, trainer)
    if has_bytes:  # they had to be named special to be put into the vocabulary, yet are no special tokens
        merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
        tokenizer = Tokenizer(models.BPE(tokenizer.get_vocab(), merges, byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", bos_token="<|start|>", unk_token="<unk>")


@functools.cache
def llama() -> PreTrainedTokenizerFast:
    """Llama 2's scheme: spaces as ▁, unknown characters as bytes, one leading space stripped."""
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return sentence_piece(has_bytes=True, decoder=decoders.Sequence(parts))


@functools.cache
def metaspace() -> PreTrainedTokenizerFast:
    """T5's and XGLM's scheme: spaces as ▁, no bytes."""
    return sentence_piece(has_bytes=False, decoder=decoders.Metaspace())


TOKENIZERS = {"byte_level": byte_level, "llama": llama, "metaspace": metaspace}
TEXTS = st.lists(st.sampled_from([*CORPUS, " ", "\n", "  ", "🙂", "好", "a", "Ω\n", "<tool>", "日本", "a b"]), max_size=6).map("".join)


def decoded(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=True)


def pieces(tokenizer: PreTrainedTokenizerFast, token_ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*[detokenizer.push(token_id) for token_id in token_ids], detokenizer.flush()]


@given(data=st.data())
def test_byte_level_text_is_that_of_all_ids_for_any_ids(data: st.DataObject) -> None:
    tokenizer = byte_level()
    any_id = st.integers(0, len(tokenizer) + 3)  # some are unknown: a head may have more rows than the tokenizer has tokens
    byte_ids = tokenizer.convert_tokens_to_ids(sorted(pre_tokenizers.ByteLevel.alphabet()))
    whole_texts = TEXTS.map(lambda text: tokenizer.encode(text, add_special_tokens=False))
    parts = data.draw(
        st.lists(st.one_of(any_id.map(lambda i: [i]), st.sampled_from(byte_ids).map(lambda i: [i]), whole_texts), max_size=30)
    )
    token_ids = list(itertools.chain.from_iterable(parts))
    assert "".join(pieces(tokenizer, token_ids)) == decoded(tokenizer, token_ids)


@pytest.mark.parametrize("added", ["<tool>", "日本", "a b", "été", "<note>"])
def test_tokens_added_as_text_are_decoded_as_by_the_tokenizer(added: str) -> None:
    tokenizer = byte_level()
    token_ids = [tokenizer.convert_tokens_to_ids(name) for name in ("The", added, "x", added)]
    assert "".join(pieces(tokenizer, token_ids)) == decoded(tokenizer, token_ids)


def test_every_malformed_sequence_of_bytes_is_replaced_as_by_the_tokenizer() -> None:
    """One byte of every class that UTF-8 tells apart, in every order, up to three of them."""
    tokenizer = byte_level()
    ids = {byte: tokenizer.convert_tokens_to_ids(name) for name, byte in _BYTE_OF.items()}
    assert sorted(ids) == list(range(NUM_BYTES))
    classes = [0x41, 0x80, 0x90, 0xA0, 0xBF, 0xC1, 0xC2, 0xE0, 0xE4, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF]
    for length in (1, 2, 3):
        for sequence in itertools.product(classes, repeat=length):
            token_ids = [ids[byte] for byte in sequence]
            assert "".join(pieces(tokenizer, token_ids)) == decoded(tokenizer, token_ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), cut=st.integers(0, 3), bos=st.booleans())
def test_text_of_any_tokenizer_is_that_of_all_ids(name: str, texts: list[str], cut: int, bos: bool) -> None:
    tokenizer = TOKENIZERS[name]()
    token_ids = [tokenizer.convert_tokens_to_ids("<|start|>")] if bos else []
    for text in texts:
        token_ids += tokenizer.encode(text, add_special_tokens=False)
    if name != "llama":  # its decoder takes a whole run of bytes back when the last character is incomplete: see below
        token_ids = token_ids[: len(token_ids) - cut]
    assert "".join(pieces(tokenizer, token_ids)) == decoded(tokenizer, token_ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", ["🙂", "a 👩‍👩‍👧 b", "你好", "\n"])
def test_no_piece_breaks_a_character_and_none_waits_longer_than_it_must(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]()
    token_ids = tokenizer.encode("cat", add_special_tokens=False) + tokenizer.encode(text, add_special_tokens=False)
    detokenizer, shown = Detokenizer(tokenizer), ""
    for count, token_id in enumerate(token_ids, 1):
        shown += detokenizer.push(token_id)
        assert "\N{REPLACEMENT CHARACTER}" not in shown
        whole = decoded(tokenizer, token_ids[:count])
        if not whole.endswith("\N{REPLACEMENT CHARACTER}"):
            assert shown == whole
    assert detokenizer.flush() == ""


@pytest.mark.parametrize("name", ["byte_level", "llama"])
def test_an_incomplete_character_is_replaced_at_the_end_only(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    names = {"byte_level": ["ð", "Ł", "Ļ"], "llama": ["<0xF0>", "<0x9F>", "<0x99>"]}[name]
    token_ids = tokenizer.encode("on", add_special_tokens=False) + tokenizer.convert_tokens_to_ids(names)
    *given_out, rest = pieces(tokenizer, token_ids)
    assert "".join(given_out) == "on"
    assert rest == decoded(tokenizer, token_ids)[2:]
    assert set(rest) == {"\N{REPLACEMENT CHARACTER}"}


def test_well_formed_characters_in_a_run_of_bytes_stay_when_malformed_ones_follow() -> None:
    """Where the tokenizer takes back the whole run, which a stream that has shown it cannot."""
    tokenizer = llama()
    names = ["<0x0A>", "<0xE5>", "<0xA5>", "<0xBD>", "<0xF0>", "<0x9F>"]
    assert "".join(pieces(tokenizer, tokenizer.convert_tokens_to_ids(names))) == "\n好" + "\N{REPLACEMENT CHARACTER}" * 2


def test_a_run_that_stays_malformed_is_given_out_after_a_bounded_wait() -> None:
    tokenizer = llama()
    given_out = pieces(tokenizer, tokenizer.convert_tokens_to_ids(["<0xFF>"] * (2 * MAX_WAITING + 1)))
    assert [len(piece) for piece in given_out if piece] == [MAX_WAITING, MAX_WAITING, 1]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_give_no_text_and_do_not_end_a_character(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    end, start = tokenizer.convert_tokens_to_ids(SPECIAL)
    token_ids = [start, *[id_ for token_id in tokenizer.encode("the 🙂 sat", add_special_tokens=False) for id_ in (token_id, end)]]
    assert "".join(pieces(tokenizer, token_ids)) == decoded(tokenizer, token_ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(
    texts=st.lists(TEXTS, min_size=1, max_size=3),
    stop=st.lists(st.sampled_from(["sat", "at on", "好", "世界。", "🙂 and", ", ", "\n", "the mat, and the dog"]), max_size=3),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_a_stopped_output_is_the_decoded_text_cut_at_the_first_stop_string(
    name: str, texts: list[str], stop: list[str], sizes: list[int]
) -> None:
    tokenizer = TOKENIZERS[name]()
    token_ids = list(itertools.chain.from_iterable(tokenizer.encode(text, add_special_tokens=False) for text in texts))
    checker = StopChecker(SamplingParams(stop=stop, max_new_tokens=10**6), [tokenizer.eos_token_id], Detokenizer(tokenizer))
    shown, start = "", 0
    for size in itertools.cycle(sizes):
        if start >= len(token_ids):
            break
        shown += checker.feed(token_ids[start : start + size]).text
        start += size
    shown += checker.close("length").text
    whole = decoded(tokenizer, token_ids)
    found = [(whole.find(string) + len(string), whole.find(string)) for string in stop if string in whole]
    assert shown == (whole[: min(found)[1]] if found else whole)
    assert checker.finish_reason == ("stop" if found else "length")


def test_a_stop_string_that_is_one_byte_token_stops_at_once() -> None:
    tokenizer = llama()
    newline = tokenizer.convert_tokens_to_ids("<0x0A>")
    token_ids = [*tokenizer.encode("cat", add_special_tokens=False), newline, newline]
    checker = StopChecker(SamplingParams(stop="\n"), [], Detokenizer(tokenizer))
    emission = checker.feed(token_ids)
    assert (emission.text, emission.token_ids) == ("cat", token_ids[:-1])
