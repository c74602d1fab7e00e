// All layers of a decoder in one go, over the rows of sequences whose keys and values lie in dense buffers: one team, which waits for its
// members a few times per layer, and no memory that is asked for anew.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "decoder/decoder_layer.hpp"
#include "decoder/dense_attention.hpp"

namespace hoarfrost {

// The rows that tokens begin as, [num_tokens, width]: a table, which must outlive the stack, or the rows of a matrix.
struct Embedding {
    const float* floats = nullptr;
    const BFloat16* rounded = nullptr;
    std::shared_ptr<const Matrix> matrix = nullptr;
    size_t num_tokens;

    void read(size_t token_id, size_t width, float* row) const;
};

struct StackWeights {
    LayerShape shape;
    std::vector<LayerWeights> layers;  // with feed-forward networks, all of one width
    std::vector<float> final_norm;
    float final_eps, attention_scale;
    Embedding embedding;
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
template <class Stored>
struct StackPass {
    size_t num_rows;
    const int64_t *token_ids, *positions;  // [n]; below the number of tokens and the length of `tables`
    RotaryTables tables;                   // of position 0 on
    std::vector<StackSegment<Stored>> segments;
    std::vector<size_t> taps;
    Stored* features;
    Stored* out;  // [n, width]: the last layer's output after the final norm
};

template <class Stored>
void run_stack(const StackWeights& weights, const StackPass<Stored>& pass, size_t num_threads);

}  // namespace hoarfrost
