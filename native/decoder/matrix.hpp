// Products of rows with one weight matrix that is laid out for them once: all the linear layers of a decoder.
//
// Outputs are taken in panels of two registers; a panel holds its weights input by input, so that a product reads memory from front to
// back. bfloat16 weights alternate between the two registers, which makes widening them to float32 nearly free: a single row costs the
// reading of half the bytes. All arithmetic is float32. Every entry of a result is summed over the inputs in their order, by itself: a row
// comes out the same, bit for bit, whatever rows stand beside it and however many threads work. Every thread lays out the rows for itself,
// and norms them on the way: that takes less time than waiting for each other would.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "base/bfloat16.hpp"
#include "base/instruction_set.hpp"
#include "base/team.hpp"

namespace hoarfrost {

// Rows, `stride` scalars apart; with `norm_weight` their RMS norms are meant.
template <class Row>
struct Rows {
    const Row* data;
    size_t count, stride;
    const float* norm_weight = nullptr;
    float norm_eps = 0.0f;
};

// What becomes of a product: written, or added to what is there, which must be float32.
enum class Onto { fresh, sum };

template <class Weight>
class Matrix {
public:
    // `weight [num_outputs, num_inputs]` is copied; `bias` is empty or has one entry per output.
    Matrix(const Weight* weight, size_t num_outputs, size_t num_inputs, std::vector<float> bias, InstructionSet instruction_set);

    size_t num_outputs() const { return num_outputs_; }
    size_t num_inputs() const { return num_inputs_; }
    size_t num_bytes() const;

    // out [rows.count, num_outputs] (`out_stride` apart) = or += rows [count, num_inputs] times the matrix, plus the bias: the member's share of
    // the outputs.
    template <class Row, class Out>
    void multiply(const Member& member, const Rows<Row>& rows, Out* out, size_t out_stride, Onto onto) const;

    // The whole product, on as many threads as are worth waking.
    template <class Row, class Out>
    void multiply(const Rows<Row>& rows, Out* out, size_t out_stride, Onto onto, size_t num_threads) const {
        run_team(std::min(num_threads, num_shares(rows.count)), [&](const Member& member) { multiply(member, rows, out, out_stride, onto); });
    }
    void multiply(const Rows<float>& rows, float* out, size_t out_stride, Onto onto, size_t num_threads) const {
        multiply<float, float>(rows, out, out_stride, onto, num_threads);
    }

    // How many threads are worth waking for the product of so many rows.
    size_t num_shares(size_t num_rows) const;

private:
    size_t panel_width() const;
    size_t panels_per_share(size_t num_rows) const;

    size_t num_outputs_, num_inputs_, num_panels_;
    InstructionSet instruction_set_;
    std::vector<float> bias_;
    std::unique_ptr<Weight[], void (*)(Weight*)> panels_;
};

extern template class Matrix<float>;
extern template class Matrix<BFloat16>;

}  // namespace hoarfrost
