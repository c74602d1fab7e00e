"""Recognises drafters of other conventions, so that they are refused by name instead of drafting nonsense.

Their tensors often fit a DFlash network exactly while slots or layers mean something else: the output would stay right, and nearly every
guess would be rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hoarfrost.errors import InvalidInput


@dataclass(frozen=True)
class Convention:
    """One kind of drafter: how it is told (config keys after merging `dflash_config`, parts of tensor names) and what to say about it."""

    name: str
    what: str
    architectures: tuple[str, ...] = ()
    config: Callable[[Mapping[str, Any]], bool] = lambda config: False
    tensors: tuple[str, ...] = ()

    def matches(self, config: Mapping[str, Any], tensor_names: Collection[str]) -> bool:
        architectures = config.get("architectures")
        named = [str(config.get("model_type", "")), *(map(str, architectures) if isinstance(architectures, list) else ())]
        return (
            any(mark.lower() in name.lower() for mark in self.architectures for name in named)
            or self.config(config)
            or any(mark in name for mark in self.tensors for name in tensor_names)
        )


def _any_of(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda config: any(config.get(key) for key in keys)


def _samples_from_anchor(config: Mapping[str, Any]) -> bool:
    """DeepSpec's DFlash configs do not say so themselves; their Markov head of rank 0, which nobody else mentions, gives them away."""
    return bool(config.get("sample_from_anchor")) or config.get("markov_rank") == 0


# The first match is reported, so the more special ones come first.
CONVENTIONS = (
    Convention(
        "speculators",
        "tap ids are one too high, a table t2d comes with its reduced vocabulary, and config.json nests the layers' settings",
        architectures=("Speculator",),
        config=_any_of("speculators_model_type", "speculators_config", "aux_hidden_state_layer_ids", "eagle_aux_hidden_state_layer_ids"),
        tensors=("t2d", "verifier_"),
    ),
    Convention(
        "Domino",
        "a recurrent (GRU) head corrects its logits, and slots may be shifted by one (shift_label)",
        architectures=("Domino",),
        config=lambda config: config.get("projector_type") == "domino" or _any_of("shift_label", "gru_hidden_dim")(config),
        tensors=("prefix_gru.", "embed_proj."),
    ),
    Convention(
        "DSpark",
        "a Markov head corrects its logits, a confidence head cuts its blocks, and slot 0 guesses too",
        config=lambda config: config.get("projector_type") == "dspark" or _any_of("markov_rank", "enable_confidence_head")(config),
        tensors=("markov", "confidence_head."),
    ),
    Convention(
        "DeepSpec (sample from anchor)",
        "slot 0 guesses too, so that every guess would stand one position off",
        architectures=("DSpark",),
        config=_samples_from_anchor,
    ),
    Convention(
        "EAGLE",
        "it drafts token by token with a head of its own",
        architectures=("Eagle",),
        tensors=("midlayer.",),
    ),
    Convention(
        "Muse Glimmer assistant (transformers' own DFlash class)",
        "its context projection has other tensor names and its sliding window counts one position more",
        architectures=("muse_glimmer",),
        tensors=("encoder.output_norm_enc.",),
    ),
)


def refuse_foreign(config: Mapping[str, Any], tensor_names: Collection[str], where: str) -> None:
    """Raises `InvalidInput` if `config.json` or the tensor names of the checkpoint `where` belong to another convention."""
    nested = config.get("dflash_config")
    merged = {**config, **(nested if isinstance(nested, Mapping) else {})}
    for convention in CONVENTIONS:
        if convention.matches(merged, tensor_names):
            raise InvalidInput(
                f"{where} is a drafter of the {convention.name} kind: {convention.what}. Only drafters in the released layouts of "
                "DFlash and DFlash 2 are supported; take one of those (for example z-lab/Qwen3-8B-DFlash-b16 for Qwen3-8B), or train one: "
                "hoarfrost train drafter."
            )
