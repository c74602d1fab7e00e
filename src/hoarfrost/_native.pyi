"""
The C++ kernels; hoarfrost.kernels wraps them with checks. An int that stands for an array is its address.
"""

from collections.abc import Sequence
from typing import Annotated, Final, overload

import numpy
from numpy.typing import NDArray

def instruction_sets() -> list[str]:
    """What this processor can run, from the plainest to the best."""

def instruction_set_in_use() -> str:
    """What kernels run where no set is asked for."""

def use_instruction_set(name: str | None) -> None:
    """
    What kernels run from now on where no set is asked for; None: the best again. Matrices that are laid out already stay with theirs.
    """

def noise_bits(
    seed: int,
    position: int,
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    instruction_set: str | None = None,
) -> NDArray[numpy.uint64]:
    """The random bits of tokens at a position."""

def gumbel_noise(
    seed: int,
    position: int,
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    instruction_set: str | None = None,
) -> NDArray[numpy.float32]:
    """Gumbel noise of tokens at a position."""

def gumbel_noise_range(seed: int, position: int, vocab_size: int, instruction_set: str | None = None) -> NDArray[numpy.float32]:
    """Gumbel noise of the whole vocabulary at a position."""

def gumbel_noise_rows(
    seed: int,
    first_position: int,
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    instruction_set: str | None = None,
) -> NDArray[numpy.float32]:
    """Gumbel noise of rows of tokens, one position each."""

def best_with_noise(
    logits: tuple[int, int, int, int, bool],
    temperature: float,
    seed: int,
    first_position: int,
    k: int,
    num_threads: int,
    instruction_set: str | None = None,
) -> tuple[NDArray[numpy.float32], NDArray[numpy.int64]]:
    """
    Scores and ids of the k best tokens of every row, with the noise of its position.
    """

def top_log_probs(
    logits: tuple[int, int, int, int, bool], k: int, num_threads: int, instruction_set: str | None = None
) -> tuple[NDArray[numpy.float32], NDArray[numpy.int64]]:
    """Log-probabilities and ids of the k best tokens of every row."""

def best_tokens(logits: tuple[int, int, int, int, bool], num_threads: int, instruction_set: str | None = None) -> NDArray[numpy.int64]:
    """The best token of every row."""

class TreeHints:
    """What growing one tree may use beside its candidates."""

    def __init__(
        self,
        calibration: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)]
        | None = None,
        table: SuccessorTable | None = None,
        repetition: Repetition | None = None,
        shares: SourceShares | None = None,
        max_depth: int = 0,
        noise: tuple[int, int] | None = None,
    ) -> None: ...

def build_trees(
    candidates: Sequence[
        tuple[
            Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
            Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), device="cpu", writable=False)],
            Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), device="cpu", writable=False)] | None,
        ]
    ],
    bonus_token_ids: Sequence[int],
    budget: int,
    has_more: bool,
    hints: Sequence[TreeHints],
) -> tuple[
    list[tuple[NDArray[numpy.int64], NDArray[numpy.int32], NDArray[numpy.int32], NDArray[numpy.uint64], NDArray[numpy.float32]]], list[bool]
]:
    """
    Likeliest trees of sorted candidates, and which of them needed candidates beyond those given. A tree: (token_ids, parents, depths, ancestors, log_probs).
    """

def grow_worthwhile(
    candidates: Sequence[
        tuple[
            Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
            Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), device="cpu", writable=False)],
            Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), device="cpu", writable=False)] | None,
        ]
    ],
    bonus_token_ids: Sequence[int],
    row_ms: Annotated[NDArray[numpy.float64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    fixed_ms: float,
    hints: Sequence[TreeHints],
) -> tuple[
    list[tuple[NDArray[numpy.int64], NDArray[numpy.int32], NDArray[numpy.int32], NDArray[numpy.uint64], NDArray[numpy.float32]]],
    float,
    float,
]:
    """
    Trees grown together as long as a row is worth its time; with the tokens expected and the milliseconds of the pass.
    """

def build_trees_from_logits(
    logits: Sequence[tuple[int, int, int, int, bool]],
    bonus_token_ids: Sequence[int],
    budget: int,
    max_width: int,
    instruction_set: str | None = None,
) -> list[tuple[NDArray[numpy.int64], NDArray[numpy.int32], NDArray[numpy.int32], NDArray[numpy.uint64], NDArray[numpy.float32]]]:
    """
    Likeliest trees of rows of logits, read as far as the search needs them.
    """

def walk_along(
    parents: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    choices: Annotated[NDArray[numpy.int64], dict(shape=(None,), device="cpu", writable=False)],
) -> tuple[list[int], list[int]]:
    """
    Follows the choices of every row from row 0 on: (rows, tokens) accepted, the last token the new bonus.
    """

def walk_with_noise(
    parents: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    logits: tuple[int, int, int, int, bool],
    first_row: int,
    temperature: float,
    seed: int,
    first_position: int,
    num_threads: int,
    instruction_set: str | None = None,
) -> tuple[list[int], list[int]]:
    """
    The same, where a row's choice is its best token with the noise of its position; only rows on the walk are read.
    """

def judge_walk(
    log_probs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    places: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    chosen: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    width: int,
    parameters: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")] | None,
    information: Annotated[NDArray[numpy.float64], dict(shape=(None, None, None, None), order="C", device="cpu")] | None,
) -> tuple[
    NDArray[numpy.float64], NDArray[numpy.float64], NDArray[numpy.bool_], NDArray[numpy.int64], NDArray[numpy.float64], NDArray[numpy.bool_]
]:
    """
    What a walk says about the guesses on it: (drafted, believed, hits, off_spine, left_over, is_open), row by row.
    """

class Repetition:
    """The tokens so far, and where their end occurred before."""

    def __init__(self) -> None: ...

    MAX_PATH: Final[int] = ...
    """The most tokens that `path` gives."""

    def extend(self, token_ids: Sequence[int]) -> None:
        """Appends tokens."""

    def longest_match(self) -> tuple[int, int]:
        """
        The length of the longest end that occurred before, and where that ended.
        """

    def path(self) -> NDArray[numpy.int64]:
        """The tokens that followed it there."""

    def __len__(self) -> int: ...

class SuccessorTable:
    """
    For every token, the best tokens behind it as they were last seen, with a grade for how likely they were.
    """

    def __init__(self, vocab_size: int, width: int, bounds: Sequence[float]) -> None: ...
    def remember(
        self,
        token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
        best: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
        log_probs: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    ) -> None:
        """Takes in the best successors of tokens, with their log-probabilities."""

    @property
    def token_ids(self) -> NDArray[numpy.int32]: ...
    @property
    def grades(self) -> NDArray[numpy.uint8]: ...

class SourceShares:
    """
    How often guesses from the table and from repetition came true, by grade and by length.
    """

    def __init__(self, successors: Sequence[float], paths: Sequence[float], prior_weight: float) -> None: ...
    def observe(
        self,
        table: SuccessorTable,
        repetition: Repetition,
        root: int,
        chosen: Sequence[int],
        left_over: Annotated[NDArray[numpy.float64], dict(shape=(None,), order="C", device="cpu", writable=False)] | None = None,
        is_open: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order="C", device="cpu", writable=False)] | None = None,
    ) -> None:
        """Takes in a walk: from `root` over the tokens chosen."""

    @property
    def successors(self) -> Annotated[NDArray[numpy.float32], dict(writable=False)]: ...
    @property
    def paths(self) -> Annotated[NDArray[numpy.float32], dict(writable=False)]: ...

def attend_pages(
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    local_keys: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    local_values: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    pool: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    page_rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    first_rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    visible: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order="C", device="cpu", writable=False)] | None,
    first_hidden: int,
    num_hidden: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)] | None,
    mean_keys: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    mean_values: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    log_counts: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    scale: float,
    out: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """
    Attention over local rows, pages of a pool and summaries of others, in one softmax.
    """

def attend_pages_bfloat16(
    queries: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    local_keys: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    local_values: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    pool: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    page_rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    first_rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    visible: Annotated[NDArray[numpy.bool_], dict(shape=(None, None), order="C", device="cpu", writable=False)] | None,
    first_hidden: int,
    num_hidden: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)] | None,
    mean_keys: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    mean_values: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    log_counts: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    scale: float,
    out: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """
    Attention over local rows, pages of a pool and summaries of others, in one softmax.
    """

class Matrix:
    """
    A weight matrix [outputs, inputs], laid out for products with few rows.
    """

    @property
    def num_outputs(self) -> int: ...
    @property
    def num_inputs(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def multiply(self, rows: int, rows_are_rounded: bool, num_rows: int, out: int, out_is_rounded: bool, num_threads: int) -> None:
        """
        out [num_rows, num_outputs] = rows [num_rows, num_inputs] times the matrix; rounded ones are bfloat16, the others float32.
        """

    def read_rows(self, outputs: Sequence[int], out: int) -> None:
        """The weights of some outputs, one behind the other, in float32."""

def matrix_float32(
    weight: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)] | None = None,
    instruction_set: str | None = None,
) -> Matrix: ...
def matrix_bfloat16(
    weight: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)] | None = None,
    instruction_set: str | None = None,
) -> Matrix: ...
def matrix_quantized(
    kind: str,
    blocks: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    num_inputs: int,
    bias: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)] | None = None,
    instruction_set: str | None = None,
) -> Matrix: ...
def stack_matrices(parts: Sequence[Matrix]) -> Matrix: ...

class DecoderLayer:
    """A decoder layer around its attention; hidden states are float32."""

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        norm_eps: float,
        input_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        head_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)] | None,
        post_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        qkv: Matrix,
        output: Matrix,
        gate_up: Matrix | None,
        down: Matrix | None,
    ) -> None: ...
    def project_float32(
        self, hidden: int, num_rows: int, cos: int, sin: int, queries: int, keys: int, values: int, num_threads: int
    ) -> None:
        """
        Queries, keys and values of normed hidden states, head by head, rotated.
        """

    def finish_float32(self, mixed: int, num_rows: int, hidden: int, num_threads: int) -> None:
        """
        From what attention gave to the output of the layer, in place of `hidden`.
        """

    def finish_attention_float32(self, mixed: int, num_rows: int, hidden: int, normed: int, num_threads: int) -> None:
        """
        The same for a layer whose feed-forward network is elsewhere: adds attention's output to `hidden`; its norm goes to `normed`.
        """

    def project_bfloat16(
        self, hidden: int, num_rows: int, cos: int, sin: int, queries: int, keys: int, values: int, num_threads: int
    ) -> None:
        """
        Queries, keys and values of normed hidden states, head by head, rotated.
        """

    def finish_bfloat16(self, mixed: int, num_rows: int, hidden: int, num_threads: int) -> None:
        """
        From what attention gave to the output of the layer, in place of `hidden`.
        """

    def finish_attention_bfloat16(self, mixed: int, num_rows: int, hidden: int, normed: int, num_threads: int) -> None:
        """
        The same for a layer whose feed-forward network is elsewhere: adds attention's output to `hidden`; its norm goes to `normed`.
        """

class DecoderStack:
    """Embeddings, all layers and the final norm in one call."""

    @overload
    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        final_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        final_eps: float,
        attention_scale: float,
        embedding: Matrix,
    ) -> None: ...
    @overload
    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        final_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        final_eps: float,
        attention_scale: float,
        embedding: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    ) -> None: ...
    @overload
    def __init__(
        self,
        layers: Sequence[DecoderLayer],
        final_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        final_eps: float,
        attention_scale: float,
        embedding: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    ) -> None: ...
    def run_float32(
        self,
        rows: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
        cos: int,
        sin: int,
        num_positions: int,
        segments: Sequence[tuple[int, int, int, int, int, int]],
        taps: Sequence[int],
        features: int,
        out: int,
        num_threads: int,
    ) -> None:
        """
        Final states of `rows [2, n]`, token ids and positions; `segments`: (buffer, capacity, length, rows, visible words or 0, words per row).
        """

    def run_bfloat16(
        self,
        rows: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
        cos: int,
        sin: int,
        num_positions: int,
        segments: Sequence[tuple[int, int, int, int, int, int]],
        taps: Sequence[int],
        features: int,
        out: int,
        num_threads: int,
    ) -> None:
        """
        Final states of `rows [2, n]`, token ids and positions; `segments`: (buffer, capacity, length, rows, visible words or 0, words per row).
        """

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
) -> None:
    """
    Attention of the last rows of a dense buffer; `visible`: 0, or the address of bools, rows by rows.
    """

def rms_norm_float32(hidden: int, num_rows: int, weight: int, width: int, eps: float, normed: int) -> None:
    """RMS norm of float32 rows, into the type of the name."""

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
) -> None:
    """
    Attention of the last rows of a dense buffer; `visible`: 0, or the address of bools, rows by rows.
    """

def rms_norm_bfloat16(hidden: int, num_rows: int, weight: int, width: int, eps: float, normed: int) -> None:
    """RMS norm of float32 rows, into the type of the name."""

def copy_rows(
    source: int,
    source_head_stride: int,
    source_row_stride: int,
    target: int,
    target_head_stride: int,
    num_heads: int,
    num_rows: int,
    row_bytes: int,
) -> None:
    """
    Copies rows of bytes, head by head; strides in bytes, the rows of the target lie side by side.
    """

class DraftLayer:
    """One layer of a block diffusion drafter."""

    def __init__(
        self,
        input_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        head_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        post_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        qkv: Matrix,
        output: Matrix,
        gate_up: Matrix,
        down: Matrix,
        is_causal: bool,
        window: int,
    ) -> None: ...

class DraftNetwork:
    """
    A block diffusion drafter; `contexts`: (buffer, capacity, committed rows, new rows) of each sequence.
    """

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        norm_eps: float,
        block_size: int,
        fusion: Matrix,
        context_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        context_key_norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
        context_kv: Matrix,
        layers: Sequence[DraftLayer],
        norm: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    ) -> None: ...
    def extend_float32(self, contexts: Sequence[tuple[int, int, int, int]], features: int, cos: int, sin: int, num_threads: int) -> None:
        """
        Keys and values of new rows of the target's features, written behind each context's own.
        """

    def extend_bfloat16(self, contexts: Sequence[tuple[int, int, int, int]], features: int, cos: int, sin: int, num_threads: int) -> None:
        """
        Keys and values of new rows of the target's features, written behind each context's own.
        """

    def run_float32(
        self, contexts: Sequence[tuple[int, int, int, int]], blocks: int, cos: int, sin: int, out: int, num_threads: int
    ) -> None:
        """Final states of one block per context, but for its first row."""

    def run_bfloat16(
        self, contexts: Sequence[tuple[int, int, int, int]], blocks: int, cos: int, sin: int, out: int, num_threads: int
    ) -> None:
        """Final states of one block per context, but for its first row."""

def transitions_float32(
    projection: Matrix,
    predecessors: int,
    successors: int,
    hidden: int,
    marginals: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    bonus_token_ids: Sequence[int],
    log_probs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order="C", device="cpu")],
    num_threads: int,
) -> None:
    """
    Log-probabilities [sequences, horizon, candidates, candidates] of every candidate behind every one before it.
    """

def transitions_bfloat16(
    projection: Matrix,
    predecessors: int,
    successors: int,
    hidden: int,
    marginals: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    bonus_token_ids: Sequence[int],
    log_probs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order="C", device="cpu")],
    num_threads: int,
) -> None:
    """
    Log-probabilities [sequences, horizon, candidates, candidates] of every candidate behind every one before it.
    """

def gather_rows(table: int, num_rows: int, row_bytes: int, rows: Sequence[int], out: int) -> None:
    """Copies rows of a table of bytes one behind the other."""

def order_transitions(
    log_probs: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    token_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    ordered: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")],
    ordered_ids: Annotated[NDArray[numpy.int64], dict(shape=(None, None, None), order="C", device="cpu")],
    places: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu")],
) -> bool:
    """
    Sorts the candidates behind each predecessor, best first; false where an entry is no log-probability.
    """

def index_sketch_keys(
    keys: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    centre: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    flips: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    coordinate_scale: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    codes: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None), order="C", device="cpu")],
    factors: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order="C", device="cpu")],
    coordinates: Annotated[NDArray[numpy.int8], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """One-bit sketches of keys, their factors, and coordinates for grouping."""

def index_page_log_masses(
    pool: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    pages: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    log_masses: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """Exact log-masses of chosen pages, from their keys."""

def index_search_pages(
    blocks: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None, None, None), order="C", device="cpu", writable=False)],
    factors: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    flips: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    pool: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    resident: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    scale: float,
    num_candidates: int,
    single_rows: bool,
    chosen: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """
    The best pages of each set of queries, or their best rows: estimated from sketches, the best of those scored exactly.
    """

def index_sketch_keys_bfloat16(
    keys: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    centre: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    flips: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    coordinate_scale: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    codes: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None), order="C", device="cpu")],
    factors: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order="C", device="cpu")],
    coordinates: Annotated[NDArray[numpy.int8], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """One-bit sketches of keys, their factors, and coordinates for grouping."""

def index_page_log_masses_bfloat16(
    pool: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    pages: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    log_masses: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """Exact log-masses of chosen pages, from their keys."""

def index_search_pages_bfloat16(
    blocks: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None, None, None), order="C", device="cpu", writable=False)],
    factors: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    flips: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    pool: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    resident: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)] | None,
    scale: float,
    num_candidates: int,
    single_rows: bool,
    chosen: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """
    The best pages of each set of queries, or their best rows: estimated from sketches, the best of those scored exactly.
    """

def index_group_similar(
    coordinates: Annotated[NDArray[numpy.int8], dict(shape=(None, None, None), device="cpu", writable=False)],
    page_size: int,
    rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """Rows in an order whose pages hold similar ones."""

def index_lay_out_sketches(
    codes: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    factors: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    blocks: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None, None, None), order="C", device="cpu")],
    placed: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order="C", device="cpu")],
    num_threads: int,
) -> None:
    """Sketches in the order that scanning reads them."""

def index_estimate_log_masses(
    blocks: Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None, None, None), order="C", device="cpu", writable=False)],
    factors: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    flips: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    weight: float,
    log_masses: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """Log-masses of all pages, estimated from sketches."""

def index_total_log_masses(
    log_masses: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    totals: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")],
    instruction_set: str | None = None,
) -> None:
    """The log-mass of all pages together, query by query."""

def index_rank_pages(
    log_masses: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), order="C", device="cpu", writable=False)],
    totals: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    places: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """The pages with the largest share of the mass of any query, best first."""

def index_largest_squared_lengths(
    keys: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    lengths: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """The largest squared length of each head's keys."""

def index_lift_keys(
    keys: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    squared_radii: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    direction: Annotated[NDArray[numpy.int16], dict(shape=(None,), order="C", device="cpu", writable=False)],
    lifted: Annotated[NDArray[numpy.int16], dict(shape=(None, None, None), order="C", device="cpu")],
    projections: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """
    Keys in 16 bits with one coordinate more that makes them equally long, and their projections.
    """

def index_search_tree(
    cell_starts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    cell_pages: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    child_cells: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    projections: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    page_rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    pool: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None), device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    projected: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    field_of_view: int,
    scored_share: float,
    batch: int,
    scores: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """Scores of the pages that a search of one head's tree comes by."""

def index_largest_squared_lengths_bfloat16(
    keys: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    lengths: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """The largest squared length of each head's keys."""

def index_lift_keys_bfloat16(
    keys: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    squared_radii: Annotated[NDArray[numpy.float32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    direction: Annotated[NDArray[numpy.int16], dict(shape=(None,), order="C", device="cpu", writable=False)],
    lifted: Annotated[NDArray[numpy.int16], dict(shape=(None, None, None), order="C", device="cpu")],
    projections: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """
    Keys in 16 bits with one coordinate more that makes them equally long, and their projections.
    """

def index_search_tree_bfloat16(
    cell_starts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    cell_pages: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    child_cells: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    projections: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    page_rows: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    pool: Annotated[NDArray[numpy.uint16], dict(shape=(None, None, None), device="cpu", writable=False)],
    slots: Annotated[NDArray[numpy.int64], dict(shape=(None,), order="C", device="cpu", writable=False)],
    queries: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    projected: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    field_of_view: int,
    scored_share: float,
    batch: int,
    scores: Annotated[NDArray[numpy.float32], dict(shape=(None, None), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """Scores of the pages that a search of one head's tree comes by."""

def index_nearest_pivots(
    points: Annotated[NDArray[numpy.int16], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    pivots: Annotated[NDArray[numpy.int16], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    nearest: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu")],
    num_threads: int,
    instruction_set: str | None = None,
) -> None:
    """The nearest pivot of each point."""

def index_cut_cells(
    rows: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    cells: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    num_cells: int,
    projections: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu", writable=False)],
    pages: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu")],
    owners: Annotated[NDArray[numpy.int32], dict(shape=(None,), order="C", device="cpu")],
) -> int:
    """
    Cuts cells of rows into pages along their projections; returns how many.
    """

def index_merge_by_rank(
    scores: Annotated[NDArray[numpy.float32], dict(shape=(None, None, None, None), order="C", device="cpu", writable=False)],
    counts: Annotated[NDArray[numpy.int32], dict(shape=(None, None), order="C", device="cpu", writable=False)],
    chosen: Annotated[NDArray[numpy.int32], dict(shape=(None, None, None), order="C", device="cpu")],
) -> None:
    """The pages that rank best over the queries of a set."""
