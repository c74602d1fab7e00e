#include "decoder_stack.hpp"

#include <atomic>

namespace hoarfrost {

namespace {

struct Queries;
struct Mixed;

// What the members of the team share beside weights and pass.
template <class Stored>
struct Shared {
    Stored *queries, *mixed;  // [num_heads, n, head_dim] and [n, num_heads, head_dim]
    LayerScratch scratch;
    std::vector<std::atomic<size_t>> tasks;  // taken of each layer's attention
};

template <class Weight>
Shared<Weight> make_shared(const StackWeights<Weight>& weights, size_t num_rows) {
    const size_t count = num_rows * weights.shape.num_heads * weights.shape.head_dim;
    Shared<Weight> shared{kept_memory<Queries, Weight>(count), kept_memory<Mixed, Weight>(count), {},
                          std::vector<std::atomic<size_t>>(weights.layers.size())};
    for (const auto& layer : weights.layers) shared.scratch = layer_scratch(layer, num_rows);  // the last one asked for is as large as any before
    return shared;
}

// Where the heads of a segment go in one layer, and what they attend to there.
template <class Weight>
void place_segment(const StackWeights<Weight>& weights, const StackPass<Weight>& pass, const Shared<Weight>& shared, size_t layer,
                   size_t first_row, const StackSegment<Weight>& segment, HeadRows<Weight>& heads, DenseAttention<Weight>& attention) {
    const auto& [num_heads, num_kv_heads, head_dim, _] = weights.shape;
    const size_t query_head_stride = pass.num_rows * head_dim, kv_head_stride = segment.capacity * head_dim;
    Weight* keys = segment.buffer + layer * num_kv_heads * kv_head_stride;
    Weight* values = keys + weights.layers.size() * num_kv_heads * kv_head_stride;
    Weight* queries = shared.queries + first_row * head_dim;
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
template <class Weight>
void tap(const Member& member, const StackPass<Weight>& pass, size_t layer, size_t width) {
    const size_t num_taps = pass.taps.size();
    for (size_t place = 0; place < num_taps; ++place) {
        if (pass.taps[place] != layer) continue;
        member.share(pass.num_rows, 1, [&](size_t begin, size_t end) {
            for (size_t row = begin; row < end; ++row)
                for (size_t i = 0; i < width; ++i)
                    assign(pass.features[(row * num_taps + place) * width + i], pass.hidden[row * width + i]);
        });
    }
}

template <class Weight>
void run_layers(const Member& member, const StackWeights<Weight>& weights, const StackPass<Weight>& pass, Shared<Weight>& shared) {
    const size_t num_segments = pass.segments.size(), width = weights.final_norm.size();
    std::vector<HeadRows<Weight>> heads(num_segments);
    std::vector<DenseAttention<Weight>> attentions(num_segments);
    for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
        size_t row = 0;
        for (size_t s = 0; s < num_segments; row += pass.segments[s++].num_rows)
            place_segment(weights, pass, shared, layer, row, pass.segments[s], heads[s], attentions[s]);
        project_attention(member, weights.shape, weights.layers[layer], pass.hidden, pass.tables, heads, shared.scratch);
        member.wait();
        attend_dense(attentions.data(), num_segments, shared.tasks[layer]);
        member.wait();
        finish_layer(member, weights.shape, weights.layers[layer], shared.mixed, pass.num_rows, pass.hidden, shared.scratch);
        member.wait();
        tap(member, pass, layer, width);
    }
    rms_norm(member, {pass.hidden, pass.num_rows, width}, weights.final_norm.data(), width, weights.final_eps, pass.out);
}

}  // namespace

template <class Weight>
void run_stack(const StackWeights<Weight>& weights, const StackPass<Weight>& pass, size_t num_threads) {
    Shared<Weight> shared = make_shared(weights, pass.num_rows);
    run_team(num_threads, [&](const Member& member) { run_layers(member, weights, pass, shared); });
}

template void run_stack(const StackWeights<float>&, const StackPass<float>&, size_t);
template void run_stack(const StackWeights<BFloat16>&, const StackPass<BFloat16>&, size_t);

}  // namespace hoarfrost
