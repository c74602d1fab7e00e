"""Turns training files into what `tiny` is made from: a tokenizer, the tokens its target is trained on, prompts for its drafter.

Every document is a chat, a question and its answer, and all of them in random order are one flat `uint16` array for training and one for
validation. The drafter learns from what the target itself answers to the same questions.

    python recipes/tiny/corpus.py --data-dir DATA --out build/tiny
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hoarfrost.evaluation.prompts.sets import MATH_SUFFIX

VOCAB_SIZE = 8192
END_OF_TEXT, TURN_START, TURN_END, MASK = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NUM_HELD_OUT = 200
LONGEST_PROMPT = 800  # characters, of the drafter's prompts

Chat = tuple[str, str]  # question, answer


def read_json_lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def chats(data: Path) -> Iterator[Chat]:
    for record in read_json_lines(data / "gsm8k.jsonl"):
        working, answer = re.sub(r"<<[^>]*>>", "", record["answer"]).rsplit("####", 1)
        yield record["question"] + MATH_SUFFIX, f"{working.strip()}\nThe final answer is $\\boxed{{{answer.strip()}}}$."
    for record in read_json_lines(data / "math.jsonl"):
        if "[asy]" not in record["problem"] + record["solution"]:  # drawings
            yield record["problem"] + MATH_SUFFIX, record["solution"]
    for record in read_json_lines(data / "mbpp_train.jsonl"):
        yield record["text"], f"```python\n{record['code']}\n```".replace("\r\n", "\n")
    for record in json.loads((data / "gpteacher_codegen.json").read_text(encoding="utf-8")):
        yield f"{record['instruction']}\n{record['input']}", record["response"]


def text_of(chat: Chat) -> str:
    question, answer = chat
    return f"{TURN_START}user\n{question.strip()}{TURN_END}\n{TURN_START}assistant\n{answer.strip()}{TURN_END}\n{END_OF_TEXT}"


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with digits one by one: arithmetic needs them apart."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END, MASK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HOARFROST_DATA"))
    parser.add_argument("--out", type=Path, default=Path("build/tiny"))
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("name the data folder with --data-dir or HOARFROST_DATA")
    documents = list(chats(Path(arguments.data_dir) / "train"))
    random.Random(0).shuffle(documents)
    tokenizer = train_tokenizer([side for chat in documents for side in chat])
    tokenizer.save_pretrained(arguments.out / "tokenizer")
    encoded = tokenizer.backend_tokenizer.encode_batch_fast([text_of(chat) for chat in documents], add_special_tokens=False)
    for split, part in (("valid", slice(NUM_HELD_OUT)), ("train", slice(NUM_HELD_OUT, None))):
        tokens = np.concatenate([np.asarray(one.ids, dtype=np.uint16) for one in encoded[part]])
        np.save(arguments.out / f"{split}.npy", tokens)
        print(f"{split}: {len(encoded[part]):,} chats, {len(tokens):,} tokens")
    prompts = [question.strip() for question, _ in documents[NUM_HELD_OUT:] if len(question) <= LONGEST_PROMPT]
    lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    (arguments.out / "prompts.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
