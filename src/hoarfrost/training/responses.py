"""Responses in the target's own words: many prompts decoded side by side by the stock transformers model.

Prompts of like length share a batch, padded on the left; rows that end are dropped and the rest move together, so that no arithmetic is
spent on finished ones. Keys and values lie in one preallocated buffer a layer (`DynamicCache` copies the whole cache at every token).

Each request has its own stream of uniform numbers, keyed by the seed and its index, and draws by inversion of the cumulative distribution:
a response does not depend on the batch it was made in (but for rounding), nor on when the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

LONGEST_NGRAM = 32
PREFILL_TOKENS = 2048  # at a time: larger intermediate results fall out of a CPU's caches
SHORTEST_NGRAM = 4  # three times that is the shortest stretch that counts as a repetition


@dataclass(frozen=True)
class Request:
    """One prompt to answer. `index` keys its random numbers."""

    index: int
    prompt_ids: tuple[int, ...]
    temperature: float


@dataclass(frozen=True)
class Response:
    token_ids: tuple[int, ...]
    finish_reason: str


class ReservedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in a buffer that holds `num_rows` rows of `capacity` columns from the start.

    `first_row` and `num_columns` say where the next call writes, so that the prompts can be run a few rows at a time.
    """

    def __init__(self, num_rows: int, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_rows, self.capacity, self.num_columns, self.first_row = num_rows, capacity, 0, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            _, heads, _, head_dim = key_states.shape
            self.key_buffer = key_states.new_empty(self.num_rows, heads, self.capacity, head_dim)
            self.value_buffer = torch.empty_like(self.key_buffer)
        rows, end = slice(self.first_row, self.first_row + len(key_states)), self.num_columns + key_states.shape[2]
        self.key_buffer[rows, :, self.num_columns : end] = key_states
        self.value_buffer[rows, :, self.num_columns : end] = value_states
        self.num_columns = end
        self.keys, self.values = self.key_buffer[rows, :, :end], self.value_buffer[rows, :, :end]
        return self.keys, self.values

    def start_at(self, row: int) -> None:
        """The next call writes rows from `row` on, first column first."""
        self.keys = self.values = torch.empty(0)
        self.first_row, self.num_columns = row, 0

    def keep_rows(self, rows: Tensor) -> None:
        for buffer in (self.key_buffer, self.value_buffer):
            buffer[: len(rows), :, : self.num_columns] = buffer[rows, :, : self.num_columns]


class RepetitionWatch:
    """Tells which rows of a batch have just ended the third copy in a row of an n-gram of 4 to 32 tokens."""

    def __init__(self, num_rows: int) -> None:
        self.recent = np.full((num_rows, LONGEST_NGRAM), -1, dtype=np.int64)  # newest last
        self.run_lengths = np.zeros((num_rows, LONGEST_NGRAM), dtype=np.int64)  # column n-1: how long each token equalled that n before

    def feed(self, token_ids: np.ndarray) -> np.ndarray:
        """Takes the next token of every row; returns bool `[rows]`."""
        same = self.recent[:, ::-1] == token_ids[:, None]
        self.run_lengths = np.where(same, self.run_lengths + 1, 0)
        self.recent = np.concatenate([self.recent[:, 1:], token_ids[:, None]], axis=1)
        sizes = np.arange(SHORTEST_NGRAM, LONGEST_NGRAM + 1)
        repeats: np.ndarray = np.any(self.run_lengths[:, SHORTEST_NGRAM - 1 :] >= 2 * sizes, axis=1)
        return repeats

    def keep_rows(self, rows: np.ndarray) -> None:
        self.recent, self.run_lengths = self.recent[rows], self.run_lengths[rows]


def choose_tokens(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """Next tokens of `logits [rows, V]`: the largest where the temperature is 0, else the draw that `uniforms [rows]` picks."""
    chosen = logits.argmax(dim=-1)
    (warm,) = torch.nonzero(temperatures > 0, as_tuple=True)
    if len(warm):
        cumulative = (logits[warm].float() / temperatures[warm, None]).softmax(dim=-1).cumsum(dim=-1)
        drawn = torch.searchsorted(cumulative, uniforms[warm, None] * cumulative[:, -1:], right=True)[:, 0]
        chosen[warm] = drawn.clamp(max=logits.shape[1] - 1)
    return chosen


class Batch:
    """Requests that are decoded side by side; owns the tokens, the cache and the list of rows that still run."""

    def __init__(
        self, model: PreTrainedModel, requests: Sequence[Request], eos_token_ids: Collection[int], max_new_tokens: int, seed: int
    ) -> None:
        self.model, self.requests, self.eos = model, requests, np.asarray(sorted(eos_token_ids), dtype=np.int64)
        self.max_new_tokens, self.device = max_new_tokens, model.device
        self.prompt_columns = max(len(request.prompt_ids) for request in requests)
        capacity = self.prompt_columns + max_new_tokens
        self.layers = [ReservedLayer(len(requests), capacity) for _ in range(model.config.num_hidden_layers)]
        self.cache = Cache(layers=list(self.layers))
        self.padding = torch.tensor([self.prompt_columns - len(request.prompt_ids) for request in requests], device=self.device)
        self.real = torch.arange(capacity, device=self.device) >= self.padding[:, None]
        self.temperatures = torch.tensor([request.temperature for request in requests], device=self.device)
        drawn = np.stack([np.random.default_rng([seed, request.index]).random(max_new_tokens, dtype=np.float32) for request in requests])
        self.uniforms = torch.from_numpy(drawn).to(self.device)
        self.new_tokens = np.zeros((len(requests), max_new_tokens), dtype=np.int64)
        self.running = np.arange(len(requests))  # request of every row of the cache
        self.watch = RepetitionWatch(len(requests))

    def prefill(self) -> Tensor:
        """Runs the prompts; returns the logits of their last tokens `[rows, V]`."""
        token_ids = torch.zeros(len(self.requests), self.prompt_columns, dtype=torch.int64)
        for row, request in enumerate(self.requests):
            token_ids[row, self.prompt_columns - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
        positions = (torch.arange(self.prompt_columns, device=self.device) - self.padding[:, None]).clamp(min=0)
        mask, token_ids = self.real[:, : self.prompt_columns], token_ids.to(self.device)
        at_once = max(1, PREFILL_TOKENS // self.prompt_columns)
        logits = []
        for start in range(0, len(token_ids), at_once):
            rows = slice(start, start + at_once)
            for layer in self.layers:
                layer.start_at(start)
            logits.append(self.forward(token_ids[rows], positions[rows], mask[rows]))
        for layer in self.layers:
            layer.first_row = 0
        return torch.cat(logits)

    def step(self, token_ids: Tensor, num_columns: int) -> Tensor:
        """Runs one token of every row, the cache holding `num_columns`; returns logits `[rows, V]`."""
        positions = num_columns - self.padding[:, None]
        return self.forward(token_ids[:, None], positions, self.real[:, None, None, : num_columns + 1])

    def forward(self, token_ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        outputs = self.model(
            token_ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        logits: Tensor = outputs.logits[:, -1]
        return logits

    @torch.inference_mode()
    def decode(self) -> list[Response]:
        """Responses in the order of the requests. They end with the end token where the target gave one."""
        reasons = ["length"] * len(self.requests)
        lengths = np.full(len(self.requests), self.max_new_tokens)
        logits = self.prefill()
        for count in range(self.max_new_tokens):
            chosen = choose_tokens(logits, self.temperatures, self.uniforms[:, count])
            token_ids = chosen.cpu().numpy()
            self.new_tokens[self.running, count] = token_ids
            ended, repeats = np.isin(token_ids, self.eos), self.watch.feed(token_ids)
            for row in np.flatnonzero(ended | repeats):
                request = self.running[row]
                if lengths[request] == self.max_new_tokens:  # a row may run on for a while after its end
                    reasons[request], lengths[request] = "stop" if ended[row] else "repetition", count + 1
            chosen = self.drop_finished(chosen, lengths == self.max_new_tokens)
            if not len(chosen) or count + 1 == self.max_new_tokens:
                break
            logits = self.step(chosen, self.prompt_columns + count)
        return [
            Response(tuple(tokens[:length].tolist()), reason)
            for tokens, length, reason in zip(self.new_tokens, lengths, reasons, strict=True)
        ]

    def drop_finished(self, chosen: Tensor, unfinished: np.ndarray) -> Tensor:
        """Moves the rows that still run together once a tenth of them has ended; returns their newest tokens."""
        alive = np.flatnonzero(unfinished[self.running])
        if len(alive) > 0.9 * len(self.running):
            return chosen
        rows = torch.from_numpy(alive).to(self.device)
        for layer in self.layers:
            layer.keep_rows(rows)
        self.padding, self.real, self.temperatures, self.uniforms = (
            tensor[rows] for tensor in (self.padding, self.real, self.temperatures, self.uniforms)
        )
        self.running = self.running[alive]
        self.watch.keep_rows(alive)
        return chosen[rows]


def batches_of(requests: Sequence[Request], batch_size: int, seed: int) -> list[list[Request]]:
    """Groups requests of like prompt length; the groups come in random order, so that progress is even."""
    ordered = sorted(requests, key=lambda request: len(request.prompt_ids))
    groups = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    np.random.default_rng(seed).shuffle(groups)
    return groups
