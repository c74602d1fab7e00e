"""Turns the training files into the tokenizer and the token streams that the `tiny` target is trained on.

Every document becomes either a chat (the prompts worded as the evaluation sets word them, so that the shipped model meets at decoding time
the form it was trained on) or plain text closed by `<|endoftext|>`. Each source becomes one flat `uint16` array; the trainer draws
fixed-length windows from the arrays with the weights of its schedule. One document in fifty of every source is held out for validation.

    python recipes/tiny/corpus.py --data-dir DATA --out build/tiny
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hoarfrost.evaluation.prompts.sets import MATH_SUFFIX, PYTHON_PREFIX

VOCAB_SIZE = 8192
END_OF_TEXT, TURN_START, TURN_END, MASK = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"
HELD_OUT_EVERY = 50

# Words, digits one by one (arithmetic needs them apart), punctuation with its line breaks, white space.
SPLIT_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def read_json_lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def chat(user: str, assistant: str) -> str:
    return f"{TURN_START}user\n{user.strip()}{TURN_END}\n{TURN_START}assistant\n{assistant.strip()}{TURN_END}\n{END_OF_TEXT}"


def gsm8k(data: Path) -> Iterator[str]:
    for record in read_json_lines(data / "gsm8k.jsonl"):
        working, answer = re.sub(r"<<[^>]*>>", "", record["answer"]).rsplit("####", 1)
        yield chat(record["question"] + MATH_SUFFIX, f"{working.strip()}\nThe final answer is $\\boxed{{{answer.strip()}}}$.")


def math(data: Path) -> Iterator[str]:
    for record in read_json_lines(data / "math.jsonl"):
        solution = re.sub(r"\[asy\].*?\[/asy\]", "", record["solution"], flags=re.S)
        problem = re.sub(r"\[asy\].*?\[/asy\]", "", record["problem"], flags=re.S)
        yield chat(problem + MATH_SUFFIX, solution)


def documented_functions(source: str) -> Iterator[tuple[str, str]]:
    """Yields (signature with docstring, whole function) for the documented top-level functions of one file."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    lines = source.splitlines()
    for node in module.body:
        if not isinstance(node, ast.FunctionDef) or not ast.get_docstring(node) or len(node.body) < 2:
            continue
        start, head_end, end = node.lineno - 1, node.body[0].end_lineno or node.lineno, node.end_lineno or node.lineno
        if end - start <= 80:
            yield "\n".join(lines[start:head_end]), "\n".join(lines[start:end])


def python_chat(data: Path) -> Iterator[str]:
    for record in read_json_lines(data / "thealgorithms_python.jsonl"):
        for head, whole in documented_functions(record["text"]):
            yield chat(f"{PYTHON_PREFIX}{head}\n```", f"```python\n{whole}\n```")
    for record in read_json_lines(data / "mbpp_train.jsonl"):
        code = record["code"].replace("\r\n", "\n").replace("\t", "    ")
        yield chat(record["text"], f"```python\n{code}\n```")


def python_files(data: Path) -> Iterator[str]:
    for name in ("thealgorithms_python.jsonl", "leetcode_python.jsonl"):
        for record in read_json_lines(data / name):
            if record["text"].strip():
                yield record["text"].replace("\r\n", "\n") + END_OF_TEXT


def instructions(data: Path) -> Iterator[str]:
    for name in ("gpteacher_codegen.json", "gpteacher_roleplay.json"):
        for record in json.loads((data / name).read_text(encoding="utf-8")):
            request = record["instruction"] + ("\n" + record["input"] if record["input"].strip() else "")
            if record["response"].strip():
                yield chat(request, record["response"])


def stories(data: Path) -> Iterator[str]:
    for story in json.loads((data / "tinystories_1000.json").read_text(encoding="utf-8")):
        text = story["story"] if isinstance(story, dict) else story
        yield text.strip() + END_OF_TEXT


def peps(data: Path) -> Iterator[str]:
    for record in read_json_lines(data / "peps.jsonl"):
        yield record["text"].replace("\r\n", "\n") + END_OF_TEXT


def books(data: Path) -> Iterator[str]:
    for record in read_json_lines(data / "classic_books.jsonl"):
        yield record["text"].replace("\r\n", "\n") + END_OF_TEXT


SOURCES = {
    "gsm8k": gsm8k,
    "math": math,
    "python_chat": python_chat,
    "python_files": python_files,
    "instructions": instructions,
    "stories": stories,
    "peps": peps,
    "books": books,
}


def train_tokenizer(documents: dict[str, list[str]], out: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE over at most 6 MB of every source, so that no source rules the vocabulary."""

    def sample() -> Iterator[str]:
        for texts in documents.values():
            taken = 0
            for text in texts:
                if taken < 6_000_000:
                    taken += len(text)
                    yield re.sub(r"<\|[a-z_]+\|>", "", text[:200_000])

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)
    return fast


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([np.asarray(one.ids, dtype=np.uint16) for one in encoded])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HOARFROST_DATA"))
    parser.add_argument("--out", type=Path, default=Path("build/tiny"))
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("name the data folder with --data-dir or HOARFROST_DATA")
    training_files = arguments.data_dir / "train"
    shuffle = random.Random(0)
    documents = {}
    for name, read in SOURCES.items():
        documents[name] = list(read(training_files))
        shuffle.shuffle(documents[name])
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(documents, arguments.out / "tokenizer")
    for name, texts in documents.items():
        held_out = texts[::HELD_OUT_EVERY]
        kept = [text for index, text in enumerate(texts) if index % HELD_OUT_EVERY]
        for split, part in (("train", kept), ("valid", held_out)):
            tokens = encode(tokenizer, part)
            np.save(arguments.out / f"{name}.{split}.npy", tokens)
            characters = sum(map(len, part))
            print(f"{name:14} {split:5} {len(part):6} documents {len(tokens):10,} tokens {characters / len(tokens):.2f} characters a token")


if __name__ == "__main__":
    main()
