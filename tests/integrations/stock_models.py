"""Stock transformers models and calls of `generate` on them, plain and with trees, for the tests of the integration."""

from __future__ import annotations

from typing import Any

import torch
from integrations.knowing_drafter import KnowingDrafter
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from hoarfrost.integrations.transformers import TreeGeneration, ddtree

PAD = 0
ROWS = [[10, 50, 90, 130], [200, 11, 12, 13, 14, 15, 16], [77]]


def load_stock(folder: str, attention: str = "sdpa", device: str = "cpu") -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    return model.to(device)


def one_row(index: int = 0) -> dict[str, Tensor]:
    ids = torch.tensor([ROWS[index]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded_batch() -> dict[str, Tensor]:
    width = max(map(len, ROWS))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in ROWS])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ROWS])
    return {"input_ids": ids, "attention_mask": mask}


def knowing(model: PreTrainedModel, inputs: dict[str, Tensor], answers: Tensor, **options: Any) -> TreeGeneration:
    """ddtree with a drafter that knows `answers [B, L + n]`, the outcome of a call with `inputs`."""
    padding = (inputs["attention_mask"] == 0).sum(-1)
    copies = len(answers) // len(padding)
    known = [answer[int(padding[index // copies]) :].tolist() for index, answer in enumerate(answers)]
    return ddtree(KnowingDrafter(model.config.vocab_size, known, model.device), **{"budget": 12, **options})


def both_ways(model: PreTrainedModel, inputs: dict[str, Tensor], **settings: Any) -> tuple[Tensor, Tensor, TreeGeneration]:
    """The sequences of stock greedy generation, those with trees, and what decoded them; inputs go to the model's device."""
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    settings = {"do_sample": False, "max_new_tokens": 16, "pad_token_id": PAD, **settings}
    expected = model.generate(**inputs, **settings)
    trees = knowing(model, inputs, expected, independent_rows=True)
    return expected, model.generate(**inputs, **settings, custom_generate=trees), trees
