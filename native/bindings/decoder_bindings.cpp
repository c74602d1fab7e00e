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
#include "decoder/dense_matrix.hpp"
#include "decoder/quantized_matrix.hpp"

namespace hoarfrost {

namespace {

std::vector<float> to_vector(const std::optional<Input<float, 1>>& values) {
    return values ? std::vector<float>(values->data(), values->data() + values->size()) : std::vector<float>();
}

using MatrixPointer = std::shared_ptr<const Matrix>;

// bfloat16 is no type of numpy's: it comes as its bits.
template <class Weight, class Bits>
MatrixPointer make_dense_matrix(const Input<Bits, 2>& weight, const std::optional<Input<float, 1>>& bias, const OptionalName& instruction_set) {
    require(weight.shape(0) > 0 && weight.shape(1) > 0, "The matrix is empty.");
    require(!bias || bias->size() == weight.shape(0), "The bias must have one entry per output.");
    return std::make_shared<DenseMatrix<Weight>>(reinterpret_cast<const Weight*>(weight.data()), weight.shape(0), weight.shape(1), to_vector(bias),
                                                 chosen(instruction_set));
}

// `blocks [num_outputs, bytes per row]` of the ggml type `kind`.
MatrixPointer make_quantized_matrix(const std::string& kind, const Input<uint8_t, 2>& blocks, size_t num_inputs,
                                    const std::optional<Input<float, 1>>& bias, const OptionalName& instruction_set) {
    const BlockFormat& format = block_format(kind);
    require(blocks.shape(0) > 0 && num_inputs > 0 && num_inputs % format.block_size == 0 &&
                blocks.shape(1) == num_inputs / format.block_size * format.block_bytes,
            "The rows must be whole blocks of their type.");
    require(!bias || bias->size() == blocks.shape(0), "The bias must have one entry per output.");
    return std::make_shared<QuantizedMatrix>(format, blocks.data(), blocks.shape(0), num_inputs, to_vector(bias), chosen(instruction_set));
}

// out [n, num_outputs] = rows [n, num_inputs] times the matrix, each float32 or bfloat16; not float32 rows to bfloat16.
void multiply(const Matrix& matrix, Address rows, bool rows_are_rounded, size_t num_rows, Address out, bool out_is_rounded, size_t num_threads) {
    nb::gil_scoped_release unlocked;
    const Rows inputs = rows_are_rounded ? Rows(at<const BFloat16>(rows), num_rows, matrix.num_inputs())
                                         : Rows(at<const float>(rows), num_rows, matrix.num_inputs());
    const Products products = out_is_rounded ? Products(at<BFloat16>(out), matrix.num_outputs()) : Products(at<float>(out), matrix.num_outputs());
    matrix.multiply(inputs, products, num_threads);
}

// The weights of some outputs, [n, num_inputs] in float32.
void read_rows(const Matrix& matrix, const std::vector<size_t>& outputs, Address out) {
    for (size_t i = 0; i < outputs.size(); ++i) {
        require(outputs[i] < matrix.num_outputs(), "A row lies outside the matrix.");
        matrix.read_row(outputs[i], at<float>(out) + i * matrix.num_inputs());
    }
}

struct DecoderLayer {
    LayerShape shape;
    LayerWeights weights;

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

    template <class Stored>
    void project(Address hidden, size_t num_rows, Address cos, Address sin, Address queries, Address keys, Address values,
                 size_t num_threads) const {
        nb::gil_scoped_release unlocked;
        project_attention(shape, weights, at<const float>(hidden), num_rows, {at<const float>(cos), at<const float>(sin)}, at<Stored>(queries),
                          at<Stored>(keys), at<Stored>(values), num_threads);
    }

    template <class Stored>
    void finish(Address mixed, size_t num_rows, Address hidden, size_t num_threads) const {
        require(weights.down != nullptr, "This layer has no feed-forward network of its own.");
        nb::gil_scoped_release unlocked;
        finish_layer(shape, weights, at<const Stored>(mixed), num_rows, at<float>(hidden), num_threads);
    }

    template <class Stored>
    void finish_attention_only(Address mixed, size_t num_rows, Address hidden, Address normed, size_t num_threads) const {
        nb::gil_scoped_release unlocked;
        finish_attention(shape, weights, at<const Stored>(mixed), num_rows, at<float>(hidden), at<float>(normed), num_threads);
    }
};

StackWeights make_stack(const std::vector<const DecoderLayer*>& layers, const Input<float, 1>& final_norm, float final_eps,
                        float attention_scale, Embedding embedding) {
    require(!layers.empty(), "The stack has no layers.");
    StackWeights stack{layers[0]->shape, {}, {final_norm.data(), final_norm.data() + final_norm.size()}, final_eps, attention_scale,
                       std::move(embedding)};
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

// The rows of a table [tokens, width], which is not copied.
template <class Weight, class Bits>
Embedding embedding_of_table(const Input<Bits, 2>& table) {
    Embedding embedding{.num_tokens = table.shape(0)};
    if constexpr (std::is_same_v<Weight, float>) embedding.floats = table.data();
    else embedding.rounded = reinterpret_cast<const BFloat16*>(table.data());
    return embedding;
}

template <class Weight, class Bits>
StackWeights make_stack_with_table(const std::vector<const DecoderLayer*>& layers, const Input<float, 1>& final_norm, float final_eps,
                                   float attention_scale, const Input<Bits, 2>& table) {
    require(table.shape(1) == final_norm.size(), "The embeddings must be of the layers' width.");
    return make_stack(layers, final_norm, final_eps, attention_scale, embedding_of_table<Weight, Bits>(table));
}

StackWeights make_stack_with_matrix(const std::vector<const DecoderLayer*>& layers, const Input<float, 1>& final_norm, float final_eps,
                                    float attention_scale, MatrixPointer matrix) {
    require(matrix && matrix->num_inputs() == final_norm.size(), "The embeddings must be of the layers' width.");
    const size_t num_tokens = matrix->num_outputs();
    return make_stack(layers, final_norm, final_eps, attention_scale, {.matrix = std::move(matrix), .num_tokens = num_tokens});
}

// (buffer, capacity, length, number of rows, words of the visible rows or 0 for causal, words per row)
using SegmentNumbers = std::tuple<Address, size_t, size_t, size_t, Address, size_t>;

// `rows [2, n]`: token ids and positions. `cos`, `sin`: of the first `num_positions` positions.
template <class Stored>
void run_stack_face(const StackWeights& stack, const Input<int64_t, 2>& rows, Address cos, Address sin, size_t num_positions,
                    const std::vector<SegmentNumbers>& segments, std::vector<size_t> taps, Address features, Address out, size_t num_threads) {
    require(rows.shape(0) == 2, "The rows have token ids and positions.");
    const size_t num_rows = rows.shape(1);
    const int64_t *token_ids = rows.data(), *positions = token_ids + num_rows;
    for (size_t row = 0; row < num_rows; ++row) {
        require(token_ids[row] >= 0 && static_cast<size_t>(token_ids[row]) < stack.embedding.num_tokens, "A token lies outside the vocabulary.");
        require(positions[row] >= 0 && static_cast<size_t>(positions[row]) < num_positions, "A position lies outside the tables.");
    }
    nb::gil_scoped_release unlocked;
    StackPass<Stored> pass{num_rows, token_ids, positions, {at<const float>(cos), at<const float>(sin)}, {}, std::move(taps),
                           at<Stored>(features), at<Stored>(out)};
    for (const auto& [buffer, capacity, length, count, words, words_per_row] : segments)
        pass.segments.push_back({at<Stored>(buffer), capacity, length, count, at<const uint64_t>(words), words_per_row});
    run_stack(stack, pass, num_threads);
}

// Methods for keys and values, hidden states that come in and go out, of one type.
template <class Stored>
void bind_passes(nb::class_<DecoderLayer>& layer, nb::class_<StackWeights>& stack, const std::string& suffix) {
    layer
        .def(("project" + suffix).c_str(), &DecoderLayer::project<Stored>, "hidden"_a, "num_rows"_a, "cos"_a, "sin"_a, "queries"_a, "keys"_a,
             "values"_a, "num_threads"_a, "Queries, keys and values of normed hidden states, head by head, rotated.")
        .def(("finish" + suffix).c_str(), &DecoderLayer::finish<Stored>, "mixed"_a, "num_rows"_a, "hidden"_a, "num_threads"_a,
             "From what attention gave to the output of the layer, in place of `hidden`.")
        .def(("finish_attention" + suffix).c_str(), &DecoderLayer::finish_attention_only<Stored>, "mixed"_a, "num_rows"_a, "hidden"_a,
             "normed"_a, "num_threads"_a,
             "The same for a layer whose feed-forward network is elsewhere: adds attention's output to `hidden`; its norm goes to `normed`.");
    stack.def(("run" + suffix).c_str(), &run_stack_face<Stored>, "rows"_a.noconvert(), "cos"_a, "sin"_a, "num_positions"_a, "segments"_a,
              "taps"_a, "features"_a, "out"_a, "num_threads"_a,
              "Final states of `rows [2, n]`, token ids and positions; `segments`: (buffer, capacity, length, rows, visible words or 0, words "
              "per row).");
}

void bind_weights(nb::module_& module) {
    nb::class_<Matrix>(module, "Matrix", "A weight matrix [outputs, inputs], laid out for products with few rows.")
        .def_prop_ro("num_outputs", &Matrix::num_outputs)
        .def_prop_ro("num_inputs", &Matrix::num_inputs)
        .def_prop_ro("nbytes", &Matrix::num_bytes)
        .def("multiply", &multiply, "rows"_a, "rows_are_rounded"_a, "num_rows"_a, "out"_a, "out_is_rounded"_a, "num_threads"_a,
             "out [num_rows, num_outputs] = rows [num_rows, num_inputs] times the matrix; rounded ones are bfloat16, the others float32.")
        .def("read_rows", &read_rows, "outputs"_a, "out"_a, "The weights of some outputs, one behind the other, in float32.");
    module.def("matrix_float32", &make_dense_matrix<float, float>, "weight"_a.noconvert(), "bias"_a.noconvert().none() = nb::none(),
               "instruction_set"_a = nb::none());
    module.def("matrix_bfloat16", &make_dense_matrix<BFloat16, uint16_t>, "weight"_a.noconvert(), "bias"_a.noconvert().none() = nb::none(),
               "instruction_set"_a = nb::none());
    module.def("matrix_quantized", &make_quantized_matrix, "kind"_a, "blocks"_a.noconvert(), "num_inputs"_a,
               "bias"_a.noconvert().none() = nb::none(), "instruction_set"_a = nb::none());
    module.def(
        "stack_matrices", [](std::vector<MatrixPointer> parts) -> MatrixPointer { return std::make_shared<StackedMatrix>(std::move(parts)); },
        "parts"_a);
    nb::class_<DecoderLayer> layer(module, "DecoderLayer", "A decoder layer around its attention; hidden states are float32.");
    layer.def(
        "__init__",
        [](DecoderLayer* self, size_t num_heads, size_t num_kv_heads, size_t head_dim, float norm_eps, const Input<float, 1>& input_norm,
           const std::optional<Input<float, 1>>& head_norm, const Input<float, 1>& post_norm, MatrixPointer qkv, MatrixPointer output,
           MatrixPointer gate_up, MatrixPointer down) {
            DecoderLayer layer{{num_heads, num_kv_heads, head_dim, norm_eps},
                               {to_vector(input_norm), to_vector(head_norm), to_vector(post_norm), std::move(qkv), std::move(output),
                                std::move(gate_up), std::move(down)}};
            layer.check();
            new (self) DecoderLayer(std::move(layer));
        },
        "num_heads"_a, "num_kv_heads"_a, "head_dim"_a, "norm_eps"_a, "input_norm"_a, "head_norm"_a.none(), "post_norm"_a, "qkv"_a, "output"_a,
        "gate_up"_a.none(), "down"_a.none());
    nb::class_<StackWeights> stack(module, "DecoderStack", "Embeddings, all layers and the final norm in one call.");
    stack
        .def(nb::new_(&make_stack_with_matrix), "layers"_a, "final_norm"_a, "final_eps"_a, "attention_scale"_a, "embedding"_a)
        .def(nb::new_(&make_stack_with_table<float, float>), "layers"_a, "final_norm"_a, "final_eps"_a, "attention_scale"_a,
             "embedding"_a.noconvert())
        .def(nb::new_(&make_stack_with_table<BFloat16, uint16_t>), "layers"_a, "final_norm"_a, "final_eps"_a, "attention_scale"_a,
             "embedding"_a.noconvert());
    bind_passes<float>(layer, stack, "_float32");
    bind_passes<BFloat16>(layer, stack, "_bfloat16");
}

template <class Out>
void rms_norm_face(Address hidden, size_t num_rows, Address weight, size_t width, float eps, Address normed) {
    nb::gil_scoped_release unlocked;
    rms_norm(Member{}, at<const float>(hidden), num_rows, at<const float>(weight), width, eps, at<Out>(normed));
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
    bind_weights(module);
    bind_functions<float>(module, "float32");
    bind_functions<BFloat16>(module, "bfloat16");
    module.def("copy_rows", &copy_rows, "source"_a, "source_head_stride"_a, "source_row_stride"_a, "target"_a, "target_head_stride"_a,
               "num_heads"_a, "num_rows"_a, "row_bytes"_a,
               "Copies rows of bytes, head by head; strides in bytes, the rows of the target lie side by side.");
}

}  // namespace hoarfrost
