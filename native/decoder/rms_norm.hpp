// The RMS norm of a row, for kernels to inline.
#pragma once

#include <cmath>
#include <cstddef>

#include "base/lanes.hpp"

namespace hoarfrost {

// What an entry of the row is multiplied with before its weight: 1 / sqrt(mean(row^2) + eps).
template <class Row>
HOARFROST_INLINE float norm_scale(const Row* row, size_t width, float eps) {
    using L = Lanes<8>;
    L total = L::all(0.0f);
    size_t i = 0;
    for (; i + 8 <= width; i += 8) {
        const L x = L::load(row + i);
        total = x * x + total;
    }
    float sum = sum_of(total);
    for (; i < width; ++i) sum += to_float(row[i]) * to_float(row[i]);
    return 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
}

template <class Out>
HOARFROST_INLINE void norm_row(const float* row, const float* weight, size_t width, float eps, Out* out) {
    const float scale = norm_scale(row, width, eps);
    for (size_t i = 0; i < width; ++i) assign(out[i], row[i] * scale * weight[i]);
}

}  // namespace hoarfrost
