"""Has the target answer tens of thousands of prompts on an accelerator: a few minutes where a CPU needs days.

python recipes/smollm2/responses.py TARGET build/smollm2/prompts.jsonl.gz build/smollm2/responses.jsonl --max-seconds 90

The engine answers hundreds of prompts at a time and keeps its drafts exact; here nothing is drafted, and thousands of rows decode side by
side in fixed caches, one captured graph a step. A row whose answer has ended takes the next prompt. Besides the prompts given the model
asks itself: left to write what stands between the template's "user" and its end, it writes instructions like those it was taught with
(Magpie, arXiv 2406.08464).

Each line of the result holds `set`, `temperature`, `prompt_ids`, `response_ids` and `finish`; answers that repeat themselves are cut
short. For Llama-shaped targets in bfloat16; sampled with the device's own noise, so no two runs give the same answers.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hoarfrost.training.features import load_frozen_target

TEMPERATURES = (0.0, 0.0, 0.7, 1.0)
ASKING = "asked by itself"
ASKING_TEMPERATURE = 0.8
SHORT_PROMPT = 256  # tokens; longer ones are answered apart, in fewer and longer rows
STEPS_AT_ONCE = 32  # between two looks at what has ended
TAIL, LONGEST_PERIOD = 96, 32  # an answer ends where its last tokens repeat themselves with a period of at most so many


@dataclass
class Question:
    set_name: str
    prompt_ids: list[int]
    temperature: float


@dataclass
class Answer:
    question: Question
    token_ids: list[int]
    finish: str

    def line(self) -> str:
        question = self.question
        record = {"set": question.set_name, "temperature": question.temperature}
        record |= {"prompt_ids": question.prompt_ids, "response_ids": self.token_ids, "finish": self.finish}
        return json.dumps(record, separators=(",", ":")) + "\n"


class Rows:
    """`num_rows` sequences that decode side by side in caches of `capacity` tokens each.

    State on the device: tokens [R] last chosen and not yet cached, lengths [R] cached, counts [R] generated, active [R].
    """

    def __init__(self, model: Any, num_rows: int, capacity: int, max_new_tokens: int, eos_token_id: int) -> None:
        config, decoder = model.config, model.base_model
        self.device, self.dtype = model.device, model.dtype
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.eps, self.eos_token_id, self.max_new_tokens, self.capacity = config.rms_norm_eps, eos_token_id, max_new_tokens, capacity
        self.embedding, self.head, self.norm = decoder.embed_tokens.weight, model.lm_head.weight, decoder.norm.weight
        self.layers = [
            (
                layer.input_layernorm.weight,
                torch.cat([getattr(layer.self_attn, name).weight for name in ("q_proj", "k_proj", "v_proj")]),
                layer.self_attn.o_proj.weight,
                layer.post_attention_layernorm.weight,
                torch.cat((layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)),
                layer.mlp.down_proj.weight,
            )
            for layer in decoder.layers
        ]
        positions = torch.arange(capacity + 1, device=self.device)
        cos, sin = decoder.rotary_emb(self.embedding[:1], position_ids=positions[None])
        self.cos, self.sin = cos[0], sin[0]
        shape = (len(self.layers), num_rows, self.num_kv_heads, capacity, self.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        self.index, self.places = torch.arange(num_rows, device=self.device), torch.arange(capacity, device=self.device)
        self.tokens, self.lengths, self.counts = (torch.zeros(num_rows, dtype=torch.int64, device=self.device) for _ in range(3))
        self.temperatures = torch.zeros(num_rows, device=self.device)
        self.active = torch.zeros(num_rows, dtype=torch.bool, device=self.device)
        self.answers = torch.zeros(
            num_rows, max_new_tokens + 1, dtype=torch.int64, device=self.device
        )  # the last place is for rows at rest
        self.questions: list[Question | None] = [None] * num_rows
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @torch.no_grad()
    def begin(self, rows: list[int], questions: Sequence[Question]) -> None:
        """Puts prompts into rows; all but their last tokens are cached."""
        lengths = [len(question.prompt_ids) - 1 for question in questions]
        token_ids = np.zeros((len(rows), max(lengths)), dtype=np.int64)
        for at, question in zip(token_ids, questions, strict=True):
            at[: len(question.prompt_ids) - 1] = question.prompt_ids[:-1]
        at = torch.tensor(rows, device=self.device)
        num_tokens = token_ids.shape[1]
        tables = self.cos[None, :num_tokens, None], self.sin[None, :num_tokens, None]
        hidden = functional.embedding(torch.from_numpy(token_ids).to(self.device), self.embedding)
        for index, layer in enumerate(self.layers):
            queries, keys, values = self.project(layer, hidden, tables)
            self.keys[index, at, :, :num_tokens] = keys.transpose(1, 2)
            self.values[index, at, :, :num_tokens] = values.transpose(1, 2)
            repeats = self.num_heads // self.num_kv_heads
            keys, values = (part.repeat_interleave(repeats, dim=2).transpose(1, 2) for part in (keys, values))
            mixed = functional.scaled_dot_product_attention(queries.transpose(1, 2), keys, values, is_causal=True)
            hidden = self.finish(layer, hidden, mixed.transpose(1, 2).flatten(2))
        self.tokens[at] = torch.tensor([question.prompt_ids[-1] for question in questions], device=self.device)
        self.lengths[at], self.counts[at] = torch.tensor(lengths, device=self.device), 0
        self.temperatures[at] = torch.tensor([question.temperature for question in questions], device=self.device)
        self.active[at] = True
        for row, question in zip(rows, questions, strict=True):
            self.questions[row] = question

    def project(self, layer: tuple[Tensor, ...], hidden: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries `[..., Hq, D]` and keys, values `[..., Hkv, D]` of `hidden [..., H]`."""
        normed = functional.rms_norm(hidden, layer[0].shape, layer[0], self.eps)
        heads = functional.linear(normed, layer[1]).unflatten(-1, (-1, self.head_dim))
        rotating, values = heads[..., : self.num_heads + self.num_kv_heads, :], heads[..., self.num_heads + self.num_kv_heads :, :]
        first, second = rotating.chunk(2, dim=-1)
        rotating = rotating * tables[0] + torch.cat((-second, first), dim=-1) * tables[1]
        return rotating[..., : self.num_heads, :], rotating[..., self.num_heads :, :], values

    def finish(self, layer: tuple[Tensor, ...], hidden: Tensor, mixed: Tensor) -> Tensor:
        hidden = hidden + functional.linear(mixed, layer[2])
        gate, up = functional.linear(functional.rms_norm(hidden, layer[3].shape, layer[3], self.eps), layer[4]).chunk(2, dim=-1)
        return hidden + functional.linear(functional.silu(gate) * up, layer[5])

    @torch.no_grad()
    def step(self, num_places: int) -> None:
        """One token for every active row, looking at the first `num_places` cached ones."""
        tables = self.cos[self.lengths][:, None], self.sin[self.lengths][:, None]
        hidden_places = torch.zeros(len(self.index), 1, 1, num_places, dtype=self.dtype, device=self.device)
        hidden_places.masked_fill_(self.places[:num_places] > self.lengths[:, None, None, None], -torch.inf)
        hidden = functional.embedding(self.tokens, self.embedding)
        for index, layer in enumerate(self.layers):
            queries, keys, values = self.project(layer, hidden, tables)
            self.keys[index][self.index, :, self.lengths] = keys
            self.values[index][self.index, :, self.lengths] = values
            grouped = queries.unflatten(1, (self.num_kv_heads, -1)) * self.head_dim**-0.5
            scores = grouped @ self.keys[index, :, :, :num_places].transpose(-1, -2) + hidden_places
            shares = scores.float().softmax(dim=-1).to(self.dtype)
            mixed = shares @ self.values[index, :, :, :num_places]
            hidden = self.finish(layer, hidden, mixed.flatten(1))
        logits = functional.linear(functional.rms_norm(hidden, self.norm.shape, self.norm, self.eps), self.head).float()
        noise = torch.empty_like(logits).exponential_().log_()
        chosen = (logits - noise * self.temperatures[:, None]).argmax(dim=-1)
        self.answers[self.index, torch.where(self.active, self.counts, self.max_new_tokens)] = chosen
        self.tokens.copy_(torch.where(self.active, chosen, self.tokens))
        self.lengths += self.active
        self.counts += self.active
        self.active &= (chosen != self.eos_token_id) & (self.counts < self.max_new_tokens) & (self.lengths < self.capacity - 1)

    def advance(self) -> None:
        """Several steps."""
        longest = int(torch.where(self.active, self.lengths, 0).max()) + STEPS_AT_ONCE
        num_places = min(self.capacity, -(-longest // 64) * 64)
        if self.device.type != "cuda":
            for _ in range(STEPS_AT_ONCE):
                self.step(num_places)
            return
        if num_places not in self.graphs:
            saved = [state.clone() for state in (self.tokens, self.lengths, self.counts, self.active)]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.step(num_places)  # warms up libraries; a capture must not be the first to call them
            torch.cuda.current_stream().wait_stream(side)
            for state, before in zip((self.tokens, self.lengths, self.counts, self.active), saved, strict=True):
                state.copy_(before)
            graph = torch.cuda.CUDAGraph()
            pool = next(iter(self.graphs.values())).pool() if self.graphs else None
            with torch.cuda.graph(graph, pool=pool):
                self.step(num_places)
            self.graphs[num_places] = graph
        for _ in range(STEPS_AT_ONCE):
            self.graphs[num_places].replay()

    def stop_repetitions(self) -> None:
        """Ends rows whose last `TAIL` tokens have a short period."""
        at = (self.counts[:, None] - TAIL + torch.arange(TAIL, device=self.device)).clamp(min=0)
        tails = self.answers.gather(1, at)
        periodic = torch.zeros_like(self.active)
        for period in range(1, LONGEST_PERIOD + 1):
            periodic |= (tails[:, period:] == tails[:, :-period]).all(dim=1)
        self.active &= ~(periodic & (self.counts >= TAIL))

    def take_ended(self) -> Iterator[tuple[int, Answer]]:
        """Rows that have ended, with their answers."""
        active, counts = self.active.tolist(), self.counts.tolist()
        ended = [row for row, question in enumerate(self.questions) if question is not None and not active[row]]
        tokens = self.answers[torch.tensor(ended, dtype=torch.int64, device=self.device)].cpu().numpy()
        for row, answer in zip(ended, tokens, strict=True):
            question, self.questions[row] = self.questions[row], None
            assert question is not None
            token_ids = answer[: counts[row]].tolist()
            if token_ids[-1] == self.eos_token_id:
                yield row, Answer(question, token_ids, "stop")
            else:
                kept = without_repetition(token_ids)
                yield row, Answer(question, kept, "length" if len(kept) == len(token_ids) else "repetition")


def without_repetition(token_ids: list[int]) -> list[int]:
    """An answer up to the second period of what it repeats at its end; whole if it does not."""
    if len(token_ids) < TAIL:
        return token_ids
    tail = token_ids[-TAIL:]
    period = next((p for p in range(1, LONGEST_PERIOD + 1) if tail[p:] == tail[:-p]), None)
    if period is None:
        return token_ids
    start = len(token_ids)
    while start > period and token_ids[start - 1] == token_ids[start - 1 - period]:
        start -= 1
    return token_ids[: start + period]


def answer_all(rows: Rows, questions: Sequence[Question], deadline: float) -> Iterator[Answer]:
    """Answers as they end, until all have or the time is up; what is then under way is dropped."""
    waiting = deque(questions)
    free = list(range(len(rows.questions)))
    while (waiting or any(rows.questions)) and time.perf_counter() < deadline:
        taken = [waiting.popleft() for _ in range(min(len(free), len(waiting)))]
        if taken:
            for start in range(0, len(taken), 256):
                rows.begin(free[start : start + 256][: len(taken) - start], taken[start : start + 256])
            free = free[len(taken) :]
        rows.advance()
        rows.stop_repetitions()
        for row, answer in rows.take_ended():
            free.append(row)
            yield answer


def read_questions(path: Path, tokenizer: Any, longest: int) -> list[Question]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    opening, closing = frame(tokenizer)
    encoded = tokenizer([opening + record["prompt"] + closing for record in records], add_special_tokens=False)["input_ids"]
    return [
        Question(record["set"], token_ids, TEMPERATURES[index % len(TEMPERATURES)])
        for index, (record, token_ids) in enumerate(zip(records, encoded, strict=True))
        if len(token_ids) <= longest
    ]


def frame(tokenizer: Any) -> tuple[str, str]:
    """What the template puts before and after a user's words."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": "\0"}], tokenize=False, add_generation_prompt=True)
    opening, _, closing = text.partition("\0")
    return opening, closing


def asked_by_itself(rows: Rows, tokenizer: Any, count: int, deadline: float) -> list[Question]:
    """Questions that the target thinks of, each once, in random order."""
    opening, closing = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in frame(tokenizer))
    asking = [Question(ASKING, opening, ASKING_TEMPERATURE)] * count
    found = {tuple(one.token_ids) for one in answer_all(rows, asking, deadline) if one.finish == "stop" and len(one.token_ids) > 4}
    ordered = sorted(found)
    random.Random(0).shuffle(ordered)
    return [
        Question(ASKING, [*opening, *token_ids, *closing[1:]], TEMPERATURES[index % len(TEMPERATURES)])
        for index, token_ids in enumerate(ordered)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--num-rows", type=int, default=2048)
    parser.add_argument("--num-asked", type=int, default=12_000)
    parser.add_argument("--max-new-tokens", type=int, default=384)
    parser.add_argument("--max-prompt-tokens", type=int, default=900)
    parser.add_argument("--max-prompts", type=int)
    parser.add_argument("--max-seconds", type=float, default=90.0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    deadline = began + arguments.max_seconds
    target = load_frozen_target(arguments.target, dtype="bfloat16", device=arguments.device)
    eos_token_id = target.tokenizer(frame(target.tokenizer)[1], add_special_tokens=False)["input_ids"][0]  # what ends a turn
    questions = read_questions(arguments.prompts, target.tokenizer, arguments.max_prompt_tokens)[: arguments.max_prompts]
    print(f"{len(questions)} prompts after {time.perf_counter() - began:.1f} s")
    capacity = SHORT_PROMPT + arguments.max_new_tokens + STEPS_AT_ONCE
    rows = Rows(target.model, arguments.num_rows, capacity, arguments.max_new_tokens, eos_token_id)
    questions += asked_by_itself(rows, target.tokenizer, arguments.num_asked, deadline)
    print(f"{len(questions)} with those asked by itself, after {time.perf_counter() - began:.1f} s")
    random.Random(1).shuffle(questions)
    short = [question for question in questions if len(question.prompt_ids) <= SHORT_PROMPT]
    long = [question for question in questions if len(question.prompt_ids) > SHORT_PROMPT]
    finishes: Counter[str] = Counter()
    num_answers = num_tokens = 0
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8") as file:
        for part, share in ((long, 0.2), (short, 1.0)):
            if part is long:
                longer = arguments.max_prompt_tokens + arguments.max_new_tokens + STEPS_AT_ONCE
                at_work = Rows(target.model, arguments.num_rows // 4, longer, arguments.max_new_tokens, eos_token_id)
            else:
                at_work = rows
            until = time.perf_counter() + share * (deadline - time.perf_counter())
            for answer in answer_all(at_work, part, until):
                file.write(answer.line())
                finishes[answer.finish] += 1
                num_answers, num_tokens = num_answers + 1, num_tokens + len(answer.token_ids)
            print(f"{num_answers} answers, {num_tokens} tokens after {time.perf_counter() - began:.1f} s; {dict(finishes)}")
            del at_work


if __name__ == "__main__":
    main()
