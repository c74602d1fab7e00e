#include "decoder_layer.hpp"

#include <cmath>
#include <type_traits>

#include "lanes.hpp"
#include "team.hpp"

namespace hoarfrost {

namespace {

using L = Lanes<8>;
constexpr size_t least_elements = 1 << 13;  // elements worth waking another thread for

size_t rows_of_grain(size_t width) { return (least_elements + width - 1) / width; }

HOARFROST_INLINE float inverse_root_mean_square(const float* row, size_t width, float eps) {
    L total = L::all(0.0f);
    size_t i = 0;
    for (; i + 8 <= width; i += 8) {
        const L x = L::load(row + i);
        total = x * x + total;
    }
    float sum = sum_of(total);
    for (; i < width; ++i) sum += row[i] * row[i];
    return 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
}

HOARFROST_INLINE void norm_row(const float* row, const float* weight, size_t width, float eps, float* out) {
    const float scale = inverse_root_mean_square(row, width, eps);
    for (size_t i = 0; i < width; ++i) out[i] = row[i] * scale * weight[i];
}

// The head after its norm (if `norm` is not null), rotated; `head` is overwritten.
template <class Stored>
HOARFROST_INLINE void rotate_head(float* head, const float* norm, size_t head_dim, float eps, const float* cos, const float* sin, Stored* out) {
    if (norm != nullptr) norm_row(head, norm, head_dim, eps, head);
    const size_t half = head_dim / 2;
    for (size_t i = 0; i < half; ++i) assign(out[i], head[i] * cos[i] - head[i + half] * sin[i]);
    for (size_t i = 0; i < half; ++i) assign(out[i + half], head[i + half] * cos[i] + head[i] * sin[i]);
}

// gate [width] becomes silu(gate) * up, with up behind it.
HOARFROST_INLINE void gate_row(float* gate, size_t width) {
    const float* up = gate + width;
    const L one = L::all(1.0f), zero = L::all(0.0f);
    size_t i = 0;
    for (; i + 8 <= width; i += 8) {
        const L x = L::load(gate + i);
        (x / (one + exp_of(zero - x)) * L::load(up + i)).store(gate + i);
    }
    for (; i < width; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

// Memory that the calling thread keeps between layers.
float* scratch(size_t which, size_t count) {
    thread_local std::vector<float> kept[2];
    if (kept[which].size() < count) kept[which].resize(count);
    return kept[which].data();
}

template <class Stored>
FloatRows as_floats(const Stored* rows, size_t num_rows, size_t width, size_t which) {
    if constexpr (std::is_same_v<Stored, float>) {
        return {rows, num_rows, width};
    } else {
        float* widened = scratch(which, num_rows * width);
        for (size_t i = 0; i < num_rows * width; ++i) widened[i] = to_float(rows[i]);
        return {widened, num_rows, width};
    }
}

template <class Weight, class Stored>
struct HeadsWriter {
    const LayerShape& shape;
    const LayerWeights<Weight>& weights;
    RotaryTables tables;
    size_t num_rows;
    Stored *queries, *keys, *values;

    HOARFROST_INLINE void write(float* projected, size_t row) const {
        const size_t dim = shape.head_dim;
        const float *cos = tables.cos + row * (dim / 2), *sin = tables.sin + row * (dim / 2);
        for (size_t head = 0; head < shape.num_heads + shape.num_kv_heads; ++head, projected += dim) {
            const bool is_query = head < shape.num_heads;
            Stored* out = is_query ? queries + (head * num_rows + row) * dim : keys + ((head - shape.num_heads) * num_rows + row) * dim;
            rotate_head(projected, weights.head_norm.empty() ? nullptr : weights.head_norm.data() + head * dim, dim, shape.norm_eps, cos, sin,
                        out);
        }
        for (size_t head = 0; head < shape.num_kv_heads; ++head, projected += dim)
            for (size_t i = 0; i < dim; ++i) assign(values[(head * num_rows + row) * dim + i], projected[i]);
    }
};

}  // namespace

void rms_norm(const FloatRows& rows, const std::vector<float>& weight, float eps, float* normed, size_t num_threads) {
    const size_t width = weight.size();
    split_among_team(num_threads, rows.count, rows_of_grain(width), [&](size_t first, size_t last) {
        run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
            for (size_t row = first; row < last; ++row)
                norm_row(rows.data + row * rows.stride, weight.data(), width, eps, normed + row * width);
        });
    });
}

template <class Weight, class Stored>
void project_attention(const LayerShape& shape, const LayerWeights<Weight>& weights, const float* hidden, size_t num_rows,
                       const RotaryTables& tables, Stored* queries, Stored* keys, Stored* values, size_t num_threads) {
    const size_t width = weights.qkv->num_inputs(), num_projected = weights.qkv->num_outputs();
    float *normed = scratch(0, num_rows * width), *projected = scratch(1, num_rows * num_projected);
    rms_norm({hidden, num_rows, width}, weights.input_norm, shape.norm_eps, normed, num_threads);
    weights.qkv->multiply({normed, num_rows, width}, projected, num_projected, Onto::fresh, num_threads);
    const HeadsWriter<Weight, Stored> writer{shape, weights, tables, num_rows, queries, keys, values};
    split_among_team(num_threads, num_rows, rows_of_grain(num_projected), [&](size_t first, size_t last) {
        run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
            for (size_t row = first; row < last; ++row) writer.write(projected + row * num_projected, row);
        });
    });
}

template <class Weight, class Stored>
void finish_attention(const LayerShape& shape, const LayerWeights<Weight>& weights, const Stored* mixed, size_t num_rows, float* hidden,
                      float* normed, size_t num_threads) {
    const size_t width = weights.output->num_outputs();
    const FloatRows rows = as_floats(mixed, num_rows, weights.output->num_inputs(), 1);
    weights.output->multiply(rows, hidden, width, Onto::sum, num_threads);
    rms_norm({hidden, num_rows, width}, weights.post_norm, shape.norm_eps, normed, num_threads);
}

template <class Weight, class Stored>
void finish_layer(const LayerShape& shape, const LayerWeights<Weight>& weights, const Stored* mixed, size_t num_rows, float* hidden,
                  size_t num_threads) {
    const size_t width = weights.output->num_outputs(), inner = weights.down->num_inputs();
    float* normed = scratch(0, num_rows * width);
    finish_attention(shape, weights, mixed, num_rows, hidden, normed, num_threads);
    float* gated = scratch(1, num_rows * 2 * inner);
    weights.gate_up->multiply({normed, num_rows, width}, gated, 2 * inner, Onto::fresh, num_threads);
    split_among_team(num_threads, num_rows, rows_of_grain(inner), [&](size_t first, size_t last) {
        run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
            for (size_t row = first; row < last; ++row) gate_row(gated + row * 2 * inner, inner);
        });
    });
    weights.down->multiply({gated, num_rows, 2 * inner}, hidden, width, Onto::sum, num_threads);
}

#define HOARFROST_INSTANTIATE(Weight)                                                                                                        \
    template void project_attention(const LayerShape&, const LayerWeights<Weight>&, const float*, size_t, const RotaryTables&, Weight*,       \
                                    Weight*, Weight*, size_t);                                                                               \
    template void finish_attention(const LayerShape&, const LayerWeights<Weight>&, const Weight*, size_t, float*, float*, size_t);            \
    template void finish_layer(const LayerShape&, const LayerWeights<Weight>&, const Weight*, size_t, float*, size_t);
HOARFROST_INSTANTIATE(float)
HOARFROST_INSTANTIATE(BFloat16)
#undef HOARFROST_INSTANTIATE

}  // namespace hoarfrost
