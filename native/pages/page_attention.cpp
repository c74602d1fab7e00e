#include "pages/page_attention.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <vector>

#include "base/team.hpp"

namespace hoarfrost {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr size_t num_lanes = 16;
constexpr size_t block_rows = 64;  // rows softened together

struct SoftmaxState {
    float maximum = -infinity;
    float total = 0.0f;
};

// A block of rows in pieces that lie apart, as float32, rows padded with zeros to whole lanes.
struct FloatPieces {
    const float *keys[block_rows], *values[block_rows];
    size_t counts[block_rows];
    size_t size = 0, num_rows = 0;
};

// What is added to the scores of a block before the softmax: a tree's visibility, rows out of sight, or the log of a page's row count.
struct RowBias {
    const bool* visible = nullptr;  // [num_rows, num_rows] if masked, from the block's first column on; null: causal
    const int32_t* num_hidden = nullptr;  // [num_rows], from `first_hidden` on, which counts from the block's first column
    const float* log_counts = nullptr;
    size_t num_rows = 0, group = 1, column = 0, count = 0;
    std::ptrdiff_t first_hidden = 0;
    bool masked = false;

    void add_to(float* scores, size_t row) const {
        if (log_counts != nullptr)
            for (size_t j = 0; j < count; ++j) scores[j] += log_counts[j];
        const size_t query = row / group;
        if (num_hidden != nullptr) {
            const std::ptrdiff_t end = std::min(first_hidden + num_hidden[query], static_cast<std::ptrdiff_t>(count));
            for (std::ptrdiff_t j = std::max<std::ptrdiff_t>(first_hidden, 0); j < end; ++j) scores[j] = -infinity;
        }
        if (!masked) return;
        for (size_t j = 0; j < count; ++j)
            if (visible != nullptr ? !visible[query * num_rows + column + j] : column + j > query) scores[j] = -infinity;
    }
};

// One KV head: its query rows (all heads of its group for the first row, then for the next) and what the running softmax has summed.
struct HeadState {
    HeadState(size_t num_queries, size_t head_dim)
        : padded_dim((head_dim + num_lanes - 1) / num_lanes * num_lanes),
          queries(num_queries * padded_dim),
          sums(num_queries * padded_dim),
          scratch(2 * block_rows * padded_dim),
          states(num_queries) {}

    size_t padded_dim;
    std::vector<float> queries, sums, scratch;
    std::vector<SoftmaxState> states;
};

// Each set gets the whole kernel: registers of the right width from the start, which inlining into `run_with` would come too late for.
#define VECTOR_FLOATS 4
namespace plain {
#include "pages/page_attention_kernel.inl"
}
#undef VECTOR_FLOATS

#if HOARFROST_X86
#define VECTOR_FLOATS 8
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#include "pages/page_attention_kernel.inl"
}
#pragma GCC pop_options
#undef VECTOR_FLOATS

#define VECTOR_FLOATS 16
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
namespace avx512 {
#include "pages/page_attention_kernel.inl"
}
#pragma GCC pop_options
#undef VECTOR_FLOATS
#endif

}  // namespace

template <class Scalar>
void attend_pages(const PageAttention<Scalar>& problem, size_t num_threads, InstructionSet instruction_set) {
    const auto attend_head = [&](size_t kv_head) {
#if HOARFROST_X86
        if (has_avx512(instruction_set)) return avx512::attend_head(problem, kv_head);
        if (has_avx2(instruction_set)) return avx2::attend_head(problem, kv_head);
#endif
        plain::attend_head(problem, kv_head);
    };
    (void)instruction_set;
    parallel_for(problem.num_kv_heads, num_threads, attend_head);
}

template void attend_pages(const PageAttention<float>&, size_t, InstructionSet);
template void attend_pages(const PageAttention<BFloat16>&, size_t, InstructionSet);

}  // namespace hoarfrost
