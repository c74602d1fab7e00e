"""Transformers itself: `generate` as it comes, with prompt lookup, and with its own DFlash chain.

The chain runs on transformers' code alone: its only DFlash network, Muse Glimmer's, has the layers of the released DFlash checkpoints under
other names, so a drafter without sliding windows is loaded into that. A candidate selector is left out: a chain of the likeliest tokens of
every position is all it decodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from protocol import Answer, Job, Stopwatch, serve
from safetensors.torch import load_file

PROMPT_LOOKUP_TOKENS = 10  # the number in transformers' own guide
RENAMED = {"fc.weight": "encoder.fc.weight", "hidden_norm.weight": "encoder.output_norm_enc.weight"}


class Arrivals(transformers.generation.BaseStreamer):
    """Hands generated tokens to a stopwatch; the prompt, which `generate` puts first, is no token of the answer."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch, self.has_prompt = stopwatch, False

    def put(self, value: torch.Tensor) -> None:
        if self.has_prompt:
            self.stopwatch.arrive(*value.flatten().tolist())
        self.has_prompt = True

    def end(self) -> None:
        pass


def load(job: Job) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]:
    torch.set_num_threads(job.num_threads)
    dtype = getattr(torch, job.dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)
    options: dict[str, dict[str, Any]] = {"ar": {}, "lookup": {"prompt_lookup_num_tokens": PROMPT_LOOKUP_TOKENS}}
    notes = {}
    if job.drafter is not None:
        try:
            options["chain"] = {"assistant_model": load_drafter(job.drafter, dtype), "speculation_type": "dflash"}
        except (KeyError, ValueError, RuntimeError) as error:
            notes["chain"] = f"transformers cannot run this drafter: {error}"

    @torch.inference_mode()
    def decode(request: dict[str, Any]) -> Answer:
        if request["mode"] not in options:
            raise ValueError(notes.get(request["mode"], "no drafter was given"))
        stopwatch = Stopwatch()
        ids = torch.tensor([request["prompt_ids"]])
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            streamer=Arrivals(stopwatch),
            do_sample=False,
            max_new_tokens=request["max_new_tokens"],
            **options[request["mode"]],
        )
        return stopwatch.answer()

    return {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}, "dtype": job.dtype}, decode


def load_drafter(folder: Path, dtype: torch.dtype) -> transformers.PreTrainedModel:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dflash = settings["dflash_config"]
    if "sliding_attention" in settings.get("layer_types", ()):
        raise ValueError("it has sliding windows, which the two implementations treat differently")
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
    config = transformers.MuseGlimmerAssistantConfig(
        **{name: settings[name] for name in (*names, "rms_norm_eps", "max_position_embeddings", "vocab_size", "hidden_act")},
        layer_types=["full_attention"] * settings["num_hidden_layers"],
        rope_parameters={"rope_type": "default", "rope_theta": settings["rope_theta"]},
        block_size=dflash.get("block_size", settings.get("block_size", 16)),
        mask_token_id=dflash["mask_token_id"],
        target_layer_ids=dflash["target_layer_ids"],
    )
    drafter = transformers.MuseGlimmerAssistantModel(config)
    weights = {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
    own = {RENAMED.get(name, name): tensor for name, tensor in weights.items() if not name.startswith("candidate_selector.")}
    drafter.load_state_dict(own)
    return drafter.to(dtype).eval()


if __name__ == "__main__":
    serve(load)
