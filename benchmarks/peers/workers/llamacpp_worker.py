"""llama.cpp, from the `xllamacpp` wheel: plain greedy decoding by its server, with the GGUF file that is given or one written here.

The server runs inside this process and its times are its own: what HTTP and JSON cost is left out, in its favour. Keys and values are kept
in the type of the weights; for a file that is given everything is as llama.cpp has it by default (float16, flash attention).
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xllamacpp
from gguf_export import export
from protocol import Answer, Job, convert_once, serve

GREEDY = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"]}


def load(job: Job) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]:
    is_given = job.model.suffix == ".gguf"
    path = job.model if is_given else convert_once(job.cache / f"{job.dtype}.gguf", lambda path: export(job.model, path, job.dtype))
    server = xllamacpp.Server(make_params(job, path))

    def decode(request: dict[str, Any]) -> Answer:
        body = {
            "prompt": request["prompt_ids"],
            "n_predict": request["max_new_tokens"],
            **GREEDY,
            "cache_prompt": False,
            "return_tokens": True,
        }
        headers = {"Content-Type": "application/json"}
        call = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(call) as response:
            said = json.load(response)
        timings = said["timings"]
        return {
            "token_ids": said["tokens"],
            "num_first": 1,
            "prefill_seconds": timings["prompt_ms"] / 1000,
            "seconds": timings["predicted_ms"] / 1000,
        }

    return {"versions": {"xllamacpp": version("xllamacpp"), "gguf": version("gguf")}, "dtype": path.name if is_given else job.dtype}, decode


def make_params(job: Job, path: Path) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job.num_threads
    if path == job.model:
        return params
    params.n_ctx = json.loads((job.model / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    kind = xllamacpp.ggml_type.GGML_TYPE_BF16 if job.dtype == "bfloat16" else xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_k = params.cache_type_v = kind
    if job.dtype == "float32":  # with it a random Llama's tokens differed from those of three float32 engines, without it they agreed
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params


if __name__ == "__main__":
    serve(load)
