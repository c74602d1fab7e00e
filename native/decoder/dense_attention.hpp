// Attention of the rows appended last over all rows of a dense buffer: the past in full, each other as told.
//
// Query heads that share a KV head are rows of one problem, so that keys and values are read once for all of them. Scores of a tile of rows
// are held whole. Every sum runs over the keys in their order, and a hidden key adds an exact zero: a row of a tree comes out the same, bit
// for bit, as it would one by one after its own ancestors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "base/team.hpp"

namespace hoarfrost {

// Entries of a head's row are contiguous, and so are the rows of a head in `keys` and `values`; strides count scalars.
template <class Stored>
struct DenseAttention {
    const Stored *queries, *keys, *values;
    size_t query_head_stride, query_row_stride, kv_head_stride;
    size_t num_heads, num_kv_heads, head_dim;  // head_dim: a multiple of 8
    size_t num_rows, num_keys;                 // the last num_rows keys are the query rows' own
    // Which of the query rows each of them sees: bit j % 64 of word j // 64 of row i is set iff row i sees row j; null: see is_causal.
    const uint64_t* visible;
    size_t words_per_row;
    bool is_causal;  // without `visible`: up to itself, or all of them
    float scale;
    Stored* out;  // [num_rows, num_heads, head_dim]
};

// Works at several problems, on every member of a team that calls this with the same `next`, which is 0 before: who is free takes the next task.
template <class Stored>
void attend_dense(const DenseAttention<Stored>* problems, size_t num_problems, std::atomic<size_t>& next);

// The whole problem, on as many threads as are worth waking.
template <class Stored>
void attend_dense(const DenseAttention<Stored>& problem, size_t num_threads);

}  // namespace hoarfrost
