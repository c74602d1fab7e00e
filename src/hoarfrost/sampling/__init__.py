"""Choosing tokens from logits and ending outputs: pure functions and small states that know no model."""

from hoarfrost.sampling.distribution import BestTokens, Chooser, best_rows, choose_greedy_rows, likeliest_rows, not_finite, probabilities
from hoarfrost.sampling.noise import gumbel_noise, gumbel_noise_plain, gumbel_noise_range, noise_bits_plain
from hoarfrost.sampling.params import SamplingParams
from hoarfrost.sampling.stopping import Emission, RepetitionDetector, StopChecker
from hoarfrost.sampling.text import Detokenizer

__all__ = [
    "BestTokens",
    "Chooser",
    "Detokenizer",
    "Emission",
    "RepetitionDetector",
    "SamplingParams",
    "StopChecker",
    "best_rows",
    "choose_greedy_rows",
    "gumbel_noise",
    "gumbel_noise_plain",
    "gumbel_noise_range",
    "likeliest_rows",
    "noise_bits_plain",
    "not_finite",
    "probabilities",
]
