"""Trains the `tiny` target on the tokens that `corpus.py` wrote. Interrupt it at will: `--resume` goes on from the last checkpoint.

python recipes/tiny/pretrain.py --corpus build/tiny --out build/tiny/target
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from corpus import VOCAB_SIZE
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from hoarfrost.training.checkpoint import load_checkpoint, save_checkpoint
from hoarfrost.training.optimizers import muon_and_adamw, warmup_stable_decay

WINDOW, WINDOWS_PER_STEP = 256, 16
MUON_LR, ADAMW_LR = 0.02, 0.005
DECAY_SHARE = 0.5  # of the steps: with so few tokens the rate has to fall early
SAVE_EVERY = 50  # steps


def build_model() -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=8192,
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


def draw(stream: np.ndarray, step: int) -> Tensor:
    """Windows `[WINDOWS_PER_STEP, WINDOW + 1]` from random places of `stream`."""
    starts = np.random.default_rng(step).integers(len(stream) - WINDOW, size=WINDOWS_PER_STEP)
    return torch.from_numpy(np.stack([stream[start : start + WINDOW + 1] for start in starts]).astype(np.int64))


def loss_of(model: Qwen3ForCausalLM, tokens: Tensor) -> Tensor:
    """Mean loss in nats a token, each predicted from those before it."""
    logits = model(tokens[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


@torch.no_grad()
def validate(model: Qwen3ForCausalLM, stream: np.ndarray) -> float:
    return float(np.mean([loss_of(model, draw(stream, step)).item() for step in range(4)]))


def train(corpus: Path, out: Path, num_steps: int, resume: bool) -> None:
    stream, held_out = np.load(corpus / "train.npy"), np.load(corpus / "valid.npy")
    model = build_model()
    rates = (MUON_LR, ADAMW_LR)
    optimizers = muon_and_adamw(model, muon_lr=MUON_LR, adamw_lr=ADAMW_LR)
    first = load_checkpoint(out / "checkpoint", model, optimizers)["step"] if resume else 0
    began = time.perf_counter()
    for step in range(first, num_steps):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * warmup_stable_decay(step, num_steps, decay=DECAY_SHARE)
        loss = loss_of(model, draw(stream, step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == num_steps:
            save_checkpoint(out / "checkpoint", model, optimizers, {"step": step + 1})
            record = {"step": step + 1, "loss": loss.item(), "held_out": validate(model, held_out), "seconds": time.perf_counter() - began}
            print(json.dumps({name: round(value, 3) for name, value in record.items()}), flush=True)
    export(model, corpus, out)


def export(model: Qwen3ForCausalLM, corpus: Path, out: Path) -> None:
    """Writes the trained model in bfloat16 with its tokenizer, as `from_pretrained` reads it.

    Its logits are doubled: predictions of so small a model are so flat that hardly a guess would be right at temperature 1.
    """
    model.to(torch.bfloat16)
    model.model.norm.weight.data *= 2
    model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=0)
    model.save_pretrained(out)
    PreTrainedTokenizerFast.from_pretrained(corpus / "tokenizer").save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=Path("build/tiny"))
    parser.add_argument("--out", type=Path, default=Path("build/tiny/target"))
    parser.add_argument("--num-steps", type=int, default=400)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    train(arguments.corpus, arguments.out, arguments.num_steps, arguments.resume)


if __name__ == "__main__":
    main()
