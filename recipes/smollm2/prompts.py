"""Writes prompts for a drafter's training: of every kind that the ten evaluation sets ask, and in their wording, but of training data.

python recipes/smollm2/prompts.py --data-dir DATA --out build/smollm2/prompts.jsonl.gz

Each line holds `set` and `prompt`. HumanEval has its like in functions without a body, LiveCodeBench in solutions without one, SWE-bench in
passages of Python Enhancement Proposals; MT-Bench and Alpaca in instructions, stories, passages of books, and in what responses.py lets the
model ask itself.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hoarfrost.evaluation.prompts.sets import FUNCTION_PREFIX, MATH_SUFFIX, PROGRAM_PREFIX, PYTHON_PREFIX

LONGEST = 3000  # characters
NUM_ISSUES, NUM_PASSAGES = 2500, 1500
ABOUT_PASSAGES = ("Summarize the following passage.", "What is the following passage about?", "Rewrite the following text in plain words.")


def records(path: Path) -> Iterator[Any]:
    if path.suffix == ".json":
        yield from json.loads(path.read_text(encoding="utf-8"))
    else:
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def gsm8k(folder: Path) -> Iterator[str]:
    yield from (record["question"] + MATH_SUFFIX for record in records(folder / "gsm8k.jsonl"))


def math(folder: Path) -> Iterator[str]:
    yield from (record["problem"] + MATH_SUFFIX for record in records(folder / "math.jsonl"))


def mbpp(folder: Path) -> Iterator[str]:
    for record in records(folder / "mbpp_train.jsonl"):
        yield record["text"]
        yield PROGRAM_PREFIX + record["text"]


def functions(folder: Path) -> Iterator[str]:
    """Signature and docstring of every documented function, its body to be written."""
    for record in records(folder / "thealgorithms_python.jsonl"):
        for node in parsed(record["text"]):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
                head = record["text"].splitlines()[node.lineno - 1 : node.body[0].end_lineno]
                yield f"{PYTHON_PREFIX}" + "\n".join(head) + "\n\n```"


def solutions(folder: Path) -> Iterator[str]:
    """The name of a problem and the class that is to solve it."""
    for record in records(folder / "leetcode_python.jsonl"):
        for node in parsed(record["text"]):
            if isinstance(node, ast.ClassDef) and node.body and isinstance(node.body[0], ast.FunctionDef):
                method = node.body[0]
                last = method.body[0].end_lineno if ast.get_docstring(method) else method.lineno
                start = "\n".join(record["text"].splitlines()[node.lineno - 1 : last])
                name = Path(record["path"]).stem.replace("-", " ")
                yield f"{FUNCTION_PREFIX}{name}\n\nStart from this code:\n```python\n{start}\n```"
                break


def parsed(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except SyntaxError:  # of Python 2
        return []


def issues(folder: Path) -> Iterator[str]:
    for text in stretches(folder / "peps.jsonl", NUM_ISSUES, 400, 2800, seed=1):
        yield f"Problem Statement:\n{text}\nPlease fix the issue described above."


def passages(folder: Path) -> Iterator[str]:
    chosen = random.Random(2)
    for text in stretches(folder / "classic_books.jsonl", NUM_PASSAGES, 300, 2400, seed=2):
        yield f"{chosen.choice(ABOUT_PASSAGES)}\n\n{text}"


def stretches(path: Path, count: int, shortest: int, longest: int, seed: int) -> list[str]:
    """Runs of whole paragraphs from anywhere in the texts of a file."""
    chosen = random.Random(seed)
    texts = [record["text"].replace("\r\n", "\n").split("\n\n") for record in records(path)]
    found: list[str] = []
    while len(found) < count:
        paragraphs = chosen.choice(texts)
        at, wanted, text = chosen.randrange(len(paragraphs)), chosen.randint(shortest, longest), ""
        for paragraph in paragraphs[at:]:
            if len(text) + len(paragraph) > wanted:
                break
            text += paragraph.strip() + "\n\n"
        if len(text) >= shortest:
            found.append(text.strip())
    return found


def stories(folder: Path) -> Iterator[str]:
    for text in records(folder / "tinystories_1000.json"):
        yield f"Write a story for children that begins with these words: {text.split('.')[0].strip()}."


def instructions(name: str) -> Callable[[Path], Iterator[str]]:
    def read(folder: Path) -> Iterator[str]:
        for record in records(folder / name):
            yield f"{record['instruction']}\n\nInput:\n{record['input']}" if record["input"] else record["instruction"]

    return read


SETS: dict[str, Callable[[Path], Iterator[str]]] = {
    "gsm8k": gsm8k,
    "math": math,
    "mbpp": mbpp,
    "functions": functions,
    "solutions": solutions,
    "issues": issues,
    "passages": passages,
    "stories": stories,
    "codegen": instructions("gpteacher_codegen.json"),
    "roleplay": instructions("gpteacher_roleplay.json"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HOARFROST_DATA"))
    parser.add_argument("--out", type=Path, default=Path("build/smollm2/prompts.jsonl.gz"))
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("name the data folder with --data-dir or HOARFROST_DATA")
    lines = []
    for name, read in SETS.items():
        prompts = list(dict.fromkeys(prompt for prompt in read(Path(arguments.data_dir) / "train") if len(prompt) <= LONGEST))
        print(f"{name}: {len(prompts)}")
        lines += [json.dumps({"set": name, "prompt": prompt}) + "\n" for prompt in prompts]
    random.Random(0).shuffle(lines)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(arguments.out, "wt", encoding="utf-8") as file:
        file.writelines(lines)


if __name__ == "__main__":
    main()
