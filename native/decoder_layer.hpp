// What a decoder layer does around its attention, in two calls: everything from the hidden state to rotated queries and keys, and everything
// from the mixed values to the next hidden state. Hidden states are float32 whatever the weights are, and change in place.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "matrix.hpp"

namespace hoarfrost {

struct LayerShape {
    size_t num_heads, num_kv_heads, head_dim;
    float norm_eps;
};

// Norm weights are float32; `head_norm [num_heads + num_kv_heads, head_dim]` is empty where queries and keys are not normed.
template <class Weight>
struct LayerWeights {
    std::vector<float> input_norm, head_norm, post_norm;
    std::shared_ptr<Matrix<Weight>> qkv, output, gate_up, down;  // the last two are null where something else is the feed-forward network
};

// Cosine and sine [num_rows, head_dim / 2] of the angles; entry i of a head turns with entry i + head_dim / 2.
struct RotaryTables {
    const float *cos, *sin;
};

// Writes queries [num_heads, n, head_dim], then keys and values [num_kv_heads, n, head_dim] each, from hidden [n, width].
template <class Weight, class Stored>
void project_attention(const LayerShape& shape, const LayerWeights<Weight>& weights, const float* hidden, size_t num_rows,
                       const RotaryTables& tables, Stored* queries, Stored* keys, Stored* values, size_t num_threads);

// hidden += output(mixed), mixed [n, num_heads * head_dim]; then hidden += down(silu(gate) * up) of its norm.
template <class Weight, class Stored>
void finish_layer(const LayerShape& shape, const LayerWeights<Weight>& weights, const Stored* mixed, size_t num_rows, float* hidden,
                  size_t num_threads);

// hidden += output(mixed); normed = its norm, for a feed-forward network from elsewhere.
template <class Weight, class Stored>
void finish_attention(const LayerShape& shape, const LayerWeights<Weight>& weights, const Stored* mixed, size_t num_rows, float* hidden,
                      float* normed, size_t num_threads);

// normed [n, width] = rows * weight / sqrt(mean(rows^2) + eps).
void rms_norm(const FloatRows& rows, const std::vector<float>& weight, float eps, float* normed, size_t num_threads);

}  // namespace hoarfrost
