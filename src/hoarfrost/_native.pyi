"""Types of the C++ kernels; `hoarfrost.kernels` wraps them with checks and documents them. Sources: native/ in the repository."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Matrix = TypeVar("_Matrix")
_Layer = TypeVar("_Layer")
_Bits = TypeVar("_Bits", bound=np.generic)

_Logits = tuple[int, int, int, int, bool]
_Candidates = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32] | None]
_Tree = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint64], NDArray[np.float32]]

class TreeHints:
    def __init__(
        self,
        calibration: NDArray[np.float32] | None = None,
        table: SuccessorTable | None = None,
        repetition: Repetition | None = None,
        shares: SourceShares | None = None,
        max_depth: int = 0,
        noise: tuple[int, int] | None = None,
    ) -> None: ...

def instruction_sets() -> list[str]: ...
def noise_bits(seed: int, position: int, token_ids: NDArray[np.int64], instruction_set: str | None = None) -> NDArray[np.uint64]: ...
def gumbel_noise(seed: int, position: int, token_ids: NDArray[np.int64], instruction_set: str | None = None) -> NDArray[np.float32]: ...
def gumbel_noise_range(seed: int, position: int, vocab_size: int, instruction_set: str | None = None) -> NDArray[np.float32]: ...
def gumbel_noise_rows(
    seed: int, first_position: int, token_ids: NDArray[np.int64], instruction_set: str | None = None
) -> NDArray[np.float32]: ...
def judge_walk(
    log_probs: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    places: NDArray[np.int32] | None,
    chosen: NDArray[np.int64],
    width: int,
    parameters: NDArray[np.float32] | None,
    information: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]: ...
def best_with_noise(
    logits: _Logits, temperature: float, seed: int, first_position: int, k: int, num_threads: int, instruction_set: str | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
def best_tokens(logits: _Logits, num_threads: int, instruction_set: str | None = None) -> NDArray[np.int64]: ...

class Repetition:
    MAX_PATH: int
    def __init__(self) -> None: ...
    def extend(self, token_ids: Sequence[int]) -> None: ...
    def longest_match(self) -> tuple[int, int]: ...
    def path(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...

class SuccessorTable:
    def __init__(self, vocab_size: int, width: int, bounds: Sequence[float]) -> None: ...
    def remember(self, token_ids: NDArray[np.int64], best: NDArray[np.int64], log_probs: NDArray[np.float32]) -> None: ...
    @property
    def token_ids(self) -> NDArray[np.int32]: ...
    @property
    def grades(self) -> NDArray[np.uint8]: ...

class SourceShares:
    def __init__(self, successors: Sequence[float], paths: Sequence[float], prior_weight: float) -> None: ...
    def observe(
        self,
        table: SuccessorTable,
        repetition: Repetition,
        root: int,
        chosen: Sequence[int],
        left_over: NDArray[np.float64] | None = None,
        is_open: NDArray[np.bool_] | None = None,
    ) -> None: ...
    @property
    def successors(self) -> NDArray[np.float32]: ...
    @property
    def paths(self) -> NDArray[np.float32]: ...

def top_log_probs(
    logits: _Logits, k: int, num_threads: int, instruction_set: str | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
def build_trees(
    candidates: list[_Candidates], bonus_token_ids: list[int], budget: int, has_more: bool, hints: list[TreeHints]
) -> tuple[list[_Tree], list[bool]]: ...
def grow_worthwhile(
    candidates: list[_Candidates], bonus_token_ids: list[int], row_ms: NDArray[np.float64], fixed_ms: float, hints: list[TreeHints]
) -> tuple[list[_Tree], float, float]: ...
def build_trees_from_logits(
    logits: list[_Logits], bonus_token_ids: list[int], budget: int, max_width: int, instruction_set: str | None = None
) -> list[_Tree]: ...
def walk_along(parents: NDArray[np.int32], token_ids: NDArray[np.int64], choices: NDArray[np.int64]) -> tuple[list[int], list[int]]: ...
def walk_with_noise(
    parents: NDArray[np.int32],
    token_ids: NDArray[np.int64],
    logits: _Logits,
    first_row: int,
    temperature: float,
    seed: int,
    first_position: int,
    num_threads: int,
    instruction_set: str | None = None,
) -> tuple[list[int], list[int]]: ...
def attend_pages(
    queries: NDArray[np.float32],
    local_keys: NDArray[np.float32],
    local_values: NDArray[np.float32],
    pool: NDArray[np.float32],
    slots: NDArray[np.int64],
    page_rows: NDArray[np.int32],
    visible: NDArray[np.bool_] | None,
    mean_keys: NDArray[np.float32] | None,
    mean_values: NDArray[np.float32] | None,
    log_counts: NDArray[np.float32] | None,
    scale: float,
    out: NDArray[np.float32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def attend_pages_bfloat16(
    queries: NDArray[np.uint16],
    local_keys: NDArray[np.uint16],
    local_values: NDArray[np.uint16],
    pool: NDArray[np.uint16],
    slots: NDArray[np.int64],
    page_rows: NDArray[np.int32],
    visible: NDArray[np.bool_] | None,
    mean_keys: NDArray[np.float32] | None,
    mean_values: NDArray[np.float32] | None,
    log_counts: NDArray[np.float32] | None,
    scale: float,
    out: NDArray[np.uint16],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...

class _WeightMatrix(Generic[_Bits]):
    def __init__(self, weight: NDArray[_Bits], bias: NDArray[np.float32] | None = None, instruction_set: str | None = None) -> None: ...
    @property
    def num_outputs(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def multiply(self, rows: int, num_rows: int, out: int, num_threads: int) -> None: ...

class MatrixFloat32(_WeightMatrix[np.float32]): ...
class MatrixBFloat16(_WeightMatrix[np.uint16]): ...

class _DecoderLayer(Generic[_Matrix]):
    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        norm_eps: float,
        input_norm: NDArray[np.float32],
        head_norm: NDArray[np.float32] | None,
        post_norm: NDArray[np.float32],
        qkv: _Matrix,
        output: _Matrix,
        gate_up: _Matrix | None,
        down: _Matrix | None,
    ) -> None: ...
    def project(self, hidden: int, num_rows: int, cos: int, sin: int, queries: int, keys: int, values: int, num_threads: int) -> None: ...
    def finish(self, mixed: int, num_rows: int, hidden: int, num_threads: int) -> None: ...
    def finish_attention(self, mixed: int, num_rows: int, hidden: int, normed: int, num_threads: int) -> None: ...

class DecoderLayerFloat32(_DecoderLayer[MatrixFloat32]): ...
class DecoderLayerBFloat16(_DecoderLayer[MatrixBFloat16]): ...

class _DecoderStack(Generic[_Layer, _Bits]):
    def __init__(
        self,
        layers: list[_Layer],
        final_norm: NDArray[np.float32],
        final_eps: float,
        attention_scale: float,
        embedding: NDArray[_Bits],
    ) -> None: ...
    def run(
        self,
        rows: NDArray[np.int64],
        cos: int,
        sin: int,
        num_positions: int,
        segments: list[tuple[int, int, int, int, int, int]],
        taps: list[int],
        features: int,
        out: int,
        num_threads: int,
    ) -> None: ...

class DecoderStackFloat32(_DecoderStack[DecoderLayerFloat32, np.float32]): ...
class DecoderStackBFloat16(_DecoderStack[DecoderLayerBFloat16, np.uint16]): ...

def attend_dense_float32(
    queries: int,
    query_head_stride: int,
    query_row_stride: int,
    keys: int,
    values: int,
    kv_head_stride: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    num_rows: int,
    num_keys: int,
    visible: int,
    is_causal: bool,
    scale: float,
    out: int,
    num_threads: int,
    /,
) -> None: ...
def attend_dense_bfloat16(
    queries: int,
    query_head_stride: int,
    query_row_stride: int,
    keys: int,
    values: int,
    kv_head_stride: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    num_rows: int,
    num_keys: int,
    visible: int,
    is_causal: bool,
    scale: float,
    out: int,
    num_threads: int,
    /,
) -> None: ...
def rms_norm_float32(hidden: int, num_rows: int, weight: int, width: int, eps: float, normed: int, /) -> None: ...
def rms_norm_bfloat16(hidden: int, num_rows: int, weight: int, width: int, eps: float, normed: int, /) -> None: ...
def copy_rows(
    source: int,
    source_head_stride: int,
    source_row_stride: int,
    target: int,
    target_head_stride: int,
    num_heads: int,
    num_rows: int,
    row_bytes: int,
    /,
) -> None: ...
def gather_rows(table: int, num_rows: int, row_bytes: int, rows: Sequence[int], out: int) -> None: ...
def order_transitions(
    log_probs: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    ordered: NDArray[np.float32],
    ordered_ids: NDArray[np.int64],
    places: NDArray[np.int32],
) -> bool: ...

class _DraftLayer(Generic[_Matrix]):
    def __init__(
        self,
        input_norm: NDArray[np.float32],
        head_norm: NDArray[np.float32],
        post_norm: NDArray[np.float32],
        qkv: _Matrix,
        output: _Matrix,
        gate_up: _Matrix,
        down: _Matrix,
        is_causal: bool,
        window: int,
    ) -> None: ...

class DraftLayerFloat32(_DraftLayer[MatrixFloat32]): ...

class _DraftNetwork(Generic[_Matrix, _Layer]):
    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        norm_eps: float,
        block_size: int,
        fusion: _Matrix,
        context_norm: NDArray[np.float32],
        context_key_norm: NDArray[np.float32],
        context_kv: _Matrix,
        layers: list[_Layer],
        norm: NDArray[np.float32],
    ) -> None: ...
    def extend(self, contexts: list[tuple[int, int, int, int]], features: int, cos: int, sin: int, num_threads: int) -> None: ...
    def run(self, contexts: list[tuple[int, int, int, int]], blocks: int, cos: int, sin: int, out: int, num_threads: int) -> None: ...

class DraftNetworkFloat32(_DraftNetwork[MatrixFloat32, DraftLayerFloat32]): ...

def transitions_float32(
    projection: MatrixFloat32,
    predecessors: int,
    successors: int,
    hidden: int,
    marginals: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    bonus_token_ids: list[int],
    log_probs: NDArray[np.float32],
    num_threads: int,
) -> None: ...

class DraftLayerBFloat16(_DraftLayer[MatrixBFloat16]): ...
class DraftNetworkBFloat16(_DraftNetwork[MatrixBFloat16, DraftLayerBFloat16]): ...

def transitions_bfloat16(
    projection: MatrixBFloat16,
    predecessors: int,
    successors: int,
    hidden: int,
    marginals: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    bonus_token_ids: list[int],
    log_probs: NDArray[np.float32],
    num_threads: int,
) -> None: ...
def index_largest_squared_lengths(
    keys: NDArray[np.float32], lengths: NDArray[np.float32], num_threads: int, instruction_set: str | None = None
) -> None: ...
def index_lift_keys(
    keys: NDArray[np.float32],
    squared_radii: NDArray[np.float32],
    direction: NDArray[np.int16],
    lifted: NDArray[np.int16],
    projections: NDArray[np.int32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_search_tree(
    cell_starts: NDArray[np.int32],
    cell_pages: NDArray[np.int32],
    child_cells: NDArray[np.int32],
    projections: NDArray[np.int32],
    page_rows: NDArray[np.int32],
    counts: NDArray[np.int32],
    pool: NDArray[np.float32],
    slots: NDArray[np.int64],
    queries: NDArray[np.float32],
    projected: NDArray[np.int32],
    field_of_view: int,
    scored_share: float,
    batch: int,
    scores: NDArray[np.float32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_largest_squared_lengths_bfloat16(
    keys: NDArray[np.uint16], lengths: NDArray[np.float32], num_threads: int, instruction_set: str | None = None
) -> None: ...
def index_lift_keys_bfloat16(
    keys: NDArray[np.uint16],
    squared_radii: NDArray[np.float32],
    direction: NDArray[np.int16],
    lifted: NDArray[np.int16],
    projections: NDArray[np.int32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_search_tree_bfloat16(
    cell_starts: NDArray[np.int32],
    cell_pages: NDArray[np.int32],
    child_cells: NDArray[np.int32],
    projections: NDArray[np.int32],
    page_rows: NDArray[np.int32],
    counts: NDArray[np.int32],
    pool: NDArray[np.uint16],
    slots: NDArray[np.int64],
    queries: NDArray[np.float32],
    projected: NDArray[np.int32],
    field_of_view: int,
    scored_share: float,
    batch: int,
    scores: NDArray[np.float32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_nearest_pivots(
    points: NDArray[np.int16],
    pivots: NDArray[np.int16],
    nearest: NDArray[np.int32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_sketch_keys(
    keys: NDArray[np.float32],
    centre: NDArray[np.float32],
    flips: NDArray[np.float32],
    coordinate_scale: NDArray[np.float32],
    codes: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    coordinates: NDArray[np.int8],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_sketch_keys_bfloat16(
    keys: NDArray[np.uint16],
    centre: NDArray[np.float32],
    flips: NDArray[np.float32],
    coordinate_scale: NDArray[np.float32],
    codes: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    coordinates: NDArray[np.int8],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_group_similar(
    coordinates: NDArray[np.int8], page_size: int, rows: NDArray[np.int32], num_threads: int, instruction_set: str | None = None
) -> None: ...
def index_lay_out_sketches(
    codes: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    rows: NDArray[np.int32],
    blocks: NDArray[np.uint8],
    placed: NDArray[np.uint16],
    num_threads: int,
) -> None: ...
def index_estimate_log_masses(
    blocks: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    counts: NDArray[np.int32],
    queries: NDArray[np.float32],
    flips: NDArray[np.float32],
    weight: float,
    log_masses: NDArray[np.float32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_page_log_masses(
    pool: NDArray[np.float32],
    slots: NDArray[np.int64],
    counts: NDArray[np.int32],
    pages: NDArray[np.int32],
    queries: NDArray[np.float32],
    log_masses: NDArray[np.float32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_page_log_masses_bfloat16(
    pool: NDArray[np.uint16],
    slots: NDArray[np.int64],
    counts: NDArray[np.int32],
    pages: NDArray[np.int32],
    queries: NDArray[np.float32],
    log_masses: NDArray[np.float32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_search_pages(
    blocks: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    flips: NDArray[np.float32],
    counts: NDArray[np.int32],
    pool: NDArray[np.float32],
    slots: NDArray[np.int64],
    queries: NDArray[np.float32],
    resident: NDArray[np.float32] | None,
    scale: float,
    num_candidates: int,
    chosen: NDArray[np.int32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_search_pages_bfloat16(
    blocks: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    flips: NDArray[np.float32],
    counts: NDArray[np.int32],
    pool: NDArray[np.uint16],
    slots: NDArray[np.int64],
    queries: NDArray[np.float32],
    resident: NDArray[np.float32] | None,
    scale: float,
    num_candidates: int,
    chosen: NDArray[np.int32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
def index_cut_cells(
    rows: NDArray[np.int32],
    cells: NDArray[np.int32],
    num_cells: int,
    projections: NDArray[np.int32],
    pages: NDArray[np.int32],
    owners: NDArray[np.int32],
) -> int: ...
def index_merge_by_rank(scores: NDArray[np.float32], counts: NDArray[np.int32], chosen: NDArray[np.int32]) -> None: ...
def index_total_log_masses(log_masses: NDArray[np.float32], totals: NDArray[np.float32], instruction_set: str | None = None) -> None: ...
def index_rank_pages(
    log_masses: NDArray[np.float32],
    totals: NDArray[np.float32],
    places: NDArray[np.int32],
    num_threads: int,
    instruction_set: str | None = None,
) -> None: ...
