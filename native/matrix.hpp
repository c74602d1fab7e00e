// Products of rows with one weight matrix that is laid out for them once: all the linear layers of a decoder.
//
// Outputs are taken in panels of two registers; a panel holds its weights input by input, so that a product reads memory from front to
// back. bfloat16 weights alternate between the two registers, which makes widening them to float32 nearly free: a single row costs the
// reading of half the bytes. All arithmetic is float32. Every entry of a result is summed over the inputs in their order, by itself: a row
// comes out the same, bit for bit, whatever rows stand beside it and however many threads work.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "bfloat16.hpp"
#include "instruction_set.hpp"

namespace hoarfrost {

// Rows of floats, `stride` apart.
struct FloatRows {
    const float* data;
    size_t count, stride;
};

// What becomes of a product: written, or added to what is there.
enum class Onto { fresh, sum };

template <class Weight>
class Matrix {
public:
    // `weight [num_outputs, num_inputs]` is copied; `bias` is empty or has one entry per output.
    Matrix(const Weight* weight, size_t num_outputs, size_t num_inputs, std::vector<float> bias, InstructionSet instruction_set);

    size_t num_outputs() const { return num_outputs_; }
    size_t num_inputs() const { return num_inputs_; }
    size_t num_bytes() const;

    // out [rows.count, num_outputs] (`out_stride` apart) = or += rows [count, num_inputs] times the matrix, plus the bias.
    void multiply(const FloatRows& rows, float* out, size_t out_stride, Onto onto, size_t num_threads) const;

private:
    size_t panel_width() const;

    size_t num_outputs_, num_inputs_, num_panels_;
    InstructionSet instruction_set_;
    std::vector<float> bias_;
    std::unique_ptr<Weight[], void (*)(Weight*)> panels_;
};

extern template class Matrix<float>;
extern template class Matrix<BFloat16>;

}  // namespace hoarfrost
