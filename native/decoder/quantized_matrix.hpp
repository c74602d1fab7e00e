// A matrix of weights of few bits (quantized_blocks.hpp), multiplied in whole numbers.
//
// Rows are quantised to 8 bits on the way: a group of as many inputs as share a scale of the weights gets a scale of its own, its largest
// entry over 127. The products of a group's codes are summed in integers, which is exact in any order; the groups' sums are then scaled and
// added in float32, group after group. Codes of 4 bits stay 4 bits in memory and are taken apart once for all rows of a tile.
//
// Outputs are taken in panels of one register. What instructions multiply decides how a panel holds its codes: four inputs side by side
// (products of bytes: VNNI, Arm's dot products, and `maddubs` for 4-bit codes) or two (8-bit codes without VNNI, whose products are taken in 16 bits).
#pragma once

#include <cstdint>

#include "base/instruction_set.hpp"
#include "decoder/matrix.hpp"
#include "decoder/matrix_rows.hpp"
#include "decoder/quantized_blocks.hpp"

namespace hoarfrost {

class QuantizedMatrix final : public Matrix {
public:
    // `blocks [num_outputs, num_inputs / format.block_size]` are copied; `bias` is empty or has one entry per output.
    QuantizedMatrix(const BlockFormat& format, const uint8_t* blocks, size_t num_outputs, size_t num_inputs, std::vector<float> bias,
                    InstructionSet instruction_set);

    using Matrix::multiply;
    size_t num_bytes() const override;
    void multiply(const Member& member, const Rows& rows, const Products& products) const override;
    size_t num_shares(size_t num_rows) const override;
    void read_row(size_t output, float* weights) const override;

private:
    void place_row(size_t output, const uint8_t* codes, const float* scales, const float* offsets);
    void place_scale(size_t place, float scale);
    float scale_at(size_t place) const;
    size_t group_place(size_t output, size_t group) const;
    size_t code_place(size_t output, size_t input) const;
    size_t scale_place(size_t output, size_t group, bool is_offset) const;
    bool is_upper(size_t input) const;
    size_t panels_per_share(size_t num_rows) const;

    const BlockFormat* format_;
    InstructionSet instruction_set_;
    size_t lanes_, inputs_together_;
    int32_t lowered_by_;  // 8-bit codes are kept so much lower, where instructions multiply signed ones
    size_t num_groups_, num_panels_;
    std::vector<float> bias_;
    size_t code_bytes_, scale_bytes_, group_bytes_;  // of a group's codes, of one scale, of all that a group holds
    AlignedArray<uint8_t> groups_;
};

}  // namespace hoarfrost
