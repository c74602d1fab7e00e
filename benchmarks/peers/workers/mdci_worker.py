"""Runs the published index of IceCache (M-DCI): compiles it from its source, then builds and searches as it is asked.

Requests: `{"keys": FILE, "interval": n}` builds one tree per head of `[heads, keys, dim]` (float32, .npy) and answers `{"build_ms": b}`,
per head. `interval` is that of the anchors whose parents stand in for those of the keys between them; 0: all get their nearest parent.
`{"queries": FILE, "num_pages": n}` asks the last trees for `[heads, query heads, dim]` and answers `{"query_ms": q, "rows": [...]}`: the
time per head, of all its query heads, with nothing of the trees in the caches; and per head and query head the keys in the pages found.

Parameters are those of IceCache. Trees are never taken down: the library's own way of doing so crashes.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy_openblas32
from protocol import Answer, converse

SOURCES = ("py_dci", "dci", "util", "debug", "hashtable_i", "hashtable_d", "btree_i", "btree_p", "hashtable_p", "hashtable_pp", "stack")
BLAS = ("cblas_sdot", "cblas_sgemv", "sgemm_", "sgemv_", "ssyrk_")  # scipy's OpenBLAS has these behind a prefix
ANCHORS_EACH_SIDE, ANCHOR_THRESHOLD = 30, 0.9
PROMOTION = 0.01, 0.2
BUILD_FIELD_OF_VIEW, LEAST_FIELD_OF_VIEW, SEARCH_RATIO, SEARCH_SHARE = 30, 30, 1e-3, 0.8
EVICTION_FLOATS = 32 << 20


def compile_index(source: Path) -> None:
    """As the package's own set-up does it, next to its Python files."""
    blas = Path(scipy_openblas32.get_lib_dir())
    includes = [source / "include", np.get_include(), sysconfig.get_paths()["include"], scipy_openblas32.get_include_dir()]
    library = source / "dciknn" / f"_dci{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = ["cc", "-shared", "-fPIC", "-O3", "-std=gnu99", "-march=core-avx2", "-fopenmp", "-DUSE_OPENMP"]
    command += [f"-D{name}=scipy_{name}" for name in BLAS] + [f"-I{folder}" for folder in includes]
    command += [str(source / "src" / f"{name}.c") for name in SOURCES]
    command += ["-o", str(library), f"-L{blas}", f"-l{scipy_openblas32.get_library()}", f"-Wl,-rpath,{blas}", "-lm", "-lgomp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])


class PublishedIndex:
    """The trees of one layer, as IceCache makes them."""

    def __init__(self, make_index: Any) -> None:
        self._make_index, self._built, self._num_keys = make_index, [], 0

    def answer(self, request: dict[str, Any]) -> Answer:
        return self.build(np.load(request["keys"]), request["interval"]) if "keys" in request else self.search(request)

    def build(self, keys: np.ndarray, interval: int) -> Answer:
        num_heads, self._num_keys, dim = keys.shape
        flat = np.array(keys.reshape(-1, dim))
        index = self._make_index(dim, 1, 1, *PROMOTION, num_points=self._num_keys, transform=True, num_inst=num_heads, parallel_level=1)
        self._built.append((index, flat))
        mask = np.ones(len(flat), bool)
        began = time.perf_counter()
        index.add_query_at_end(
            flat, np.zeros((num_heads, dim), np.float32), flat, mask,
            num_points=self._num_keys, c_field_of_view=BUILD_FIELD_OF_VIEW, c_prop_to_retrieve=1.0, c_prop_to_visit=1.0, num_neighbours=1,
            transform=True, parallel_level=1, random=False, do_query=False, interval=interval, X=ANCHORS_EACH_SIDE,
            anchor_threshold=ANCHOR_THRESHOLD,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        return {"build_ms": 1e3 * seconds / num_heads}

    def search(self, request: dict[str, Any]) -> Answer:
        queries, wanted = np.load(request["queries"]), request["num_pages"]
        num_heads, group, dim = queries.shape
        index, _ = self._built[-1]
        flat, mask = np.array(queries.reshape(-1, dim)), np.ones(num_heads * group, bool)
        np.zeros(EVICTION_FLOATS, np.float32)[:] = 1.0  # whatever the caches hold is overwritten
        began = time.perf_counter()
        found, num_found = index.query(
            flat, mask, num_neighbours=wanted, field_of_view=max(int(SEARCH_RATIO * self._num_keys), LEAST_FIELD_OF_VIEW),
            prop_to_visit=1.0, prop_to_retrieve=SEARCH_SHARE, parallel_level=1, ratio=group,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        pages_of_keys, _ = index.token2node
        pages = [found[2 * wanted * query : 2 * wanted * query + count] for query, count in enumerate(num_found)]  # best keys behind them
        rows = [np.flatnonzero(np.isin(pages_of_keys[query // group], one)).tolist() for query, one in enumerate(pages)]
        return {"query_ms": 1e3 * seconds / num_heads, "rows": [rows[start : start + group] for start in range(0, len(rows), group)]}


def load() -> tuple[dict[str, Any], Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True, help="a folder with the source of M-DCI; it is compiled there")
    source = parser.parse_args().source
    compile_index(source)
    sys.path.insert(0, str(source))
    index = PublishedIndex(importlib.import_module("dciknn.core").DCI)
    return {"versions": {"numpy": np.__version__, "openblas": scipy_openblas32.__version__}}, index.answer


if __name__ == "__main__":
    converse(load)
