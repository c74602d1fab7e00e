"""The tokenizer of a GGUF file: transformers' own conversion, its inputs checked first and its gaps filled afterwards.

The conversion knows most byte-level splits and falls back to GPT-2's in silence; a file that names a split that neither it nor this module
knows is refused, since its text would be cut otherwise than the model learnt.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hoarfrost.errors import InvalidInput
from hoarfrost.target.gguf.header import GGUFFile, short

MODELS = ("gpt2", "llama")  # byte-level BPE; SentencePiece's BPE
GPT2_SPLITS = ("default", "gpt-2", "mpt", "olmo", "jais", "phi-2")
DIGIT_SPLITS = ("smollm", "starcoder", "refact", "command-r", "codeshell")
WORD_SPLITS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0", "dbrx", "smaug-bpe", "tekken")
QWEN_SPLITS = ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez")
CONTROL, USER_DEFINED = 3, 4
WHOLE = (CONTROL, USER_DEFINED)  # kinds of tokens that are found in a text before it is cut


def read_tokenizer(file: GGUFFile) -> Any:
    """Raises `InvalidInput` where the file has none, a damaged one, or one of a kind that is not known."""
    model = file.text("tokenizer.ggml.model")
    if model not in MODELS:
        file.fail(f"its tokenizer is {short(model)}, which is not supported; supported are {' and '.join(MODELS)}.")
    split = file.text("tokenizer.ggml.pre", "default")
    known = (*GPT2_SPLITS, *DIGIT_SPLITS, *WORD_SPLITS, *QWEN_SPLITS)
    if model == "gpt2" and split not in known:
        file.fail(f"its tokenizer cuts text by the rules {short(split)}, which are not supported; supported are {', '.join(known)}.")
    _check(file, model)
    try:
        tokenizer: Any = PreTrainedTokenizerFast(name_or_path=str(file.path.parent), gguf_file=file.path.name)  # type: ignore[no-untyped-call]
    except Exception as error:  # of the conversion, whatever its kind: the vocabulary does not fit together
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidInput(f"{file.path}: no tokenizer could be made of its vocabulary ({reason}).") from None
    if model == "gpt2":
        tokenizer = _with_whole_tokens(tokenizer, file)
    backend = tokenizer.backend_tokenizer
    if model == "gpt2" and split in DIGIT_SPLITS:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if model == "gpt2" and split in WORD_SPLITS:
        backend.model.ignore_merges = True  # a word of the vocabulary is one token, whatever its merges
    if model == "llama" and file.flag("tokenizer.ggml.add_space_prefix", True) is False:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    return tokenizer


def _with_whole_tokens(tokenizer: Any, file: GGUFFile) -> Any:
    """`tokenizer`, with the control and user-defined tokens that are not spelled in the byte alphabet (DeepSeek's) under their own names.

    The conversion spells them in bytes, so that no text ever gives them; they get their ids back here.
    """
    tokens, kinds = file.items("tokenizer.ggml.tokens", str), file.items("tokenizer.ggml.token_type", int)
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    lost = {index: token for index, token in enumerate(tokens[: len(kinds)]) if kinds[index] in WHOLE and token not in vocabulary}
    if not lost:
        return tokenizer
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] = {lost.get(index, token): index for token, index in state["model"]["vocab"].items()}
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < len(tokens)]
    backend = Tokenizer.from_str(json.dumps(state))
    for index, token in lost.items():
        backend.add_tokens([AddedToken(token, normalized=False, special=kinds[index] == CONTROL)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokenizer.init_kwargs)  # type: ignore[no-untyped-call]


def _check(file: GGUFFile, model: str) -> None:
    tokens = file.items("tokenizer.ggml.tokens", str)
    kinds = file.items("tokenizer.ggml.token_type", int)
    merges = file.items("tokenizer.ggml.merges", str)
    scores = file.items("tokenizer.ggml.scores", float)
    num_rows = file.tensors["token_embd.weight"].shape[0]
    if not tokens or len(tokens) > num_rows:
        file.fail(f"its vocabulary has {len(tokens)} tokens, and its embedding {num_rows} rows.")
    if len(set(tokens)) != len(tokens):
        file.fail("its vocabulary holds a token twice: it is damaged.")
    for what, values in (("token types", kinds), ("scores", scores)):
        if values and len(values) != len(tokens):
            file.fail(f"it has {len(values)} {what} for {len(tokens)} tokens: it is damaged.")
    broken = next((merge for merge in merges if len(merge.split(" ")) != 2), None)
    if broken is not None:
        file.fail(f"the merge {short(broken)} does not join two pieces: it is damaged.")
    if not (merges if model == "gpt2" else merges or scores):
        file.fail("its vocabulary comes without merges, so text cannot be cut into tokens; convert the model again.")
    for name in ("bos", "eos", "unknown", "padding"):
        file.integer(f"tokenizer.ggml.{name}_token_id", 0, most=len(tokens) - 1)
    for key in ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"):
        file.flag(key)
    file.text("tokenizer.chat_template")
