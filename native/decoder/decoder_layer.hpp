// What a decoder layer does around its attention: everything from the hidden state to rotated queries and keys, and everything from the mixed
// values to the next hidden state. Hidden states are float32 whatever the weights are, and change in place.
//
// A function that takes a `Member` is called by all members of a team with the same arguments, and returns when the caller's own share is done:
// they have to wait for each other before one reads what another wrote. The same functions with `num_threads` bring a team of their own. A
// row's result does not depend on the team.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "decoder/matrix.hpp"

namespace hoarfrost {

struct LayerShape {
    size_t num_heads, num_kv_heads, head_dim;
    float norm_eps;
};

// Norm weights are float32; `head_norm [num_heads + num_kv_heads, head_dim]` is empty where queries and keys are not normed. The last two
// matrices are null where something else is the feed-forward network.
struct LayerWeights {
    std::vector<float> input_norm, head_norm, post_norm;
    std::shared_ptr<const Matrix> qkv, output, gate_up, down;
};

// Cosine and sine [num_rows, head_dim / 2] of the angles; entry i of a head turns with entry i + head_dim / 2.
struct RotaryTables {
    const float *cos, *sin;
};

// Where the heads of `num_rows` rows go: each pointer to the first head of the first row, rows side by side, strides in scalars.
template <class Stored>
struct HeadRows {
    size_t num_rows;
    Stored *queries, *keys, *values;
    size_t query_head_stride, kv_head_stride;
};

// What one step of a layer leaves to the next.
struct LayerScratch {
    float *projected, *gate_up;
};

// Room for so many rows, kept by the calling thread until it asks again.
LayerScratch layer_scratch(const LayerWeights& weights, size_t num_rows);

// Queries, keys and values of hidden [n, width], as runs of rows that make n rows in all.
template <class Stored>
void project_attention(const Member& member, const LayerShape& shape, const LayerWeights& weights, const float* hidden,
                       const RotaryTables& tables, const std::vector<HeadRows<Stored>>& runs, const LayerScratch& scratch);

// hidden += output(mixed), mixed [n, num_heads * head_dim].
template <class Stored>
void add_attention(const Member& member, const LayerWeights& weights, const Stored* mixed, size_t num_rows, float* hidden);

// The same, then hidden += down(silu(gate) * up) of its norm.
template <class Stored>
void finish_layer(const Member& member, const LayerShape& shape, const LayerWeights& weights, const Stored* mixed, size_t num_rows,
                  float* hidden, const LayerScratch& scratch);

// normed [n, width] = hidden * weight / sqrt(mean(hidden^2) + eps), row by row; it may be `hidden` itself.
template <class Out>
void rms_norm(const Member& member, const float* hidden, size_t num_rows, const float* weight, size_t width, float eps, Out* normed);

// Writes queries [num_heads, n, head_dim], then keys and values [num_kv_heads, n, head_dim] each, from hidden [n, width].
template <class Stored>
void project_attention(const LayerShape& shape, const LayerWeights& weights, const float* hidden, size_t num_rows,
                       const RotaryTables& tables, Stored* queries, Stored* keys, Stored* values, size_t num_threads);
template <class Stored>
void finish_layer(const LayerShape& shape, const LayerWeights& weights, const Stored* mixed, size_t num_rows, float* hidden,
                  size_t num_threads);
void rms_norm(const float* hidden, size_t num_rows, const std::vector<float>& weight, float eps, float* normed, size_t num_threads);

// hidden += output(mixed); normed = its norm, for a feed-forward network from elsewhere.
template <class Stored>
void finish_attention(const LayerShape& shape, const LayerWeights& weights, const Stored* mixed, size_t num_rows, float* hidden,
                      float* normed, size_t num_threads);

}  // namespace hoarfrost
