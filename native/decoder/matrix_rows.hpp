// What matrices of all kinds do with rows before a product and with sums after it, for kernels to inline.
#pragma once

#include <algorithm>

#include "decoder/matrix.hpp"
#include "decoder/rms_norm.hpp"

namespace hoarfrost {

constexpr std::align_val_t matrix_alignment{64};

// Room that products read in whole registers: zeros, aligned to cache lines.
template <class Scalar>
using AlignedArray = std::unique_ptr<Scalar[], void (*)(Scalar*)>;

template <class Scalar>
AlignedArray<Scalar> aligned_zeros(size_t count) {
    auto* memory = static_cast<Scalar*>(::operator new(count * sizeof(Scalar), matrix_alignment));
    std::fill_n(memory, count, Scalar{});
    return {memory, [](Scalar* pointer) { ::operator delete(pointer, matrix_alignment); }};
}

// Row `index` in float32, its norm taken where that is meant: where it stands, or in `place`.
HOARFROST_INLINE const float* float_row(const Rows& rows, size_t index, size_t num_inputs, float* place) {
    if (rows.rounded != nullptr) {
        for (size_t i = 0; i < num_inputs; ++i) place[i] = to_float(rows.rounded[index * rows.stride + i]);
        return place;
    }
    const float* row = rows.floats + index * rows.stride;
    if (rows.norm_weight == nullptr) return row;
    norm_row(row, rows.norm_weight, num_inputs, rows.norm_eps, place);
    return place;
}

// Writes sums [num_rows, width] of the outputs from `first_output` on, as many of them as there are, where they go; `bias` null: none.
HOARFROST_INLINE void deliver(const Products& products, const float* bias, size_t num_outputs, size_t first_row, size_t num_rows,
                              size_t first_output, size_t width, const float* sums) {
    const size_t count = std::min(width, num_outputs - first_output);
    const Products place = products.at(first_row, first_output);
    for (size_t r = 0; r < num_rows; ++r, sums += width)
        for (size_t j = 0; j < count; ++j) {
            const float sum = bias == nullptr ? sums[j] : sums[j] + bias[first_output + j];
            if (place.floats == nullptr) assign(place.rounded[r * place.stride + j], sum);
            else place.floats[r * place.stride + j] = place.onto == Onto::sum ? place.floats[r * place.stride + j] + sum : sum;
        }
}

}  // namespace hoarfrost
