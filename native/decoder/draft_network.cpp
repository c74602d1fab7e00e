#include "decoder/draft_network.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "decoder/dense_attention.hpp"
#include "base/require.hpp"

namespace hoarfrost {

namespace {

// Whether a matrix is there and leads from so many inputs to so many outputs.
bool leads(const std::shared_ptr<const Matrix>& matrix, size_t num_inputs, size_t num_outputs) {
    return matrix && matrix->num_inputs() == num_inputs && matrix->num_outputs() == num_outputs;
}

// Copies `context.count` rows of each of `num_heads` heads, which lie `head_stride` apart, behind the committed rows from `first_head` on.
template <class Stored>
void append(const DraftContext<Stored>& context, size_t first_head, size_t num_heads, size_t head_dim, const Stored* rows, size_t head_stride) {
    for (size_t head = 0; head < num_heads; ++head)
        std::memcpy(context.buffer + ((first_head + head) * context.capacity + context.length) * head_dim, rows + head * head_stride,
                    context.count * head_dim * sizeof(Stored));
}

}  // namespace

DraftNetwork::DraftNetwork(const LayerShape& shape, size_t block_size, std::shared_ptr<const Matrix> fusion, LayerWeights context,
                           std::vector<DraftLayer> layers, std::vector<float> norm)
    : shape_(shape),
      block_size_(block_size),
      fusion_(std::move(fusion)),
      context_(std::move(context)),
      layers_(std::move(layers)),
      norm_(std::move(norm)) {
    const size_t dim = shape_.head_dim, num_heads = shape_.num_heads, num_kv_heads = shape_.num_kv_heads;
    require(block_size_ > 1, "A block has a slot for the bonus token and at least one more.");
    require(dim > 0 && dim % 8 == 0 && num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0, "The heads do not fit together.");
    require(fusion_ && fusion_->num_outputs() == width() && context_.input_norm.size() == width(), "The features must be fused to the width.");
    require(context_.head_norm.size() == layers_.size() * num_kv_heads * dim && leads(context_.qkv, width(), 2 * context_.head_norm.size()),
            "The context must lead from the width to keys and values of all layers.");
    for (const DraftLayer& layer : layers_) {
        const LayerWeights& weights = layer.weights;
        require(weights.input_norm.size() == width() && weights.post_norm.size() == width() &&
                    weights.head_norm.size() == (num_heads + num_kv_heads) * dim,
                "The norms of a layer do not fit.");
        require(leads(weights.qkv, width(), (num_heads + 2 * num_kv_heads) * dim) && leads(weights.output, num_heads * dim, width()) &&
                    weights.down && leads(weights.down, weights.down->num_inputs(), width()) &&
                    leads(weights.gate_up, width(), 2 * weights.down->num_inputs()),
                "The matrices of a layer do not fit.");
    }
}

template <class Stored>
void DraftNetwork::extend(const std::vector<DraftContext<Stored>>& contexts, const Stored* features, const RotaryTables& tables,
                                  size_t num_threads) const {
    const LayerShape shape = context_shape();
    size_t num_rows = 0;
    for (const auto& context : contexts) num_rows += context.count;
    const auto fused = std::make_unique_for_overwrite<float[]>(num_rows * width());
    fusion_->multiply(Rows(features, num_rows, num_features()), Products(fused.get(), width()), num_threads);
    const size_t head_stride = num_rows * shape.head_dim;
    const auto heads = std::make_unique_for_overwrite<Stored[]>(2 * shape.num_kv_heads * head_stride);
    project_attention<Stored>(shape, context_, fused.get(), num_rows, tables, nullptr, heads.get(),
                                      heads.get() + shape.num_kv_heads * head_stride, num_threads);
    const Stored* rows = heads.get();
    for (const auto& context : contexts) {
        append(context, 0, 2 * shape.num_kv_heads, shape.head_dim, rows, head_stride);
        rows += context.count * shape.head_dim;
    }
}

// Attention of a block's rows from `first` on; `queries` and `out` start with that row.
template <class Stored>
void DraftNetwork::attend(const DraftContext<Stored>& context, size_t layer, const Stored* queries, size_t head_stride, size_t first,
                                  Stored* out, size_t num_threads) const {
    const size_t dim = shape_.head_dim, kv_head_stride = context.capacity * dim, end = context.length + block_size_;
    const size_t window = layers_[layer].window;
    const bool is_causal = layers_[layer].is_causal;
    const Stored* keys = context.buffer + layer * shape_.num_kv_heads * kv_head_stride;
    DenseAttention<Stored> problem{};
    problem.queries = queries;
    problem.keys = keys;
    problem.values = keys + layers_.size() * shape_.num_kv_heads * kv_head_stride;
    problem.query_head_stride = head_stride;
    problem.query_row_stride = dim;
    problem.kv_head_stride = kv_head_stride;
    problem.num_heads = shape_.num_heads;
    problem.num_kv_heads = shape_.num_kv_heads;
    problem.head_dim = dim;
    problem.num_rows = block_size_ - first;
    problem.num_keys = end;
    problem.is_causal = is_causal;
    problem.scale = 1.0f / std::sqrt(static_cast<float>(dim));
    problem.out = out;
    if (window == 0 || end <= window) return attend_dense(problem, num_threads);
    for (size_t row = context.length + first; row < end; ++row) {  // each sees a range of rows of its own
        const size_t begin = row + 1 > window ? row + 1 - window : 0, last = is_causal ? row + 1 : std::min(end, row + window);
        DenseAttention<Stored> one = problem;
        one.queries += (row - context.length - first) * dim;
        one.keys += begin * dim;
        one.values += begin * dim;
        one.num_rows = 1;
        one.num_keys = last - begin;
        one.out += (row - context.length - first) * shape_.num_heads * dim;
        attend_dense(one, num_threads);
    }
}

template <class Stored>
void DraftNetwork::run(const std::vector<DraftContext<Stored>>& contexts, float* hidden, const RotaryTables& tables,
                               size_t num_threads) const {
    const size_t dim = shape_.head_dim, num_rows = contexts.size() * block_size_, head_stride = num_rows * dim;
    const auto heads = std::make_unique_for_overwrite<Stored[]>((shape_.num_heads + 2 * shape_.num_kv_heads) * head_stride);
    const auto mixed = std::make_unique_for_overwrite<Stored[]>(shape_.num_heads * head_stride);
    Stored *queries = heads.get(), *keys = queries + shape_.num_heads * head_stride, *values = keys + shape_.num_kv_heads * head_stride;
    for (size_t layer = 0; layer < layers_.size(); ++layer) {
        const LayerWeights& weights = layers_[layer].weights;
        // Of a block's first slot, the bonus token, nobody reads more than its keys and values in the last layer.
        const size_t first = layer + 1 == layers_.size() ? 1 : 0, num_kept = block_size_ - first;
        project_attention(shape_, weights, hidden, num_rows, tables, queries, keys, values, num_threads);
        for (size_t i = 0; i < contexts.size(); ++i) {
            const size_t row = i * block_size_, key_head = layer * shape_.num_kv_heads;
            append(contexts[i], key_head, shape_.num_kv_heads, dim, keys + row * dim, head_stride);
            append(contexts[i], layers_.size() * shape_.num_kv_heads + key_head, shape_.num_kv_heads, dim, values + row * dim, head_stride);
            attend(contexts[i], layer, queries + (row + first) * dim, head_stride, first, mixed.get() + i * num_kept * shape_.num_heads * dim,
                   num_threads);
            if (first > 0) std::memmove(hidden + i * num_kept * width(), hidden + (row + first) * width(), num_kept * width() * sizeof(float));
        }
        finish_layer<Stored>(shape_, weights, mixed.get(), contexts.size() * num_kept, hidden, num_threads);
    }
    rms_norm(hidden, contexts.size() * (block_size_ - 1), norm_, shape_.norm_eps, hidden, num_threads);
}

#define HOARFROST_INSTANTIATE(Stored)                                                                                                \
    template void DraftNetwork::extend(const std::vector<DraftContext<Stored>>&, const Stored*, const RotaryTables&, size_t) const; \
    template void DraftNetwork::run(const std::vector<DraftContext<Stored>>&, float*, const RotaryTables&, size_t) const;
HOARFROST_INSTANTIATE(float)
HOARFROST_INSTANTIATE(BFloat16)
#undef HOARFROST_INSTANTIATE

}  // namespace hoarfrost
