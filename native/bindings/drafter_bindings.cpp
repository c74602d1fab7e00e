// Bindings of the drafter's passes and of transitions. As in decoder_bindings.cpp, tensors come as addresses where a call is made in every
// round, checked by src/hoarfrost/kernels/drafter.py; everything else comes as arrays.
#include "bindings/drafter_bindings.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>

#include <cstring>
#include <tuple>
#include <type_traits>

#include "bindings/bindings.hpp"
#include "decoder/draft_network.hpp"
#include "decoder/transitions.hpp"

namespace hoarfrost {

namespace {

using Norm = Input<float, 1>;

std::vector<float> to_vector(const Norm& values) { return std::vector<float>(values.data(), values.data() + values.size()); }

using MatrixPointer = std::shared_ptr<const Matrix>;

// Buffer, capacity, committed rows and new rows of one sequence.
using ContextTuple = std::tuple<Address, size_t, size_t, size_t>;

template <class Stored>
std::vector<DraftContext<Stored>> to_contexts(const std::vector<ContextTuple>& tuples) {
    std::vector<DraftContext<Stored>> contexts;
    for (const auto& [buffer, capacity, length, count] : tuples) contexts.push_back({at<Stored>(buffer), capacity, length, count});
    return contexts;
}

template <class Stored>
void extend(const DraftNetwork& network, const std::vector<ContextTuple>& contexts, Address features, Address cos, Address sin,
            size_t num_threads) {
    nb::gil_scoped_release unlocked;
    network.extend(to_contexts<Stored>(contexts), at<const Stored>(features), {at<const float>(cos), at<const float>(sin)}, num_threads);
}

// `blocks [contexts * block_size, width]`, then `out [contexts * (block_size - 1), width]`.
template <class Stored>
void run(const DraftNetwork& network, const std::vector<ContextTuple>& contexts, Address blocks, Address cos, Address sin, Address out,
         size_t num_threads) {
    nb::gil_scoped_release unlocked;
    const size_t count = contexts.size() * network.block_size() * network.width();
    const auto hidden = std::make_unique_for_overwrite<float[]>(count);
    for (size_t i = 0; i < count; ++i) hidden[i] = to_float(at<const Stored>(blocks)[i]);
    network.run(to_contexts<Stored>(contexts), hidden.get(), {at<const float>(cos), at<const float>(sin)}, num_threads);
    for (size_t i = 0; i < contexts.size() * (network.block_size() - 1) * network.width(); ++i) assign(at<Stored>(out)[i], hidden[i]);
}

// `hidden [sequences * horizon, width]` are the final states, of the codebooks' type; the arrays are those of transitions.hpp, one sequence after
// the other.
template <class Stored>
void transitions(const Matrix& projection, Address predecessors, Address successors, Address hidden, const Input<float, 3>& marginals,
                 const Input<int64_t, 3>& token_ids, const std::vector<int64_t>& bonus_token_ids, const InPlace<float, 4>& log_probs,
                 size_t num_threads) {
    const size_t num_sequences = marginals.shape(0), horizon = marginals.shape(1), count = marginals.shape(2);
    require(has_shape(token_ids, {num_sequences, horizon, count}) && has_shape(log_probs, {num_sequences, horizon, count, count}) &&
                bonus_token_ids.size() == num_sequences,
            "The arrays of the transitions do not fit together.");
    nb::gil_scoped_release unlocked;
    const size_t num_rows = num_sequences * horizon, rank = projection.num_outputs();
    const auto projected = std::make_unique_for_overwrite<float[]>(num_rows * rank);
    projection.multiply(Rows(at<const Stored>(hidden), num_rows, projection.num_inputs()), Products(projected.get(), rank), num_threads);
    const Codebooks<Stored> codebooks{at<const Stored>(predecessors), at<const Stored>(successors), rank};
    parallel_for(num_rows, num_threads, [&](size_t row) {
        const size_t sequence = row / horizon, first = sequence * horizon * count;
        const DepthCandidates candidates{marginals.data() + first, token_ids.data() + first, horizon, count, bonus_token_ids[sequence]};
        transition_log_probs(codebooks, candidates, row % horizon, projected.get() + row * rank, log_probs.data() + row * count * count);
    });
}

bool order(const Input<float, 3>& log_probs, const Input<int64_t, 2>& token_ids, const InPlace<float, 3>& ordered,
           const InPlace<int64_t, 3>& ordered_ids, const InPlace<int32_t, 3>& places) {
    const size_t horizon = token_ids.shape(0), count = token_ids.shape(1);
    require(has_shape(log_probs, {horizon, count, count}) && has_shape(ordered, {horizon, count, count}) &&
                has_shape(ordered_ids, {horizon, count, count}) && has_shape(places, {horizon, count, count}),
            "The arrays of the transitions do not fit together.");
    return order_transitions(log_probs.data(), token_ids.data(), horizon, count, ordered.data(), ordered_ids.data(), places.data());
}

// Copies rows of `table [num_rows, row_bytes]` one behind the other to `out`.
void gather_rows(Address table, size_t num_rows, size_t row_bytes, const std::vector<size_t>& rows, Address out) {
    for (size_t i = 0; i < rows.size(); ++i) {
        require(rows[i] < num_rows, "A row lies outside the table.");
        std::memcpy(at<char>(out) + i * row_bytes, at<const char>(table) + rows[i] * row_bytes, row_bytes);
    }
}

constexpr const char* about_extend = "Keys and values of new rows of the target's features, written behind each context's own.";
constexpr const char* about_run = "Final states of one block per context, but for its first row.";

void bind_network(nb::module_& module) {
    nb::class_<DraftLayer>(module, "DraftLayer", "One layer of a block diffusion drafter.")
        .def(
            "__init__",
            [](DraftLayer* self, const Norm& input_norm, const Norm& head_norm, const Norm& post_norm, MatrixPointer qkv, MatrixPointer output,
               MatrixPointer gate_up, MatrixPointer down, bool is_causal, size_t window) {
                new (self) DraftLayer{{to_vector(input_norm), to_vector(head_norm), to_vector(post_norm), std::move(qkv), std::move(output),
                                       std::move(gate_up), std::move(down)},
                                      is_causal,
                                      window};
            },
            "input_norm"_a, "head_norm"_a, "post_norm"_a, "qkv"_a, "output"_a, "gate_up"_a, "down"_a, "is_causal"_a, "window"_a);
    nb::class_<DraftNetwork>(module, "DraftNetwork",
                             "A block diffusion drafter; `contexts`: (buffer, capacity, committed rows, new rows) of each sequence.")
        .def(
            "__init__",
            [](DraftNetwork* self, size_t num_heads, size_t num_kv_heads, size_t head_dim, float norm_eps, size_t block_size,
               MatrixPointer fusion, const Norm& context_norm, const Norm& context_key_norm, MatrixPointer context_kv,
               std::vector<DraftLayer> layers, const Norm& norm) {
                LayerWeights context{to_vector(context_norm), to_vector(context_key_norm), {}, std::move(context_kv), {}, {}, {}};
                new (self) DraftNetwork({num_heads, num_kv_heads, head_dim, norm_eps}, block_size, std::move(fusion), std::move(context),
                                        std::move(layers), to_vector(norm));
            },
            "num_heads"_a, "num_kv_heads"_a, "head_dim"_a, "norm_eps"_a, "block_size"_a, "fusion"_a, "context_norm"_a, "context_key_norm"_a,
            "context_kv"_a, "layers"_a, "norm"_a)
        .def("extend_float32", &extend<float>, "contexts"_a, "features"_a, "cos"_a, "sin"_a, "num_threads"_a, about_extend)
        .def("extend_bfloat16", &extend<BFloat16>, "contexts"_a, "features"_a, "cos"_a, "sin"_a, "num_threads"_a, about_extend)
        .def("run_float32", &run<float>, "contexts"_a, "blocks"_a, "cos"_a, "sin"_a, "out"_a, "num_threads"_a, about_run)
        .def("run_bfloat16", &run<BFloat16>, "contexts"_a, "blocks"_a, "cos"_a, "sin"_a, "out"_a, "num_threads"_a, about_run);
}

template <class Stored>
void bind_transitions(nb::module_& module, const char* name) {
    module.def(name, &transitions<Stored>, "projection"_a, "predecessors"_a, "successors"_a, "hidden"_a, "marginals"_a.noconvert(),
               "token_ids"_a.noconvert(), "bonus_token_ids"_a, "log_probs"_a.noconvert(), "num_threads"_a,
               "Log-probabilities [sequences, horizon, candidates, candidates] of every candidate behind every one before it.");
}

}  // namespace

void bind_drafter(nb::module_& module) {
    bind_network(module);
    bind_transitions<float>(module, "transitions_float32");
    bind_transitions<BFloat16>(module, "transitions_bfloat16");
    module.def("gather_rows", &gather_rows, "table"_a, "num_rows"_a, "row_bytes"_a, "rows"_a, "out"_a,
               "Copies rows of a table of bytes one behind the other.");
    module.def("order_transitions", &order, "log_probs"_a.noconvert(), "token_ids"_a.noconvert(), "ordered"_a.noconvert(),
               "ordered_ids"_a.noconvert(), "places"_a.noconvert(),
               "Sorts the candidates behind each predecessor, best first; false where an entry is no log-probability.");
}

}  // namespace hoarfrost
