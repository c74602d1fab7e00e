"""Trains the `tiny` target on the streams that `corpus.py` wrote.

A schedule is a list of stages. A stage fixes the depth of the network, the mix of window lengths and the mix of sources. The schedule
`first` begins from nothing: it trains half the layers and goes on from two copies of them (depthwise stacking, Du et al. 2024,
arXiv 2405.15319), which reaches a given loss in clearly less time. `second` starts from a trained model: dense short retrieval first, until
the model looks things up at all, then text, then windows that lengthen while the learning rate falls. `third` goes through the same steps
again. Interrupt it at will: `--resume` goes on from the last checkpoint.

    python recipes/tiny/pretrain.py --out build/tiny/first
    python recipes/tiny/pretrain.py --schedule second --start-from build/tiny/first --out build/tiny/second [--resume]
    python recipes/tiny/pretrain.py --schedule third --start-from build/tiny/second --out build/tiny/target [--resume]
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from retrieval import copies, sample
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from hoarfrost.training.checkpoint import load_checkpoint, save_checkpoint
from hoarfrost.training.optimizers import muon_and_adamw, warmup_stable_decay

MICRO_BATCH_TOKENS = 4096
NUM_LAYERS = 8
MUON_LR, ADAMW_LR = 0.02, 0.003
DECAY_SHARE = 0.5  # of the steps: with so few tokens the rate has to fall early

COPIED_TOKENS = (260, 516)  # the first merges: frequent tokens, whose embeddings are good early

MIX = {
    "gsm8k": 0.24,
    "math": 0.22,
    "python_chat": 0.16,
    "python_files": 0.08,
    "instructions": 0.14,
    "stories": 0.03,
    "peps": 0.03,
    "books": 0.10,
}


@dataclass(frozen=True)
class Stage:
    """One stretch of training: `lengths`: window length to share of the steps, `retrieval` and `copies`: synthetic shares of the
    windows."""

    num_layers: int
    num_tokens: int
    tokens_per_step: int
    lengths: dict[int, float]
    retrieval: float
    copies: float = 0.0

    @property
    def num_steps(self) -> int:
        return self.num_tokens // self.tokens_per_step


SCHEDULES = {
    "first": (
        Stage(num_layers=4, num_tokens=700_000, tokens_per_step=4096, lengths={512: 1.0}, retrieval=0.05),
        Stage(num_layers=8, num_tokens=200_000, tokens_per_step=4096, lengths={512: 1.0}, retrieval=0.15),
        Stage(num_layers=8, num_tokens=500_000, tokens_per_step=2048, lengths={512: 1.0}, retrieval=0.15),
        Stage(num_layers=8, num_tokens=400_000, tokens_per_step=2048, lengths={512: 0.5, 1024: 0.25, 2048: 0.15, 4096: 0.1}, retrieval=0.4),
    ),
    "second": (
        Stage(num_layers=8, num_tokens=409_600, tokens_per_step=4096, lengths={256: 0.6, 512: 0.4}, retrieval=0.6),
        Stage(num_layers=8, num_tokens=500_000, tokens_per_step=4096, lengths={128: 0.5, 256: 0.5}, retrieval=0.35, copies=0.35),
        Stage(num_layers=8, num_tokens=400_000, tokens_per_step=4096, lengths={128: 1.0}, retrieval=0.1, copies=0.5),
        Stage(num_layers=8, num_tokens=430_000, tokens_per_step=4096, lengths={512: 0.7, 1024: 0.3}, retrieval=0.25, copies=0.05),
        Stage(num_layers=8, num_tokens=430_000, tokens_per_step=4096, lengths={512: 0.4, 1024: 0.3, 2048: 0.2, 4096: 0.1}, retrieval=0.3),
    ),
    "third": (
        Stage(num_layers=8, num_tokens=600_000, tokens_per_step=4096, lengths={128: 0.3, 256: 0.5, 512: 0.2}, retrieval=0.65, copies=0.1),
        Stage(num_layers=8, num_tokens=800_000, tokens_per_step=4096, lengths={256: 0.15, 512: 0.6, 1024: 0.25}, retrieval=0.35),
        Stage(num_layers=8, num_tokens=450_000, tokens_per_step=4096, lengths={512: 0.4, 1024: 0.3, 2048: 0.2, 4096: 0.1}, retrieval=0.35),
    ),
}


def build_model(num_layers: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=num_layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():  # residual branches start silent
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


def stacked(model: Qwen3ForCausalLM, num_layers: int) -> Qwen3ForCausalLM:
    """A model of `num_layers` layers that repeats the layers of `model`."""
    grown = build_model(num_layers)
    state = model.state_dict()
    for index in range(num_layers):
        source = model.model.layers[index % len(model.model.layers)].state_dict()
        state.update({f"model.layers.{index}.{name}": value.clone() for name, value in source.items()})
    grown.load_state_dict(state)
    return grown


class Batches:
    """Draws windows of the streams, or synthetic retrieval chats, reproducibly from one seed per step."""

    def __init__(self, corpus: Path, split: str) -> None:
        self.streams = {name: np.load(corpus / f"{name}.{split}.npy", mmap_mode="r") for name in MIX}
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(corpus / "tokenizer")
        self.alphabet = list(range(*COPIED_TOKENS))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def window(self, name: str, length: int, rng: random.Random) -> np.ndarray:
        stream = self.streams[name]
        start = rng.randrange(max(1, len(stream) - length - 1))
        return np.asarray(stream[start : start + length + 1], dtype=np.int64)

    def draw(self, stage: Stage, step: int) -> list[tuple[Tensor, Tensor]]:
        """The micro-batches of one step: tokens `[rows, length + 1]`, and which of them are trained on, bool of the same shape."""
        rng = random.Random(f"{stage}.{step}")
        (length,) = rng.choices(list(stage.lengths), list(stage.lengths.values()))
        rows, trained = [], []
        for _ in range(max(1, stage.tokens_per_step // length)):
            first, kind = 0, rng.random()
            if kind < stage.retrieval:
                tokens, first = sample(rng, length + 1, self.streams["books"], self.encode)
                rows.append(np.asarray(tokens))
            elif kind < stage.retrieval + stage.copies:
                tokens, first = copies(rng, length + 1, self.alphabet)
                rows.append(np.asarray(tokens))
            else:
                (name,) = rng.choices(list(MIX), list(MIX.values()))
                rows.append(self.window(name, length, rng))
            trained.append(np.arange(length + 1) >= first)
        per_micro_batch = max(1, MICRO_BATCH_TOKENS // length)
        parts = [slice(i, i + per_micro_batch) for i in range(0, len(rows), per_micro_batch)]
        return [(torch.from_numpy(np.stack(rows[part])), torch.from_numpy(np.stack(trained[part]))) for part in parts]


def loss_of(model: Qwen3ForCausalLM, tokens: Tensor, trained: Tensor) -> Tensor:
    """Mean loss over the `trained` tokens, each predicted from those before it."""
    hidden = model.model(tokens[:, :-1], use_cache=False).last_hidden_state
    return nn.functional.cross_entropy(model.lm_head(hidden[trained[:, 1:]]), tokens[:, 1:][trained[:, 1:]])


@torch.no_grad()
def validate(model: Qwen3ForCausalLM, batches: Batches) -> dict[str, float]:
    """Held-out loss per source in nats a token, and the share of retrieval answers' digits that are predicted."""
    losses = {}
    for name in ("gsm8k", "math", "python_chat", "instructions", "books"):
        rng = random.Random(name)
        tokens = torch.from_numpy(np.stack([batches.window(name, 512, rng) for _ in range(6)]))
        losses[name] = loss_of(model, tokens, torch.ones_like(tokens, dtype=torch.bool)).item()
    for length in (512, 2048):
        rng = random.Random(length)
        rows = torch.tensor([sample(rng, length, batches.streams["books"], batches.encode)[0] for _ in range(8)])
        hits = model.model(rows[:, :-1], use_cache=False).last_hidden_state[:, -100:]
        hits = model.lm_head(hits).argmax(-1) == rows[:, -100:]
        digits = torch.tensor([batches.encode(str(d))[0] for d in range(10)])
        # Answers start after the first "assistant"; digits in questions do not occur, so every digit there belongs to an answer.
        marker = batches.encode("assistant")[0]
        answer = torch.stack([(row == marker).cumsum(0) > 0 for row in rows[:, -100:]]) & torch.isin(rows[:, -100:], digits)
        losses[f"digits@{length}"] = (hits & answer).sum().item() / max(1, answer.sum().item())
    return losses


def train(
    corpus: Path, out: Path, stages: tuple[Stage, ...], start_from: Path | None, resume: bool, save_every: int, validate_every: int
) -> None:
    batches, held_out = Batches(corpus, "train"), Batches(corpus, "valid")
    checkpoint = out / "checkpoint"
    start_stage, start_step = 0, 0
    if resume:
        state = json.loads((checkpoint / "state.json").read_text())
        start_stage, start_step = state["stage"], state["step"]
    out.mkdir(parents=True, exist_ok=True)
    total_steps = sum(stage.num_steps for stage in stages)
    steps_before = sum(stage.num_steps for stage in stages[:start_stage])
    model = build_model(stages[start_stage].num_layers)
    if start_from is not None:
        model.load_state_dict(Qwen3ForCausalLM.from_pretrained(start_from, dtype=torch.float32).state_dict())
    optimizers = muon_and_adamw(model, muon_lr=MUON_LR, adamw_lr=ADAMW_LR)
    if resume:
        load_checkpoint(checkpoint, model, optimizers)
    with (out / "log.jsonl").open("a" if resume else "w") as log:
        for stage_index in range(start_stage, len(stages)):
            stage = stages[stage_index]
            if stage.num_layers != model.config.num_hidden_layers:
                model = stacked(model, stage.num_layers)
                optimizers = muon_and_adamw(model, muon_lr=MUON_LR, adamw_lr=ADAMW_LR)
            for step in range(start_step if stage_index == start_stage else 0, stage.num_steps):
                began = time.perf_counter()
                factor = warmup_stable_decay(steps_before + step, total_steps, decay=DECAY_SHARE)
                for optimizer, rate in zip(optimizers, (MUON_LR, ADAMW_LR), strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = rate * factor
                micro_batches = batches.draw(stage, step)
                loss = 0.0
                for tokens, trained in micro_batches:
                    part = loss_of(model, tokens, trained) / len(micro_batches)
                    part.backward()  # type: ignore[no-untyped-call]
                    loss += part.item()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                record = {"stage": stage_index, "step": step, "loss": round(loss, 4), "seconds": round(time.perf_counter() - began, 2)}
                last = step + 1 == stage.num_steps
                if (step + 1) % validate_every == 0 or last:
                    record["valid"] = {name: round(value, 4) for name, value in validate(model, held_out).items()}
                log.write(json.dumps(record) + "\n")
                log.flush()
                if (step + 1) % save_every == 0 or last:
                    save_checkpoint(checkpoint, model, optimizers, {"stage": stage_index, "step": step + 1})
            steps_before += stage.num_steps
    export(model, corpus, out)


def export(model: Qwen3ForCausalLM, corpus: Path, out: Path) -> None:
    """Writes the trained model in bfloat16 with its tokenizer, as `from_pretrained` reads it."""
    model = copy.deepcopy(model).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=0)
    model.save_pretrained(out)
    PreTrainedTokenizerFast.from_pretrained(corpus / "tokenizer").save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=Path("build/tiny"))
    parser.add_argument("--out", type=Path, default=Path("build/tiny/target"))
    parser.add_argument("--schedule", choices=SCHEDULES, default="first")
    parser.add_argument("--start-from", type=Path, help="a trained model whose weights the schedule starts from")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--validate-every", type=int, default=50)
    arguments = parser.parse_args()
    stages = SCHEDULES[arguments.schedule]
    train(arguments.corpus, arguments.out, stages, arguments.start_from, arguments.resume, arguments.save_every, arguments.validate_every)


if __name__ == "__main__":
    main()
