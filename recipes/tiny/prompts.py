"""Writes the prompts whose answers, in the target's own words, the drafter learns from: the first turns of the training chats.

python recipes/tiny/prompts.py --data-dir DATA --out build/tiny/prompts.jsonl --number 5000
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path

from corpus import SOURCES, TURN_END, TURN_START

SHARES = {"gsm8k": 0.35, "math": 0.25, "python_chat": 0.15, "instructions": 0.25}
LONGEST_PROMPT = 1500  # characters


def first_turns(chats: list[str]) -> list[str]:
    opening = f"{TURN_START}user\n"
    turns = [chat[len(opening) : chat.index(TURN_END)] for chat in chats if chat.startswith(opening)]
    return [turn for turn in turns if len(turn) <= LONGEST_PROMPT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("HOARFROST_DATA"))
    parser.add_argument("--out", type=Path, default=Path("build/tiny/prompts.jsonl"))
    parser.add_argument("--number", type=int, default=5000)
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("name the data folder with --data-dir or HOARFROST_DATA")
    shuffle = random.Random(1)
    prompts = []
    for name, share in SHARES.items():
        turns = first_turns(list(SOURCES[name](Path(arguments.data_dir) / "train")))
        prompts += shuffle.sample(turns, min(len(turns), round(share * arguments.number)))
    shuffle.shuffle(prompts)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    print(f"{len(prompts):,} prompts in {arguments.out}")


if __name__ == "__main__":
    main()
