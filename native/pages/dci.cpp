// Lifting, projections and assignment to pivots: see dci.hpp.
#include "pages/dci.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "pages/dci_screen.hpp"

namespace hoarfrost {

namespace {

// To the nearest whole number, ties to even, within the 16 bits; the product must be below 2^22. The sum's mantissa ends with that number.
HOARFROST_INLINE int16_t to_fixed(float value, float scale) {
    const int32_t rounded = std::bit_cast<int32_t>(value * scale + 0x1.8p23f) - std::bit_cast<int32_t>(0x1.8p23f);
    return static_cast<int16_t>(std::clamp(rounded, -32767, 32767));
}

HOARFROST_INLINE int32_t product(const int16_t* a, const int16_t* b, size_t width) {
    int32_t sum = 0;
    for (size_t d = 0; d < width; ++d) sum += static_cast<int32_t>(a[d]) * b[d];
    return sum;
}

void nearest_of_all(const LiftedRows& points, const LiftedRows& pivots, InstructionSet instruction_set, int32_t* nearest) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t point = 0; point < points.num_rows; ++point) {
            int32_t best = std::numeric_limits<int32_t>::min();
            for (size_t pivot = 0; pivot < pivots.num_rows; ++pivot) {
                const int32_t score = product(points.data + point * points.width, pivots.data + pivot * pivots.width, points.width);
                if (score > best) {
                    best = score;
                    nearest[point] = static_cast<int32_t>(pivot);
                }
            }
        }
    });
}

}  // namespace

template <class Key>
float largest_squared_length(const KeyRows<Key>& keys, InstructionSet instruction_set) {
    float largest = 0.0f, unknown = 0.0f;
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t row = 0; row < keys.num_rows; ++row) {
            const float length = squared_length(keys.data + row * keys.row_stride, keys.head_dim);
            largest = length > largest ? length : largest;
            unknown += length - length;  // NaN once a length is not finite
        }
    });
    return largest + unknown;
}

template <class Key>
void lift_keys(const KeyRows<Key>& keys, float squared_radius, size_t width, const int16_t* direction, InstructionSet instruction_set,
               int16_t* lifted, int32_t* projections) {
    const float scale = squared_radius > 0.0f ? 32767.0f / std::sqrt(squared_radius) : 0.0f;
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t row = 0; row < keys.num_rows; ++row) {
            const Key* key = keys.data + row * keys.row_stride;
            int16_t* out = lifted + row * width;
            const float length = squared_length(key, keys.head_dim), rest = squared_radius - length;
            const float fitting = rest < 0.0f ? 32767.0f / std::sqrt(length) : scale;  // a longer key is shortened to the radius
            for (size_t d = 0; d < keys.head_dim; ++d) out[d] = to_fixed(to_float(key[d]), fitting);
            out[keys.head_dim] = to_fixed(std::sqrt(rest > 0.0f ? rest : 0.0f), scale);
            for (size_t d = keys.head_dim + 1; d < width; ++d) out[d] = 0;
            projections[row] = product(out, direction, width);
        }
    });
}

PivotFinder::PivotFinder(const LiftedRows& pivots, size_t num_points, InstructionSet instruction_set)
    : pivots_(pivots), instruction_set_(instruction_set) {
#if HOARFROST_X86
    constexpr size_t fewest_points = 8;  // for fewer, the screen costs more than it saves
    if (instruction_set != InstructionSet::plain && num_points >= fewest_points) screen_ = std::make_unique<PivotScreen>(pivots);
#endif
    (void)num_points;
}

PivotFinder::~PivotFinder() = default;

void PivotFinder::find(const LiftedRows& points, int32_t* nearest) const {
#if HOARFROST_X86
    if (screen_) return screen_->find(points, nearest);
#endif
    nearest_of_all(points, pivots_, instruction_set_, nearest);
}

template float largest_squared_length(const KeyRows<float>&, InstructionSet);
template float largest_squared_length(const KeyRows<BFloat16>&, InstructionSet);
template void lift_keys(const KeyRows<float>&, float, size_t, const int16_t*, InstructionSet, int16_t*, int32_t*);
template void lift_keys(const KeyRows<BFloat16>&, float, size_t, const int16_t*, InstructionSet, int16_t*, int32_t*);

}  // namespace hoarfrost
