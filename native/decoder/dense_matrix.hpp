// A matrix of float32 or bfloat16 weights.
//
// Outputs are taken in panels of two registers; a panel holds its weights input by input, so that a product reads memory from front to
// back. bfloat16 weights alternate between the two registers, which makes widening them to float32 nearly free: a single row costs the
// reading of half the bytes. Where the processor multiplies pairs of bfloat16 numbers (`avx512_bf16`), a panel holds them pair by pair, and
// rows are rounded to bfloat16 before such a product. Sums are float32 everywhere. Every entry of a result is summed over the inputs in
// their order, by itself. Every thread lays out the rows for itself, and norms them on the way: that takes less time than waiting for each
// other would.
#pragma once

#include "base/instruction_set.hpp"
#include "decoder/matrix.hpp"
#include "decoder/matrix_rows.hpp"

namespace hoarfrost {

template <class Weight>
class DenseMatrix final : public Matrix {
public:
    // `weight [num_outputs, num_inputs]` is copied; `bias` is empty or has one entry per output.
    DenseMatrix(const Weight* weight, size_t num_outputs, size_t num_inputs, std::vector<float> bias, InstructionSet instruction_set);

    using Matrix::multiply;
    size_t num_bytes() const override;
    void multiply(const Member& member, const Rows& rows, const Products& products) const override;
    size_t num_shares(size_t num_rows) const override;
    void read_row(size_t output, float* weights) const override;

private:
    size_t panel_width() const;
    size_t place(size_t output, size_t input) const;
    size_t panels_per_share(size_t num_rows) const;

    InstructionSet instruction_set_;
    size_t num_panels_, panel_size_;
    std::vector<float> bias_;
    AlignedArray<Weight> panels_;
};

extern template class DenseMatrix<float>;
extern template class DenseMatrix<BFloat16>;

}  // namespace hoarfrost
