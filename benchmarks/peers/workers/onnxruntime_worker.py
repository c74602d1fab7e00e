"""onnxruntime-genai: plain greedy decoding with weights from its own model builder, which has float32 but no bfloat16 for CPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime_genai
from protocol import Answer, Job, Stopwatch, convert_once, serve


def load(job: Job) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]:
    folder = convert_once(job.cache / "float32", lambda path: build(job.model, path))
    config = onnxruntime_genai.Config(str(folder))
    threads = {"intra_op_num_threads": job.num_threads, "inter_op_num_threads": 1}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    model = onnxruntime_genai.Model(config)

    def decode(request: dict[str, Any]) -> Answer:
        stopwatch = Stopwatch()
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(do_sample=False, max_length=len(request["prompt_ids"]) + request["max_new_tokens"])
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(request["prompt_ids"])
        while not generator.is_done():
            generator.generate_next_token()
            stopwatch.arrive(int(generator.get_next_tokens()[0]))
        return stopwatch.answer()

    names = ("onnxruntime-genai", "onnxruntime")
    return {"versions": {name: version(name) for name in names}, "dtype": "float32"}, decode


def build(model: Path, out: Path) -> None:
    builder = (sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", model, "-o", out, "-p", "fp32", "-e", "cpu")
    subprocess.run(builder, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    serve(load)
