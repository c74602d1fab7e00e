"""What `generate` was asked for: refuses what draft trees cannot honour, and reads the plain filters out of the processors.

A setting is honoured, or refused with a sentence that names it; none is passed over.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from collections.abc import Sequence as Many
from types import FrameType
from typing import Any

from transformers import GenerationConfig, GenerationMixin
from transformers.generation.logits_process import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hoarfrost.errors import InvalidInput
from hoarfrost.integrations.ice import IceCache
from hoarfrost.sampling.params import MIN_TEMPERATURE

_ONE_BRANCH = "every row is one hypothesis here"
_OTHER_GUESSES = "the guesses come from ddtree's drafter"
_NOT_RECORDED = "the tree is verified in passes that do not line up with tokens, and nothing of them is recorded"
_OWN_STORE = "keys and values are held in a store of hoarfrost's own"

REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "num_beams": ((1,), _ONE_BRANCH),
    "num_beam_groups": ((1,), _ONE_BRANCH),
    "diversity_penalty": ((0.0,), _ONE_BRANCH),
    "constraints": ((), _ONE_BRANCH),
    "force_words_ids": ((), _ONE_BRANCH),
    "penalty_alpha": ((0.0,), "contrastive search is another way of decoding"),
    "dola_layers": ((), "contrasting layers is another way of decoding"),
    "prompt_lookup_num_tokens": ((), _OTHER_GUESSES),
    "assistant_early_exit": ((), _OTHER_GUESSES),
    "assistant_model": ((), _OTHER_GUESSES),
    "use_mtp": ((False,), _OTHER_GUESSES),
    "speculation_type": ((), _OTHER_GUESSES),
    "output_attentions": ((False,), _NOT_RECORDED),
    "output_hidden_states": ((False,), _NOT_RECORDED),
    "use_cache": ((True,), "drafting needs the past"),
    "cache_implementation": (("dynamic",), _OWN_STORE),
    "cache_config": ((), _OWN_STORE),
    "max_cache_len": ((), _OWN_STORE),
    "prefill_chunk_size": ((), "how prompts are cut is the engine's to say"),
    "compile_config": ((), "nothing is compiled"),
    "synced_gpus": ((False,), "passes are not synchronised between processes"),
}
"""Setting -> the values besides None that ask for nothing, and why other values are refused."""

HONOURED = frozenset(
    """max_length max_new_tokens min_length min_new_tokens max_time stop_strings do_sample temperature top_k top_p min_p top_h typical_p
    epsilon_cutoff eta_cutoff repetition_penalty encoder_repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    renormalize_logits forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens sequence_bias token_healing guidance_scale watermarking_config num_return_sequences output_scores output_logits
    return_dict_in_generate pad_token_id bos_token_id eos_token_id""".split()
)
"""Fields of the generation config that are honoured here, or by transformers before it calls (which refuses `stop_strings`)."""

WITHOUT_EFFECT = frozenset(
    """early_stopping length_penalty low_memory decoder_start_token_id is_assistant num_assistant_tokens num_assistant_tokens_schedule
    assistant_confidence_threshold max_matching_ngram_size assistant_lookbehind target_lookbehind assistant_ensemble_weight disable_compile
    continuous_batching_config _from_model_config transformers_version""".split()
)
"""Fields that say nothing to stock greedy decoding and sampling either: they tune what `REFUSED` switches on."""

_READ_FROM_MODEL_INPUTS = {"attention_mask", "position_ids", "past_key_values", "logits_to_keep", *REFUSED}
# In the order in which transformers and `SamplingParams` apply them.
_FILTERS: dict[type, str] = {
    TemperatureLogitsWarper: "temperature",
    TopKLogitsWarper: "top_k",
    TopPLogitsWarper: "top_p",
    MinPLogitsWarper: "min_p",
}


def refuse_unsupported(config: GenerationConfig, model_inputs: Mapping[str, Any], dropped: Mapping[str, Any]) -> None:
    """Raises `InvalidInput` for the first setting that cannot be honoured: in the generation config, among the inputs that `generate`
    would hand to the model, or among the arguments that it drops (see `dropped_arguments`)."""
    asked = {**{name: getattr(config, name, None) for name in REFUSED}, **model_inputs, **dropped}
    for name, (neutral, reason) in REFUSED.items():
        value = asked.get(name)
        if value is not None and value not in neutral:
            shown = repr(value) if isinstance(value, (bool, int, float, str)) else type(value).__name__
            raise InvalidInput(f"{name}={shown} cannot be combined with ddtree: {reason}. Leave it out, or leave out custom_generate.")
    for name in unknown_fields():
        if getattr(config, name) not in (None, GenerationConfig._get_default_generation_params().get(name)):
            raise InvalidInput(f"{name} is new in transformers and not known to ddtree; leave it out, or leave out custom_generate.")
    foreign = [name for name, value in model_inputs.items() if value is not None and name not in _READ_FROM_MODEL_INPUTS]
    if foreign:
        raise InvalidInput(f"{foreign[0]} cannot be combined with ddtree, which decodes from input_ids and attention_mask alone.")
    cache = model_inputs.get("past_key_values")
    if isinstance(cache, IceCache):
        raise InvalidInput(
            "An IceCache cannot be combined with ddtree, which keeps keys and values in a store of its own; "
            "for draft trees over few rows use Engine.load(model, cache=IceConfig(...)), or leave out custom_generate."
        )
    if cache is not None and cache.get_seq_length() > 0:
        raise InvalidInput(
            "past_key_values holds tokens already, and a drafter cannot read what it needs of them out of a cache; "
            "pass the whole conversation as input_ids and no cache."
        )


def unknown_fields() -> set[str]:
    """Fields of the installed transformers' generation config that no table here knows."""
    return set(GenerationConfig().to_dict()) - HONOURED - WITHOUT_EFFECT - REFUSED.keys()  # type: ignore[no-untyped-call]


def dropped_arguments(caller: FrameType | None) -> dict[str, Any]:
    """Arguments that `generate` (the frame `caller`) was given and, for callables, neither hands on nor mentions.

    Its local variables are the only place where they can still be seen; for any other caller nothing is known.
    """
    if caller is None or caller.f_code is not inspect.unwrap(GenerationMixin.generate).__code__:
        return {}
    variables = caller.f_locals
    return {name: variables.get(name) for name in ("streamer", "assistant_model", "synced_gpus")}


def plain_filters(processors: Many[Any], do_sample: bool) -> dict[str, Any] | None:
    """The processors as fields of `SamplingParams`, or None if they are more than its filters, in its order."""
    if not do_sample:
        return None if processors else {}
    kinds = [type(processor) for processor in processors]
    ranks = [list(_FILTERS).index(kind) if kind in _FILTERS else len(_FILTERS) for kind in kinds]
    if len(_FILTERS) in ranks or any(before >= after for before, after in itertools.pairwise(ranks)):
        return None
    found = {_FILTERS[kind]: getattr(processor, _FILTERS[kind]) for kind, processor in zip(kinds, processors, strict=True)}
    fields = {"temperature": 1.0, **found}
    usual = all(getattr(one, "filter_value", -float("inf")) == -float("inf") for one in processors)
    usual = usual and all(getattr(one, "min_tokens_to_keep", 1) == 1 for one in processors)
    return fields if usual and fields["temperature"] >= MIN_TEMPERATURE and fields.get("top_p", 1.0) > 0 else None
