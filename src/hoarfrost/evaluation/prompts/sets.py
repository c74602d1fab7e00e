"""The ten prompt sets of the DDTree paper (arXiv 2604.12989, section 5), worded as the DFlash and DDTree benchmarks word them.

A prompt is its user turns: one, or two in MT-Bench, where the second is asked after the model's own first answer. Where the records come
from is `sources`' business; this module knows the fields of each set, the wording and how many prompts the paper takes, which are
always the first ones. Answers are not read: decoding speed is measured here, not whether the model is right.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.checks import check_least, check_list
from hoarfrost.evaluation.prompts.sources import HubSource, Record, read_records

MATH_SUFFIX = "\nPlease reason step by step, and put your final answer within \\boxed{}."
PYTHON_PREFIX = "Write a solution to the following problem and make sure that it passes the tests:\n```python\n"
PROGRAM_PREFIX = (
    "Generate an executable Python program that solves the following problem. Reply with the program only, in one code block.\n\n"
)
FUNCTION_PREFIX = (
    "Generate an executable Python function that solves the following problem. Reply with the finished code only, in one code block.\n\n"
)

# The sanitized MBPP problems of the test split; the others are for prompting and training.
MBPP_TEST_IDS = range(11, 511)
ID_FIELDS = ("task_id", "unique_id", "instance_id", "question_id", "prompt_id", "id", "problem_idx")


@dataclass(frozen=True)
class Prompt:
    """What a user says, turn by turn, and where it comes from. `prompt_id` is unique within its set."""

    set_name: str
    prompt_id: str
    turns: tuple[str, ...]


@dataclass(frozen=True)
class PromptSet:
    """One set: how many prompts the paper takes, where its records are, and how a record becomes user turns (none: it is left out)."""

    name: str
    num_prompts: int
    file_name: str
    hub: HubSource
    turns: Callable[[Record], tuple[str, ...]]


def _math(record: Record) -> tuple[str, ...]:
    return ((record["question"] if "question" in record else record["problem"]) + MATH_SUFFIX,)


def _humaneval(record: Record) -> tuple[str, ...]:
    return (f"{PYTHON_PREFIX}{record['prompt']}\n```",)


def _mbpp(record: Record) -> tuple[str, ...]:
    return (record["prompt"],) if int(record["task_id"]) in MBPP_TEST_IDS else ()


def _livecodebench(record: Record) -> tuple[str, ...]:
    if record["starter_code"]:
        return (f"{FUNCTION_PREFIX}{record['question_content']}\n\nStart from this code:\n```python\n{record['starter_code']}\n```",)
    return (f"{PROGRAM_PREFIX}{record['question_content']}\n\nRead from standard input and write to standard output.",)


def _swebench(record: Record) -> tuple[str, ...]:
    return (f"Problem Statement:\n{record['problem_statement']}\nPlease fix the issue described above.",)


def _mt_bench(record: Record) -> tuple[str, ...]:
    turns = record["turns"] if "turns" in record else record["prompt"]
    return tuple(parse_list(turns) if isinstance(turns, str) else turns)


def _alpaca(record: Record) -> tuple[str, ...]:
    return (f"{record['instruction']}\n\nInput:\n{record['input']}" if record["input"] else record["instruction"],)


def parse_list(text: str) -> list[str]:
    """A list that an export wrote as text: JSON, or Python's own notation."""
    try:
        return list(json.loads(text))
    except json.JSONDecodeError:
        return list(ast.literal_eval(text))


PROMPT_SETS = {
    one.name: one
    for one in (
        PromptSet("gsm8k", 128, "gsm8k.jsonl", HubSource("openai/gsm8k", "test", config="main"), _math),
        PromptSet("math500", 128, "math500.jsonl", HubSource("HuggingFaceH4/MATH-500", "test"), _math),
        PromptSet("aime24", 30, "aime24.jsonl", HubSource("HuggingFaceH4/aime_2024", "train"), _math),
        PromptSet("aime25", 30, "aime25.jsonl", HubSource("MathArena/aime_2025", "train"), _math),
        PromptSet("humaneval", 164, "humaneval.jsonl", HubSource("openai/openai_humaneval", "test"), _humaneval),
        PromptSet("mbpp", 128, "mbpp_sanitized.json", HubSource("google-research-datasets/mbpp", "test", config="sanitized"), _mbpp),
        PromptSet(
            "livecodebench", 128, "livecodebench.jsonl", HubSource("livecodebench/code_generation_lite", file="test.jsonl"), _livecodebench
        ),
        PromptSet("swebench_lite", 128, "swebench_lite.jsonl", HubSource("princeton-nlp/SWE-bench_Lite", "test"), _swebench),
        PromptSet("mt_bench", 80, "mt_bench.jsonl", HubSource("HuggingFaceH4/mt_bench_prompts", "train"), _mt_bench),
        PromptSet("alpaca", 128, "alpaca.json", HubSource("tatsu-lab/alpaca", "train"), _alpaca),
    )
}


def load_sets(names: Sequence[str], *, data_dir: Path | None = None, limit: int | None = None) -> list[Prompt]:
    """Returns the prompts of several sets, one set after the other; the name `all` alone stands for every set. See `load_prompts`."""
    chosen = tuple(PROMPT_SETS) if tuple(names) == ("all",) else tuple(names)
    check_list("prompt sets", chosen)
    return [prompt for name in chosen for prompt in load_prompts(name, data_dir=data_dir, limit=limit)]


def load_prompts(name: str, *, data_dir: Path | None = None, limit: int | None = None) -> list[Prompt]:
    """Returns the first `limit` prompts of a set (`None`: as many as the paper takes; fewer if the set has fewer).

    They are read from `data_dir/eval/`, else from the folder that HOARFROST_DATA names, else from the Hugging Face hub. Raises
    `InvalidInput` for an unknown set, a limit below 1, a missing file, a set without a prompt, a record without the fields of its set, an
    unreachable hub.
    """
    if name not in PROMPT_SETS:
        raise InvalidInput(f"Unknown prompt set {name!r}; choose from {', '.join(PROMPT_SETS)}, or all.")
    check_least("limit of prompts per set", limit)
    chosen = PROMPT_SETS[name]
    records = read_records(chosen.file_name, chosen.hub, data_dir)
    prompts = list(islice(_prompts(chosen, records), limit or chosen.num_prompts))
    if not prompts:
        raise InvalidInput(f"The prompt set {name} has no prompt: {chosen.file_name} is empty or holds none of the records asked for.")
    return prompts


def _prompts(chosen: PromptSet, records: Iterator[Record]) -> Iterator[Prompt]:
    for index, record in enumerate(records):
        try:
            turns = chosen.turns(record)
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise InvalidInput(f"Record {index} of the prompt set {chosen.name} is not in that set's form ({error!r}).") from None
        if turns:
            yield Prompt(chosen.name, _prompt_id(record, index), turns)


def _prompt_id(record: dict[str, Any], index: int) -> str:
    return str(next((record[field] for field in ID_FIELDS if field in record), index))
