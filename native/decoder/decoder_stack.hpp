// All layers of a decoder in one go, over the rows of sequences whose keys and values lie in dense buffers: one team, which waits for its
// members a few times per layer, and no memory that is asked for anew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "decoder/decoder_layer.hpp"
#include "decoder/dense_attention.hpp"

namespace hoarfrost {

template <class Weight>
struct StackWeights {
    LayerShape shape;
    std::vector<LayerWeights<Weight>> layers;  // with feed-forward networks, all of one width
    std::vector<float> final_norm;
    float final_eps, attention_scale;
    const Weight* embedding;  // [num_tokens, width]; must outlive the stack
    size_t num_tokens;
};

// The new rows of one sequence. Their keys and values are written behind the `length` rows that its buffer holds, which must have room for them.
template <class Stored>
struct StackSegment {
    Stored* buffer;  // [2, num_layers, num_kv_heads, capacity, head_dim]: keys, values
    size_t capacity, length, num_rows;
    const uint64_t* visible;  // as in `DenseAttention`; null: causally
    size_t words_per_row;
};

// Rows of one segment after the other. The outputs of the layers in `taps` go side by side to `features [n, taps, width]`.
template <class Weight>
struct StackPass {
    size_t num_rows;
    const int64_t *token_ids, *positions;  // [n]; below the stack's `num_tokens` and the length of `tables`
    RotaryTables tables;                   // of position 0 on
    std::vector<StackSegment<Weight>> segments;
    std::vector<size_t> taps;
    Weight* features;
    Weight* out;  // [n, width]: the last layer's output after the final norm
};

template <class Weight>
void run_stack(const StackWeights<Weight>& weights, const StackPass<Weight>& pass, size_t num_threads);

}  // namespace hoarfrost
