"""Fixtures: random models small enough to be built on the spot, one per supported architecture, with a byte-level tokenizer.

Weights are drawn wide, so that the choices of a random model lie far enough apart for float32 to decide them the same way every time.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="hoarfrost-tests-")  # nothing of a test is kept
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from hoarfrost.kernels import instruction_sets, use_instruction_set, use_instruction_set_of_environment

atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
torch.set_float32_matmul_precision("highest")  # an environment may ask for TF32, which does not tell near choices apart
settings.register_profile("hoarfrost", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile("hoarfrost")

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"]
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(SPECIAL_TOKENS + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(architecture: str, **changes: object) -> PreTrainedConfig:
    shared: dict[str, object] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.25,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    shared.update(changes)
    if architecture == "llama":
        return LlamaConfig(**shared)
    if architecture == "mistral":
        return MistralConfig(sliding_window=None, head_dim=8, **shared)
    if architecture == "qwen2":
        return Qwen2Config(**shared)
    if architecture == "qwen3":
        return Qwen3Config(head_dim=16, **shared)
    return Qwen3MoeConfig(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, decoder_sparse_step=1, **shared)


def save_random_model(folder: Path, config: PreTrainedConfig, seed: int = 0) -> str:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=instruction_sets())
def each_instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tests of a module that uses it run under every instruction set of the processor; matrices made before keep theirs."""
    use_instruction_set(request.param)
    yield request.param
    use_instruction_set_of_environment()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Gives the folder of a random model of an architecture, built once per session."""
    made: dict[str, str] = {}

    def folder(architecture: str) -> str:
        if architecture not in made:
            made[architecture] = save_random_model(tmp_path_factory.mktemp(architecture), tiny_config(architecture))
        return made[architecture]

    return folder
