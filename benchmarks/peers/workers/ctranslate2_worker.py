"""CTranslate2: plain greedy decoding with weights from its own converter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import ctranslate2
from ctranslate2.converters import TransformersConverter
from protocol import Answer, Job, Stopwatch, convert_once, serve


def load(job: Job) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]:
    dtype = job.dtype if job.dtype in ctranslate2.get_supported_compute_types("cpu") else "float32"
    converter = TransformersConverter(str(job.model))
    folder = convert_once(job.cache / dtype, lambda path: converter.convert(str(path), quantization=dtype))
    generator = ctranslate2.Generator(str(folder), device="cpu", compute_type=dtype, intra_threads=job.num_threads, inter_threads=1)
    tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))

    def decode(request: dict[str, Any]) -> Answer:
        stopwatch = Stopwatch()
        generator.generate_batch(
            [[tokens[token_id] for token_id in request["prompt_ids"]]],
            max_length=request["max_new_tokens"],
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=lambda step: stopwatch.arrive(step.token_id),
        )
        return stopwatch.answer()

    return {"versions": {"ctranslate2": ctranslate2.__version__}, "dtype": generator.compute_type}, decode


if __name__ == "__main__":
    serve(load)
