"""A random target of hidden size 32 with a word tokenizer, and drafters for it: everything the training tests train."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from hoarfrost.drafting import DFlashConfig, DFlashModel
from hoarfrost.target import Target
from hoarfrost.training.data import TrainingSequence

VOCAB_SIZE, HIDDEN_SIZE, NUM_LAYERS, TAPS = 64, 32, 4, (0, 2)
END, START, STOP, MASK = range(4)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<start> ' + message['content'] + ' <stop> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start> ' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    names = ["<end>", "<start>", "<stop>", "<|mask|>", *(f"w{index}" for index in range(4, VOCAB_SIZE))]
    plain = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="w4"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    plain.add_special_tokens(names[:4])
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<stop>", pad_token="<end>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def target_model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=48,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=STOP,
        pad_token_id=END,
    )
    return Qwen3ForCausalLM(config).eval().requires_grad_(False)


def target() -> Target:
    return Target(target_model(), tokenizer(), "random")


def save_target(folder: Path) -> str:
    target_model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def drafter(block_size: int = 5, seed: int = 0, **changes: object) -> DFlashModel:
    """A drafter with weights wide enough that everything it sees shows in its output."""
    values: dict[str, object] = {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": VOCAB_SIZE,
        "mask_token_id": MASK,
        "target_layer_ids": TAPS,
        "num_target_layers": NUM_LAYERS,
        "block_size": block_size,
    }
    torch.manual_seed(seed)
    model = DFlashModel(DFlashConfig(**{**values, **changes}))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
    return model


def sequence(length: int, num_prompt_tokens: int, seed: int = 0) -> TrainingSequence:
    generator = random.Random(seed)
    return TrainingSequence(tuple(generator.randrange(4, VOCAB_SIZE) for _ in range(length)), num_prompt_tokens)
