#include "decoder/decoder_layer.hpp"

#include <algorithm>
#include <cmath>

#include "base/lanes.hpp"
#include "decoder/rms_norm.hpp"

namespace hoarfrost {

namespace {

constexpr size_t least_elements = 1 << 13;  // elements that are worth sharing
constexpr size_t gate_block = 128;          // entries that one thread gates in a row; a multiple of every register
constexpr size_t least_gated = 512;         // entries of the costlier gate that are worth sharing

size_t rows_of_grain(size_t width) { return (least_elements + width - 1) / width; }

// The head after its norm (if `norm` is not null), rotated; `head` is overwritten.
template <class Stored>
HOARFROST_INLINE void rotate_head(float* head, const float* norm, size_t head_dim, float eps, const float* cos, const float* sin, Stored* out) {
    if (norm != nullptr) norm_row(head, norm, head_dim, eps, head);
    const size_t half = head_dim / 2;
    for (size_t i = 0; i < half; ++i) assign(out[i], head[i] * cos[i] - head[i + half] * sin[i]);
    for (size_t i = 0; i < half; ++i) assign(out[i + half], head[i + half] * cos[i] + head[i] * sin[i]);
}

// Writes the heads of one row: row `place` of `run`, whose angles are given.
template <class Stored>
HOARFROST_INLINE void write_heads(const LayerShape& shape, const std::vector<float>& head_norm, float* projected, const float* cos,
                                  const float* sin, const HeadRows<Stored>& run, size_t place) {
    const size_t dim = shape.head_dim;
    for (size_t head = 0; head < shape.num_heads + shape.num_kv_heads; ++head, projected += dim) {
        Stored* out = head < shape.num_heads ? run.queries + head * run.query_head_stride : run.keys + (head - shape.num_heads) * run.kv_head_stride;
        rotate_head(projected, head_norm.empty() ? nullptr : head_norm.data() + head * dim, dim, shape.norm_eps, cos, sin, out + place * dim);
    }
    for (size_t head = 0; head < shape.num_kv_heads; ++head, projected += dim)
        for (size_t i = 0; i < dim; ++i) assign(run.values[head * run.kv_head_stride + place * dim + i], projected[i]);
}

// gate [count] becomes silu(gate) * up.
HOARFROST_INLINE void gate_entries(float* gate, const float* up, size_t count) {
    using L = Lanes<8>;
    const L one = L::all(1.0f), zero = L::all(0.0f);
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const L x = L::load(gate + i);
        (x / (one + exp_of(zero - x)) * L::load(up + i)).store(gate + i);
    }
    for (; i < count; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

struct Projected;
struct GateUp;

}  // namespace

LayerScratch layer_scratch(const LayerWeights& weights, size_t num_rows) {
    const size_t num_gates = weights.gate_up == nullptr ? 0 : weights.gate_up->num_outputs();
    return {kept_memory<Projected, float>(num_rows * weights.qkv->num_outputs()), kept_memory<GateUp, float>(num_rows * num_gates)};
}

template <class Stored>
void project_attention(const Member& member, const LayerShape& shape, const LayerWeights& weights, const float* hidden,
                       const RotaryTables& tables, const std::vector<HeadRows<Stored>>& runs, const LayerScratch& scratch) {
    const size_t width = weights.qkv->num_inputs(), num_projected = weights.qkv->num_outputs(), half = shape.head_dim / 2;
    size_t num_rows = 0;
    for (const auto& run : runs) num_rows += run.num_rows;
    weights.qkv->multiply(member, Rows(hidden, num_rows, width, weights.input_norm.data(), shape.norm_eps),
                          Products(scratch.projected, num_projected));
    member.wait();
    member.share(num_rows, rows_of_grain(num_projected), [&](size_t begin, size_t end) {
        size_t first = 0;  // row of the run
        for (const auto& run : runs) {
            run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
                for (size_t row = std::max(begin, first); row < std::min(end, first + run.num_rows); ++row)
                    write_heads(shape, weights.head_norm, scratch.projected + row * num_projected, tables.cos + row * half,
                                tables.sin + row * half, run, row - first);
            });
            first += run.num_rows;
        }
    });
}

template <class Stored>
void add_attention(const Member& member, const LayerWeights& weights, const Stored* mixed, size_t num_rows, float* hidden) {
    const Matrix& output = *weights.output;
    output.multiply(member, Rows(mixed, num_rows, output.num_inputs()), Products(hidden, output.num_outputs(), Onto::sum));
}

template <class Stored>
void finish_layer(const Member& member, const LayerShape& shape, const LayerWeights& weights, const Stored* mixed, size_t num_rows,
                  float* hidden, const LayerScratch& scratch) {
    const size_t width = weights.gate_up->num_inputs(), inner = weights.down->num_inputs();
    add_attention(member, weights, mixed, num_rows, hidden);
    member.wait();
    weights.gate_up->multiply(member, Rows(hidden, num_rows, width, weights.post_norm.data(), shape.norm_eps),
                              Products(scratch.gate_up, 2 * inner));
    member.wait();
    const size_t last_block = (inner + gate_block - 1) / gate_block;
    member.share(num_rows * last_block, least_gated / gate_block, [&](size_t begin, size_t end) {
        run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
            for (size_t i = begin; i < end; ++i) {
                const size_t first = i % last_block * gate_block;
                float* gate = scratch.gate_up + i / last_block * 2 * inner + first;
                gate_entries(gate, gate + inner, std::min(gate_block, inner - first));
            }
        });
    });
    member.wait();
    weights.down->multiply(member, Rows(scratch.gate_up, num_rows, 2 * inner), Products(hidden, width, Onto::sum));
}

template <class Out>
void rms_norm(const Member& member, const float* hidden, size_t num_rows, const float* weight, size_t width, float eps, Out* normed) {
    member.share(num_rows, rows_of_grain(width), [&](size_t first, size_t last) {
        run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
            for (size_t row = first; row < last; ++row)
                norm_row(hidden + row * width, weight, width, eps, normed + row * width);
        });
    });
}

template <class Stored>
void project_attention(const LayerShape& shape, const LayerWeights& weights, const float* hidden, size_t num_rows,
                       const RotaryTables& tables, Stored* queries, Stored* keys, Stored* values, size_t num_threads) {
    const size_t head_stride = num_rows * shape.head_dim;
    const std::vector<HeadRows<Stored>> runs{{num_rows, queries, keys, values, head_stride, head_stride}};
    const LayerScratch scratch = layer_scratch(weights, num_rows);
    run_team(std::min(num_threads, weights.qkv->num_shares(num_rows)),
             [&](const Member& member) { project_attention(member, shape, weights, hidden, tables, runs, scratch); });
}

template <class Stored>
void finish_layer(const LayerShape& shape, const LayerWeights& weights, const Stored* mixed, size_t num_rows, float* hidden,
                  size_t num_threads) {
    const LayerScratch scratch = layer_scratch(weights, num_rows);
    run_team(std::min(num_threads, weights.gate_up->num_shares(num_rows)),
             [&](const Member& member) { finish_layer(member, shape, weights, mixed, num_rows, hidden, scratch); });
}

template <class Stored>
void finish_attention(const LayerShape& shape, const LayerWeights& weights, const Stored* mixed, size_t num_rows, float* hidden,
                      float* normed, size_t num_threads) {
    run_team(std::min(num_threads, weights.output->num_shares(num_rows)), [&](const Member& member) {
        add_attention(member, weights, mixed, num_rows, hidden);
        member.wait();
        rms_norm(member, hidden, num_rows, weights.post_norm.data(), weights.post_norm.size(), shape.norm_eps, normed);
    });
}

void rms_norm(const float* hidden, size_t num_rows, const std::vector<float>& weight, float eps, float* normed, size_t num_threads) {
    run_team(std::min(num_threads, num_rows / rows_of_grain(weight.size())),
             [&](const Member& member) { rms_norm(member, hidden, num_rows, weight.data(), weight.size(), eps, normed); });
}

#define HOARFROST_INSTANTIATE(Stored)                                                                                                         \
    template void project_attention(const Member&, const LayerShape&, const LayerWeights&, const float*, const RotaryTables&,                 \
                                    const std::vector<HeadRows<Stored>>&, const LayerScratch&);                                               \
    template void add_attention(const Member&, const LayerWeights&, const Stored*, size_t, float*);                                           \
    template void finish_layer(const Member&, const LayerShape&, const LayerWeights&, const Stored*, size_t, float*, const LayerScratch&);    \
    template void project_attention(const LayerShape&, const LayerWeights&, const float*, size_t, const RotaryTables&, Stored*, Stored*,      \
                                    Stored*, size_t);                                                                                         \
    template void finish_layer(const LayerShape&, const LayerWeights&, const Stored*, size_t, float*, size_t);                                \
    template void finish_attention(const LayerShape&, const LayerWeights&, const Stored*, size_t, float*, float*, size_t);                    \
    template void rms_norm(const Member&, const float*, size_t, const float*, size_t, float, Stored*);
HOARFROST_INSTANTIATE(float)
HOARFROST_INSTANTIATE(BFloat16)
#undef HOARFROST_INSTANTIATE

}  // namespace hoarfrost
