#include "decoder/decoder_stack.hpp"

#include <algorithm>
#include <atomic>

namespace hoarfrost {

namespace {

struct Hidden;
struct Angles;
struct Queries;
struct Mixed;

// What the members of the team share beside weights and pass.
template <class Stored>
struct Shared {
    float* hidden;            // [n, width]
    RotaryTables tables;      // of the rows
    Stored *queries, *mixed;  // [num_heads, n, head_dim] and [n, num_heads, head_dim]
    LayerScratch scratch;
    std::vector<std::atomic<size_t>> tasks;  // taken of each layer's attention
};

// The embeddings of the rows.
template <class Stored>
float* embed(const StackWeights& weights, const StackPass<Stored>& pass) {
    const size_t width = weights.final_norm.size();
    float* hidden = kept_memory<Hidden, float>(pass.num_rows * width);
    for (size_t row = 0; row < pass.num_rows; ++row) weights.embedding.read(static_cast<size_t>(pass.token_ids[row]), width, hidden + row * width);
    return hidden;
}

// The entries of the tables that belong to the rows' positions.
RotaryTables tables_of_rows(const RotaryTables& tables, const int64_t* positions, size_t num_rows, size_t half) {
    float* cos = kept_memory<Angles, float>(2 * num_rows * half);
    float* sin = cos + num_rows * half;
    for (size_t row = 0; row < num_rows; ++row) {
        const size_t place = static_cast<size_t>(positions[row]) * half;
        std::copy_n(tables.cos + place, half, cos + row * half);
        std::copy_n(tables.sin + place, half, sin + row * half);
    }
    return {cos, sin};
}

template <class Stored>
Shared<Stored> make_shared(const StackWeights& weights, const StackPass<Stored>& pass) {
    const size_t num_rows = pass.num_rows, head_dim = weights.shape.head_dim, count = num_rows * weights.shape.num_heads * head_dim;
    Shared<Stored> shared{embed(weights, pass),
                          tables_of_rows(pass.tables, pass.positions, num_rows, head_dim / 2),
                          kept_memory<Queries, Stored>(count),
                          kept_memory<Mixed, Stored>(count),
                          {},
                          std::vector<std::atomic<size_t>>(weights.layers.size())};
    for (const auto& layer : weights.layers) shared.scratch = layer_scratch(layer, num_rows);  // the last one asked for is as large as any before
    return shared;
}

// Where the heads of a segment go in one layer, and what they attend to there.
template <class Stored>
void place_segment(const StackWeights& weights, const StackPass<Stored>& pass, const Shared<Stored>& shared, size_t layer,
                   size_t first_row, const StackSegment<Stored>& segment, HeadRows<Stored>& heads, DenseAttention<Stored>& attention) {
    const auto& [num_heads, num_kv_heads, head_dim, _] = weights.shape;
    const size_t query_head_stride = pass.num_rows * head_dim, kv_head_stride = segment.capacity * head_dim;
    Stored* keys = segment.buffer + layer * num_kv_heads * kv_head_stride;
    Stored* values = keys + weights.layers.size() * num_kv_heads * kv_head_stride;
    Stored* queries = shared.queries + first_row * head_dim;
    const size_t end = segment.length * head_dim;
    heads = {segment.num_rows, queries, keys + end, values + end, query_head_stride, kv_head_stride};
    attention = {.queries = queries,
                 .keys = keys,
                 .values = values,
                 .query_head_stride = query_head_stride,
                 .query_row_stride = head_dim,
                 .kv_head_stride = kv_head_stride,
                 .num_heads = num_heads,
                 .num_kv_heads = num_kv_heads,
                 .head_dim = head_dim,
                 .num_rows = segment.num_rows,
                 .num_keys = segment.length + segment.num_rows,
                 .visible = segment.visible,
                 .words_per_row = segment.words_per_row,
                 .is_causal = true,
                 .scale = weights.attention_scale,
                 .out = shared.mixed + first_row * num_heads * head_dim};
}

// The member's share of copying the output of `layer` to where it is tapped.
template <class Stored>
void tap(const Member& member, const StackPass<Stored>& pass, const float* hidden, size_t layer, size_t width) {
    constexpr size_t tap_part = 128;  // entries
    const size_t num_taps = pass.taps.size(), num_parts = (width + tap_part - 1) / tap_part;
    for (size_t place = 0; place < num_taps; ++place) {
        if (pass.taps[place] != layer) continue;
        member.share(pass.num_rows * num_parts, 1, [&](size_t begin, size_t end) {
            run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
                for (size_t task = begin; task < end; ++task) {
                    const size_t row = task / num_parts, first = task % num_parts * tap_part, last = std::min(first + tap_part, width);
                    Stored* features = pass.features + (row * num_taps + place) * width;
                    for (size_t i = first; i < last; ++i) assign(features[i], hidden[row * width + i]);
                }
            });
        });
    }
}

template <class Stored>
void run_layers(const Member& member, const StackWeights& weights, const StackPass<Stored>& pass, Shared<Stored>& shared) {
    const size_t num_segments = pass.segments.size(), width = weights.final_norm.size();
    std::vector<HeadRows<Stored>> heads(num_segments);
    std::vector<DenseAttention<Stored>> attentions(num_segments);
    for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
        size_t row = 0;
        for (size_t s = 0; s < num_segments; row += pass.segments[s++].num_rows)
            place_segment(weights, pass, shared, layer, row, pass.segments[s], heads[s], attentions[s]);
        project_attention(member, weights.shape, weights.layers[layer], shared.hidden, shared.tables, heads, shared.scratch);
        member.wait();
        attend_dense(attentions.data(), num_segments, shared.tasks[layer]);
        member.wait();
        finish_layer(member, weights.shape, weights.layers[layer], shared.mixed, pass.num_rows, shared.hidden, shared.scratch);
        member.wait();
        tap(member, pass, shared.hidden, layer, width);
    }
    rms_norm(member, shared.hidden, pass.num_rows, weights.final_norm.data(), width, weights.final_eps, pass.out);
}

}  // namespace

void Embedding::read(size_t token_id, size_t width, float* row) const {
    if (matrix) return matrix->read_row(token_id, row);
    for (size_t i = 0; i < width; ++i) row[i] = floats != nullptr ? floats[token_id * width + i] : to_float(rounded[token_id * width + i]);
}

template <class Stored>
void run_stack(const StackWeights& weights, const StackPass<Stored>& pass, size_t num_threads) {
    Shared<Stored> shared = make_shared(weights, pass);
    run_team(num_threads, [&](const Member& member) { run_layers(member, weights, pass, shared); });
}

template void run_stack(const StackWeights&, const StackPass<float>&, size_t);
template void run_stack(const StackWeights&, const StackPass<BFloat16>&, size_t);

}  // namespace hoarfrost
