// Both passes of a DFlash drafter (src/hoarfrost/drafting/network.py) over the dense buffers of some sequences, one call each: what committed
// rows add to the context, and a block of masks through all layers. Made of the parts of a decoder layer; all products are shared by all
// sequences, and attention runs per sequence, as there.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "decoder/decoder_layer.hpp"

namespace hoarfrost {

// Keys and values of one sequence, [2, layers, num_kv_heads, capacity, head_dim]: `length` committed rows per head, and room for `count` more,
// which a pass writes.
template <class Stored>
struct DraftContext {
    Stored* buffer;
    size_t capacity, length, count;
};

struct DraftLayer {
    LayerWeights weights;
    bool is_causal;  // whether a row sees the rows up to itself only
    size_t window;   // a row sees rows less than this far away; 0: any
};

class DraftNetwork {
public:
    // `context` leads from the fused features to keys and values of all layers: all keys, layer by layer, then all values; its `input_norm` is
    // the norm of the fused features, `head_norm` covers the keys.
    DraftNetwork(const LayerShape& shape, size_t block_size, std::shared_ptr<const Matrix> fusion, LayerWeights context,
                 std::vector<DraftLayer> layers, std::vector<float> norm);

    size_t width() const { return norm_.size(); }
    size_t block_size() const { return block_size_; }
    size_t num_features() const { return fusion_->num_inputs(); }

    // Writes the rows of `features [sum of counts, num_features]` into the contexts.
    template <class Stored>
    void extend(const std::vector<DraftContext<Stored>>& contexts, const Stored* features, const RotaryTables& tables, size_t num_threads) const;

    // Takes one block per context, `hidden [contexts * block_size, width]`, through all layers; `count` is the block size. Leaves the final
    // normed states of all slots but each block's first in `hidden`, side by side: [contexts * (block_size - 1), width].
    template <class Stored>
    void run(const std::vector<DraftContext<Stored>>& contexts, float* hidden, const RotaryTables& tables, size_t num_threads) const;

private:
    LayerShape context_shape() const { return {0, layers_.size() * shape_.num_kv_heads, shape_.head_dim, shape_.norm_eps}; }
    template <class Stored>
    void attend(const DraftContext<Stored>& context, size_t layer, const Stored* queries, size_t head_stride, size_t first, Stored* out,
                size_t num_threads) const;

    LayerShape shape_;
    size_t block_size_;
    std::shared_ptr<const Matrix> fusion_;
    LayerWeights context_;
    std::vector<DraftLayer> layers_;
    std::vector<float> norm_;
};

}  // namespace hoarfrost
