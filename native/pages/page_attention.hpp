// Attention of a few query rows over local rows, over pages wherever they lie in a pool, and over summaries of pages that were not fetched.
//
// Nothing is gathered: pages are read where they are. The parts are merged by a running softmax (log-sum-exp), one KV head per task, the
// query heads of its group together, so that a row of keys is read once for all of them. Arithmetic is float32 whatever is stored; a row's
// sums are taken in an order that depends neither on the instruction set nor on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "base/instruction_set.hpp"

namespace hoarfrost {

// One layer of one sequence. Rows of `head_dim` scalars are contiguous; strides count scalars. There are `num_heads / num_kv_heads` query
// heads per KV head, and `num_rows` query rows: the last `num_rows` of the local rows are their own.
template <class Scalar>
struct PageAttention {
    size_t num_heads, num_kv_heads, num_rows, head_dim;
    float scale;

    const Scalar* queries;  // [num_heads, num_rows, head_dim]
    size_t query_head_stride, query_row_stride;

    const Scalar *local_keys, *local_values;  // [num_kv_heads, num_local, head_dim]
    size_t num_local, key_head_stride, value_head_stride;
    const bool* visible;  // [num_rows, num_rows] among the last local rows; null: causal
    // Of query row i the local rows from `first_hidden` to `first_hidden + num_hidden[i]` are out of sight; null: none.
    size_t first_hidden;
    const int32_t* num_hidden;  // [num_rows]

    // Lists of pages, `num_lists` per KV head: one that serves all query rows, or one for each.
    const Scalar* pool;  // [slots, 2, page_size, head_dim]: keys, then values
    size_t page_size, num_lists, list_length;
    const int64_t* slots;      // [num_kv_heads, num_lists, list_length]
    const int32_t* page_rows;   // the same shape: rows that are seen, from `first_rows` on; 0 for an entry that is none
    const int32_t* first_rows;  // the same shape; null: from the front

    // Summaries of `num_summaries` pages per KV head: a page counts as if all its rows were their mean.
    size_t num_summaries;
    const float *mean_keys, *mean_values;  // [num_kv_heads, num_summaries, head_dim]
    const float* log_counts;               // [num_kv_heads, num_lists, num_summaries]; -inf where the page is fetched or empty

    Scalar* out;  // [num_rows, num_heads, head_dim]
};

// Computes `out` with up to `num_threads` threads over the KV heads.
template <class Scalar>
void attend_pages(const PageAttention<Scalar>& problem, size_t num_threads, InstructionSet instruction_set);

}  // namespace hoarfrost
