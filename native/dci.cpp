// Lifting, assignment to pivots and projections: see dci.hpp.
#include "dci.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#if HOARFROST_X86
#include <immintrin.h>
#endif

namespace hoarfrost {

namespace {

constexpr size_t num_lanes = 8;

template <class Key>
HOARFROST_INLINE float squared_length(const Key* key, size_t head_dim) {
    float lanes[num_lanes] = {};
    size_t d = 0;
    for (; d + num_lanes <= head_dim; d += num_lanes)
        for (size_t i = 0; i < num_lanes; ++i) lanes[i] += to_float(key[d + i]) * to_float(key[d + i]);
    for (size_t i = 0; d + i < head_dim; ++i) lanes[i] += to_float(key[d + i]) * to_float(key[d + i]);
    for (size_t half = num_lanes / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

// To the nearest whole number, ties to even, within the 16 bits.
HOARFROST_INLINE int16_t to_fixed(float value, float scale) {
    const float scaled = value * scale;
    const float bounded = scaled < -32767.0f ? -32767.0f : scaled > 32767.0f ? 32767.0f : scaled;
    const float rounded = (bounded + 0x1.8p23f) - 0x1.8p23f;
    return static_cast<int16_t>(static_cast<int32_t>(rounded));
}

int32_t product(const int16_t* a, const int16_t* b, size_t width) {
    int32_t sum = 0;
    for (size_t d = 0; d < width; ++d) sum += static_cast<int32_t>(a[d]) * b[d];
    return sum;
}

void nearest_plain(const LiftedRows& points, const LiftedRows& pivots, int32_t* nearest) {
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
}

#if HOARFROST_X86

constexpr size_t panel_pivots = 16;  // two registers of eight
constexpr size_t tile_points = 4;  // with more, sums spill
constexpr size_t block_points = 16 * tile_points;

// Pivots in panels of 16: [num_panels, width / 2, 16] pairs of entries. The last panel is filled up with copies of the last pivot.
std::vector<int16_t> packed_panels(const LiftedRows& pivots) {
    const size_t num_panels = (pivots.num_rows + panel_pivots - 1) / panel_pivots, num_pairs = pivots.width / 2;
    std::vector<int16_t> packed(num_panels * num_pairs * panel_pivots * 2);
    for (size_t i = 0; i < num_panels * panel_pivots; ++i) {
        const int16_t* pivot = pivots.data + std::min(i, pivots.num_rows - 1) * pivots.width;
        int16_t* panel = packed.data() + i / panel_pivots * num_pairs * panel_pivots * 2 + i % panel_pivots * 2;
        for (size_t pair = 0; pair < num_pairs; ++pair) std::copy_n(pivot + 2 * pair, 2, panel + pair * panel_pivots * 2);
    }
    return packed;
}

// Of each point of a tile, the best products so far and their panels, in 16 lanes.
struct Lead {
    __m256i scores[2], panels[2];
};

HOARFROST_AVX2 inline __attribute__((always_inline)) void multiply_tile(const int16_t* points, size_t width, const int16_t* panel,
                                                                        int32_t panel_number, Lead* leads) {
    __m256i sums[tile_points][2];
    for (size_t i = 0; i < tile_points; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (size_t pair = 0; pair < width / 2; ++pair) {
        const __m256i* pivots = reinterpret_cast<const __m256i*>(panel + pair * panel_pivots * 2);
        const __m256i first = _mm256_loadu_si256(pivots), second = _mm256_loadu_si256(pivots + 1);
        for (size_t i = 0; i < tile_points; ++i) {
            int32_t entries;
            __builtin_memcpy(&entries, points + i * width + 2 * pair, sizeof(entries));
            const __m256i entry = _mm256_set1_epi32(entries);
            sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(entry, first));
            sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(entry, second));
        }
    }
    const __m256i number = _mm256_set1_epi32(panel_number);
    for (size_t i = 0; i < tile_points; ++i)
        for (size_t half = 0; half < 2; ++half) {
            const __m256i better = _mm256_cmpgt_epi32(sums[i][half], leads[i].scores[half]);
            leads[i].scores[half] = _mm256_blendv_epi8(leads[i].scores[half], sums[i][half], better);
            leads[i].panels[half] = _mm256_blendv_epi8(leads[i].panels[half], number, better);
        }
}

HOARFROST_AVX2 int32_t winner_of(const Lead& lead, size_t num_pivots) {
    alignas(32) int32_t scores[panel_pivots], panels[panel_pivots];
    for (size_t half = 0; half < 2; ++half) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(scores + 8 * half), lead.scores[half]);
        _mm256_store_si256(reinterpret_cast<__m256i*>(panels + 8 * half), lead.panels[half]);
    }
    int64_t best = std::numeric_limits<int64_t>::min();
    for (size_t lane = 0; lane < panel_pivots; ++lane) {
        const size_t pivot = std::min(static_cast<size_t>(panels[lane]) * panel_pivots + lane, num_pivots - 1);
        best = std::max(best, static_cast<int64_t>(scores[lane]) * (int64_t{1} << 31) - static_cast<int64_t>(pivot));
    }
    return static_cast<int32_t>((-best) & 0x7FFFFFFF);
}

HOARFROST_AVX2 void nearest_avx2(const LiftedRows& points, const LiftedRows& pivots, int32_t* nearest) {
    const std::vector<int16_t> packed = packed_panels(pivots);
    const size_t width = points.width, panel_size = width * panel_pivots;
    std::vector<int16_t> padded(block_points * width);
    for (size_t start = 0; start < points.num_rows; start += block_points) {
        const size_t count = std::min(block_points, points.num_rows - start);
        const int16_t* block = points.data + start * width;
        if (count < block_points) {
            std::copy_n(block, count * width, padded.data());
            block = padded.data();
        }
        Lead leads[block_points];
        for (Lead& lead : leads)
            for (size_t half = 0; half < 2; ++half) {
                lead.scores[half] = _mm256_set1_epi32(std::numeric_limits<int32_t>::min());
                lead.panels[half] = _mm256_setzero_si256();
            }
        for (size_t panel = 0; panel * panel_size < packed.size(); ++panel)
            for (size_t tile = 0; tile < block_points; tile += tile_points)
                multiply_tile(block + tile * width, width, packed.data() + panel * panel_size, static_cast<int32_t>(panel), leads + tile);
        for (size_t i = 0; i < count; ++i) nearest[start + i] = winner_of(leads[i], pivots.num_rows);
    }
}

#endif

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
void lift_keys(const KeyRows<Key>& keys, float squared_radius, size_t width, InstructionSet instruction_set, int16_t* lifted) {
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
        }
    });
}

void nearest_pivots(const LiftedRows& points, const LiftedRows& pivots, InstructionSet instruction_set, int32_t* nearest) {
#if HOARFROST_X86
    if (instruction_set != InstructionSet::plain) return nearest_avx2(points, pivots, nearest);
#endif
    (void)instruction_set;
    nearest_plain(points, pivots, nearest);
}

void project_rows(const LiftedRows& rows, const int16_t* direction, InstructionSet instruction_set, int32_t* projections) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t row = 0; row < rows.num_rows; ++row) {
            const int16_t* entries = rows.data + row * rows.width;
            int32_t sum = 0;
            for (size_t d = 0; d < rows.width; ++d) sum += static_cast<int32_t>(entries[d]) * direction[d];
            projections[row] = sum;
        }
    });
}

template float largest_squared_length(const KeyRows<float>&, InstructionSet);
template float largest_squared_length(const KeyRows<BFloat16>&, InstructionSet);
template void lift_keys(const KeyRows<float>&, float, size_t, InstructionSet, int16_t*);
template void lift_keys(const KeyRows<BFloat16>&, float, size_t, InstructionSet, int16_t*);

}  // namespace hoarfrost
