// Bindings of matrices, decoder layers, whole stacks of them, and dense attention. What is built once comes as arrays, checked here; what is
// called in every pass comes as addresses, checked by the faces in src/hoarfrost/kernels, because handing over an array costs as much as such a
// call.
#include "bindings/decoder_bindings.hpp"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>

#include <cstring>
#include <tuple>
#include <type_traits>

#include "bindings/bindings.hpp"
#include "decoder/decoder_layer.hpp"
#include "decoder/decoder_stack.hpp"
#include "decoder/dense_attention.hpp"

namespace hoarfrost {

namespace {

// bfloat16 is no type of numpy's: it comes as its bits.
template <class Scalar>
using Bits = std::conditional_t<std::is_same_v<Scalar, BFloat16>, uint16_t, float>;

std::vector<float> to_vector(const std::optional<Input<float, 1>>& values) {
    return values ? std::vector<float>(values->data(), values->data() + values->size()) : std::vector<float>();
}

template <class Weight>
std::shared_ptr<Matrix<Weight>> make_matrix(const Input<Bits<Weight>, 2>& weight, const std::optional<Input<float, 1>>& bias,
                                            const OptionalName& instruction_set) {
    require(weight.shape(0) > 0 && weight.shape(1) > 0, "The matrix is empty.");
    require(!bias || bias->size() == weight.shape(0), "The bias must have one entry per output.");
    return std::make_shared<Matrix<Weight>>(reinterpret_cast<const Weight*>(weight.data()), weight.shape(0), weight.shape(1), to_vector(bias),
                                            chosen(instruction_set));
}

// out [n, num_outputs] = rows [n, num_inputs] times the matrix, both in the type of the weights.
template <class Weight>
void multiply(const Matrix<Weight>& matrix, Address rows, size_t num_rows, Address out, size_t num_threads) {
    nb::gil_scoped_release unlocked;
    const Rows<Weight> inputs{at<const Weight>(rows), num_rows, matrix.num_inputs()};
    matrix.multiply(inputs, at<Weight>(out), matrix.num_outputs(), Onto::fresh, num_threads);
}

template <class Weight>
struct DecoderLayer {
    LayerShape shape;
    LayerWeights<Weight> weights;

    void check() const {
        const size_t width = weights.input_norm.size(), heads = shape.num_heads + shape.num_kv_heads;
        require(shape.head_dim % 2 == 0 && shape.num_kv_heads > 0 && shape.num_heads % shape.num_kv_heads == 0, "The heads do not fit together.");
        require(weights.qkv && weights.qkv->num_inputs() == width && weights.qkv->num_outputs() == (heads + shape.num_kv_heads) * shape.head_dim,
                "qkv must lead from the width to all heads.");
        require(weights.output && weights.output->num_inputs() == shape.num_heads * shape.head_dim && weights.output->num_outputs() == width,
                "output must lead from the query heads to the width.");
        require(weights.post_norm.size() == width, "The norms must be of one width.");
        require(weights.head_norm.empty() || weights.head_norm.size() == heads * shape.head_dim, "head_norm must cover queries and keys.");
        require(!weights.gate_up == !weights.down, "gate_up and down come together.");
        require(!weights.down || (weights.gate_up->num_inputs() == width && weights.down->num_outputs() == width &&
                                  weights.gate_up->num_outputs() == 2 * weights.down->num_inputs()),
                "gate_up and down must fit together and the width.");
    }

    void project(Address hidden, size_t num_rows, Address cos, Address sin, Address queries, Address keys, Address values,
                 size_t num_threads) const {
        nb::gil_scoped_release unlocked;
        project_attention(shape, weights, at<const float>(hidden), num_rows, {at<const float>(cos), at<const float>(sin)}, at<Weight>(queries),
                          at<Weight>(keys), at<Weight>(values), num_threads);
    }

    void finish(Address mixed, size_t num_rows, Address hidden, size_t num_threads) const {
        require(weights.down != nullptr, "This layer has no feed-forward network of its own.");
        nb::gil_scoped_release unlocked;
        finish_layer(shape, weights, at<const Weight>(mixed), num_rows, at<float>(hidden), num_threads);
    }

    void finish_attention_only(Address mixed, size_t num_rows, Address hidden, Address normed, size_t num_threads) const {
        nb::gil_scoped_release unlocked;
        finish_attention(shape, weights, at<const Weight>(mixed), num_rows, at<float>(hidden), at<float>(normed), num_threads);
    }
};

template <class Weight>
StackWeights<Weight> make_stack(const std::vector<const DecoderLayer<Weight>*>& layers, const Input<float, 1>& final_norm, float final_eps,
                                float attention_scale, const Input<Bits<Weight>, 2>& embedding) {
    require(!layers.empty(), "The stack has no layers.");
    require(embedding.shape(1) == final_norm.size(), "The embeddings must be of the layers' width.");
    StackWeights<Weight> stack{layers[0]->shape, {}, {final_norm.data(), final_norm.data() + final_norm.size()}, final_eps, attention_scale,
                               reinterpret_cast<const Weight*>(embedding.data()), embedding.shape(0)};
    for (const auto* layer : layers) {
        const LayerShape &shape = layer->shape, &first = stack.shape;
        require(shape.num_heads == first.num_heads && shape.num_kv_heads == first.num_kv_heads && shape.head_dim == first.head_dim &&
                    shape.norm_eps == first.norm_eps && layer->weights.input_norm.size() == stack.final_norm.size(),
                "The layers and the final norm must be of one shape.");
        require(layer->weights.down != nullptr, "Every layer must have a feed-forward network of its own.");
        stack.layers.push_back(layer->weights);
    }
    require(stack.shape.head_dim % 8 == 0, "Heads must be of a multiple of 8 entries.");
    return stack;
}

// (buffer, capacity, length, number of rows, words of the visible rows or 0 for causal, words per row)
using SegmentNumbers = std::tuple<Address, size_t, size_t, size_t, Address, size_t>;

// `rows [2, n]`: token ids and positions. `cos`, `sin`: of the first `num_positions` positions.
template <class Weight>
void run_stack_face(const StackWeights<Weight>& stack, const Input<int64_t, 2>& rows, Address cos, Address sin, size_t num_positions,
                    const std::vector<SegmentNumbers>& segments, std::vector<size_t> taps, Address features, Address out, size_t num_threads) {
    require(rows.shape(0) == 2, "The rows have token ids and positions.");
    const size_t num_rows = rows.shape(1);
    const int64_t *token_ids = rows.data(), *positions = token_ids + num_rows;
    for (size_t row = 0; row < num_rows; ++row) {
        require(token_ids[row] >= 0 && static_cast<size_t>(token_ids[row]) < stack.num_tokens, "A token lies outside the vocabulary.");
        require(positions[row] >= 0 && static_cast<size_t>(positions[row]) < num_positions, "A position lies outside the tables.");
    }
    nb::gil_scoped_release unlocked;
    StackPass<Weight> pass{num_rows, token_ids, positions, {at<const float>(cos), at<const float>(sin)}, {}, std::move(taps),
                           at<Weight>(features), at<Weight>(out)};
    for (const auto& [buffer, capacity, length, count, words, words_per_row] : segments)
        pass.segments.push_back({at<Weight>(buffer), capacity, length, count, at<const uint64_t>(words), words_per_row});
    run_stack(stack, pass, num_threads);
}

template <class Weight>
void bind_weights(nb::module_& module, const std::string& suffix) {
    using Layer = DecoderLayer<Weight>;
    using MatrixPointer = std::shared_ptr<Matrix<Weight>>;
    nb::class_<Matrix<Weight>>(module, ("Matrix" + suffix).c_str(), "A weight matrix [outputs, inputs], laid out for products with few rows.")
        .def(nb::new_(&make_matrix<Weight>), "weight"_a.noconvert(), "bias"_a.noconvert().none() = nb::none(), "instruction_set"_a = nb::none())
        .def_prop_ro("num_outputs", &Matrix<Weight>::num_outputs)
        .def_prop_ro("num_inputs", &Matrix<Weight>::num_inputs)
        .def_prop_ro("nbytes", &Matrix<Weight>::num_bytes)
        .def("multiply", &multiply<Weight>, "rows"_a, "num_rows"_a, "out"_a, "num_threads"_a,
             "out [num_rows, num_outputs] = rows [num_rows, num_inputs] times the matrix, of the weights' type.");
    nb::class_<Layer>(module, ("DecoderLayer" + suffix).c_str(), "A decoder layer around its attention; hidden states are float32.")
        .def(
            "__init__",
            [](Layer* self, size_t num_heads, size_t num_kv_heads, size_t head_dim, float norm_eps, const Input<float, 1>& input_norm,
               const std::optional<Input<float, 1>>& head_norm, const Input<float, 1>& post_norm, MatrixPointer qkv, MatrixPointer output,
               MatrixPointer gate_up, MatrixPointer down) {
                Layer layer{{num_heads, num_kv_heads, head_dim, norm_eps},
                            {to_vector(input_norm), to_vector(head_norm), to_vector(post_norm), std::move(qkv), std::move(output),
                             std::move(gate_up), std::move(down)}};
                layer.check();
                new (self) Layer(std::move(layer));
            },
            "num_heads"_a, "num_kv_heads"_a, "head_dim"_a, "norm_eps"_a, "input_norm"_a, "head_norm"_a.none(), "post_norm"_a, "qkv"_a,
            "output"_a, "gate_up"_a.none(), "down"_a.none())
        .def("project", &Layer::project, "hidden"_a, "num_rows"_a, "cos"_a, "sin"_a, "queries"_a, "keys"_a, "values"_a, "num_threads"_a,
             "Queries, keys and values of normed hidden states, head by head, rotated.")
        .def("finish", &Layer::finish, "mixed"_a, "num_rows"_a, "hidden"_a, "num_threads"_a,
             "From what attention gave to the output of the layer, in place of `hidden`.")
        .def("finish_attention", &Layer::finish_attention_only, "mixed"_a, "num_rows"_a, "hidden"_a, "normed"_a, "num_threads"_a,
             "The same for a layer whose feed-forward network is elsewhere: adds attention's output to `hidden`; its norm goes to `normed`.");
    nb::class_<StackWeights<Weight>>(module, ("DecoderStack" + suffix).c_str(), "Embeddings, all layers and the final norm in one call.")
        .def(nb::new_(&make_stack<Weight>), "layers"_a, "final_norm"_a, "final_eps"_a, "attention_scale"_a, "embedding"_a.noconvert())
        .def("run", &run_stack_face<Weight>, "rows"_a.noconvert(), "cos"_a, "sin"_a, "num_positions"_a, "segments"_a, "taps"_a, "features"_a,
             "out"_a, "num_threads"_a,
             "Final states of `rows [2, n]`, token ids and positions; `segments`: (buffer, capacity, length, rows, visible words or 0, words "
             "per row).");
}

template <class Out>
void rms_norm_face(Address hidden, size_t num_rows, Address weight, size_t width, float eps, Address normed) {
    nb::gil_scoped_release unlocked;
    rms_norm(Member{}, {at<const float>(hidden), num_rows, width}, at<const float>(weight), width, eps, at<Out>(normed));
}

// A matrix of bools as the words of `DenseAttention`.
std::vector<uint64_t> to_words(const bool* visible, size_t num_rows) {
    const size_t words_per_row = (num_rows + 63) / 64;
    std::vector<uint64_t> words(num_rows * words_per_row);
    for (size_t row = 0; row < num_rows; ++row)
        for (size_t other = 0; other < num_rows; ++other)
            words[row * words_per_row + other / 64] |= static_cast<uint64_t>(visible[row * num_rows + other]) << (other % 64);
    return words;
}

// Heads, rows and entries of a problem in the order (query heads, KV heads, entries), (query rows, keys).
template <class Stored>
void attend(Address queries, size_t query_head_stride, size_t query_row_stride, Address keys, Address values, size_t kv_head_stride,
            size_t num_heads, size_t num_kv_heads, size_t head_dim, size_t num_rows, size_t num_keys, Address visible, bool is_causal, float scale,
            Address out, size_t num_threads) {
    nb::gil_scoped_release unlocked;
    const auto words = visible == 0 ? std::vector<uint64_t>() : to_words(at<const bool>(visible), num_rows);
    const uint64_t* rows_seen = visible == 0 ? nullptr : words.data();
    attend_dense<Stored>({at<const Stored>(queries), at<const Stored>(keys), at<const Stored>(values), query_head_stride, query_row_stride,
                          kv_head_stride, num_heads, num_kv_heads, head_dim, num_rows, num_keys, rows_seen, (num_rows + 63) / 64, is_causal,
                          scale, at<Stored>(out)},
                         num_threads);
}

// `num_heads` times `num_rows` rows of `row_bytes` bytes; strides in bytes, the rows of `target` lie side by side.
void copy_rows(Address source, size_t source_head_stride, size_t source_row_stride, Address target, size_t target_head_stride, size_t num_heads,
               size_t num_rows, size_t row_bytes) {
    for (size_t head = 0; head < num_heads; ++head)
        for (size_t row = 0; row < num_rows; ++row)
            std::memcpy(at<char>(target) + head * target_head_stride + row * row_bytes,
                        at<const char>(source) + head * source_head_stride + row * source_row_stride, row_bytes);
}

template <class Stored>
void bind_functions(nb::module_& module, const std::string& suffix) {
    module.def(("attend_dense_" + suffix).c_str(), &attend<Stored>, "queries"_a, "query_head_stride"_a, "query_row_stride"_a, "keys"_a,
               "values"_a, "kv_head_stride"_a, "num_heads"_a, "num_kv_heads"_a, "head_dim"_a, "num_rows"_a, "num_keys"_a, "visible"_a,
               "is_causal"_a, "scale"_a, "out"_a, "num_threads"_a,
               "Attention of the last rows of a dense buffer; `visible`: 0, or the address of bools, rows by rows.");
    module.def(("rms_norm_" + suffix).c_str(), &rms_norm_face<Stored>, "hidden"_a, "num_rows"_a, "weight"_a, "width"_a, "eps"_a, "normed"_a,
               "RMS norm of float32 rows, into the type of the name.");
}

}  // namespace

void bind_decoder(nb::module_& module) {
    bind_weights<float>(module, "Float32");
    bind_weights<BFloat16>(module, "BFloat16");
    bind_functions<float>(module, "float32");
    bind_functions<BFloat16>(module, "bfloat16");
    module.def("copy_rows", &copy_rows, "source"_a, "source_head_stride"_a, "source_row_stride"_a, "target"_a, "target_head_stride"_a,
               "num_heads"_a, "num_rows"_a, "row_bytes"_a,
               "Copies rows of bytes, head by head; strides in bytes, the rows of the target lie side by side.");
}

}  // namespace hoarfrost
