"""Long texts to hide facts in and to measure loss on: essays and books, from a data folder or from the Hugging Face hub.

A data folder has the essays as `long/essays/*.txt` and the books as `train/classic_books.jsonl` (`text`).
`draw_tokens` takes a stretch from anywhere in them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.prompts.encoding import Encode
from hoarfrost.evaluation.prompts.sources import DATA_VARIABLE, HubSource, find_data_dir, read_records

SOURCES = ("essays", "books")
ESSAYS_HUB = HubSource("baber/paul_graham_essays")
BOOKS_HUB = HubSource("emozilla/pg19", "test")
NUM_BOOKS = 8
CHARACTERS_PER_TOKEN = 6


@cache
def load_texts(source: str, data_dir: Path | None = None) -> tuple[str, ...]:
    """The texts of a source, in a fixed order. Raises `InvalidInput` for an unknown source, a missing file, an unreachable hub."""
    if source not in SOURCES:
        raise InvalidInput(f"Unknown source of long texts {source!r}; choose from {', '.join(SOURCES)}.")
    folder = find_data_dir(data_dir)
    texts = tuple(text for text in (_essays(folder) if source == "essays" else _books(data_dir)) if text.strip())
    if not texts:
        raise InvalidInput(f"There are no {source} in {folder}; set {DATA_VARIABLE} (or --data-dir) to a folder that has them.")
    return texts


def _essays(folder: Path | None) -> Iterator[str]:
    if folder is None:
        yield from (record["text"] for record in read_records("essays", ESSAYS_HUB, None, "long"))
        return
    for path in sorted((folder / "long" / "essays").glob("*.txt")):
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"The essay {path} cannot be read ({error}).") from None


def _books(data_dir: Path | None) -> Iterator[str]:
    """The first books of a data folder, or of the hub's test split."""
    records = read_records("classic_books.jsonl", BOOKS_HUB, data_dir, "train")
    yield from (record["text"].replace("\r\n", "\n") for record in islice(records, NUM_BOOKS))


def draw_tokens(texts: tuple[str, ...], num_tokens: int, rng: random.Random, encode: Encode) -> list[int]:
    """A stretch of exactly `num_tokens` tokens that begins with some word and goes on from text to text where one ends."""
    index = rng.choices(range(len(texts)), weights=list(map(len, texts)))[0]
    start = texts[index].find(" ", rng.randrange(len(texts[index]))) + 1
    tokens: list[int] = []
    while len(tokens) < num_tokens:
        missing = num_tokens - len(tokens)
        part = texts[index][start : start + CHARACTERS_PER_TOKEN * missing + CHARACTERS_PER_TOKEN]
        tokens += encode(part)
        start += len(part)
        if start >= len(texts[index]):
            index, start = (index + 1) % len(texts), 0
    return tokens[:num_tokens]
