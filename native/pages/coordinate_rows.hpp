// Coordinates of keys as grouping reads them: heights along a direction, sums, and which numbers to keep. One plain variant, one for AVX2; both
// give the same whole numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "base/instruction_set.hpp"

#if HOARFROST_X86
#include <immintrin.h>
#endif

namespace hoarfrost {

constexpr size_t max_coordinates = 64;

using Row = std::array<int16_t, max_coordinates>;  // of coordinates, or a direction
using Sums = std::array<int32_t, max_coordinates>;

// Rows of up to `max_coordinates`.
struct PlainRows {
    const int8_t* coordinates;
    size_t width;

    void widen(int32_t number, Row& row) const {
        row.fill(0);
        std::copy_n(coordinates + static_cast<size_t>(number) * width, width, row.begin());
    }

    void heights(const int32_t* rows, size_t count, const Row& direction, int32_t* out) const {
        Row row;
        for (size_t i = 0; i < count; ++i) {
            widen(rows[i], row);
            out[i] = height(row, direction);
        }
    }

    static void heights(const Row* widened, const int32_t* rows, size_t count, const Row& direction, int32_t* out) {
        for (size_t i = 0; i < count; ++i) out[i] = height(widened[rows[i]], direction);
    }

    static Sums sum(const Row* widened, const int32_t* rows, size_t count) {
        Sums sums{};
        for (size_t i = 0; i < count; ++i)
            for (size_t d = 0; d < max_coordinates; ++d) sums[d] += widened[rows[i]][d];
        return sums;
    }

    // Writes the numbers whose height is `least` to `most`, in order, to `out`, which may be `numbers`. Returns how many.
    static size_t keep(const int32_t* numbers, const int32_t* heights, size_t count, int32_t least, int32_t most, int32_t* out) {
        size_t num_kept = 0;
        for (size_t i = 0; i < count; ++i) {
            out[num_kept] = numbers[i];
            num_kept += (heights[i] >= least) & (heights[i] <= most);
        }
        return num_kept;
    }

private:
    static int32_t height(const Row& row, const Row& direction) {
        int32_t height = 0;
        for (size_t d = 0; d < max_coordinates; ++d) height += static_cast<int32_t>(row[d]) * direction[d];
        return height;
    }
};

#if HOARFROST_X86

// For every set of lanes, the lanes in it, in order.
struct PackedLanes {
    std::array<std::array<uint8_t, 8>, 256> lanes{};
    std::array<uint8_t, 256> counts{};

    constexpr PackedLanes() {
        for (size_t set = 0; set < 256; ++set)
            for (size_t lane = 0; lane < 8; ++lane)
                if (set >> lane & 1) lanes[set][counts[set]++] = static_cast<uint8_t>(lane);
    }
};
constexpr PackedLanes packed_lanes;

// Rows of 64 coordinates, four registers of 16 bits each.
struct Avx2Rows {
    const int8_t* coordinates;
    static constexpr size_t num_registers = 4, num_lanes = 8, rows_at_once = 4, rows_ahead = 16;
    static constexpr size_t rows_per_sum = 256;  // whose sums fit 16 bits

    HOARFROST_AVX2 void widen(int32_t number, Row& row) const {
        for (size_t j = 0; j < num_registers; ++j)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(row.data()) + j, part(number, j));
    }

    HOARFROST_AVX2 void heights(const int32_t* rows, size_t count, const Row& direction, int32_t* out) const {
        const size_t last = count - 1;
        for (size_t i = 0; i < count; i += rows_at_once) {
            for (size_t row = 0; row < rows_at_once; ++row)
                __builtin_prefetch(coordinates + static_cast<size_t>(rows[std::min(i + rows_ahead + row, last)]) * max_coordinates);
            __m256i products[rows_at_once];
            for (size_t row = 0; row < rows_at_once; ++row) {
                const int32_t number = rows[std::min(i + row, last)];
                products[row] = height(part(number, 0), part(number, 1), part(number, 2), part(number, 3), direction);
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), sums_of(products));
        }
    }

    HOARFROST_AVX2 static void heights(const Row* widened, const int32_t* rows, size_t count, const Row& direction, int32_t* out) {
        for (size_t i = 0; i < count; i += rows_at_once) {
            __m256i products[rows_at_once];
            for (size_t lane = 0; lane < rows_at_once; ++lane) {
                const Row& row = widened[rows[std::min(i + lane, count - 1)]];
                products[lane] = height(part(row, 0), part(row, 1), part(row, 2), part(row, 3), direction);
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), sums_of(products));
        }
    }

    HOARFROST_AVX2 static Sums sum(const Row* widened, const int32_t* rows, size_t count) {
        Sums sums{};
        for (size_t i = 0; i < count;) {
            __m256i parts[num_registers] = {};
            const size_t end = std::min(i + rows_per_sum, count);
            for (; i < end; ++i)
                for (size_t j = 0; j < num_registers; ++j) parts[j] = _mm256_add_epi16(parts[j], part(widened[rows[i]], j));
            Row entries;
            for (size_t j = 0; j < num_registers; ++j) _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries.data()) + j, parts[j]);
            for (size_t d = 0; d < max_coordinates; ++d) sums[d] += entries[d];
        }
        return sums;
    }

    HOARFROST_AVX2 static size_t keep(const int32_t* numbers, const int32_t* heights, size_t count, int32_t least, int32_t most,
                                      int32_t* out) {
        const __m256i low = _mm256_set1_epi32(least), high = _mm256_set1_epi32(most);
        size_t num_kept = 0, i = 0;
        for (; i + num_lanes <= count; i += num_lanes) {
            const __m256i tested = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(heights + i));
            const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(low, tested), _mm256_cmpgt_epi32(tested, high));
            const size_t kept = 0xFF ^ static_cast<size_t>(_mm256_movemask_ps(_mm256_castsi256_ps(outside)));
            const __m128i lanes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed_lanes.lanes[kept].data()));
            const __m256i held = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers + i));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + num_kept), _mm256_permutevar8x32_epi32(held, _mm256_cvtepu8_epi32(lanes)));
            num_kept += packed_lanes.counts[kept];
        }
        return num_kept + PlainRows::keep(numbers + i, heights + i, count - i, least, most, out + num_kept);
    }

private:
    HOARFROST_AVX2 inline __attribute__((always_inline)) __m256i part(int32_t number, size_t j) const {
        const __m128i* from = reinterpret_cast<const __m128i*>(coordinates + static_cast<size_t>(number) * max_coordinates);
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(from + j));
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m256i part(const Row& row, size_t j) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.data()) + j);
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m256i height(__m256i first, __m256i second, __m256i third, __m256i fourth,
                                                                               const Row& direction) {
        const __m256i front = _mm256_add_epi32(_mm256_madd_epi16(part(direction, 0), first), _mm256_madd_epi16(part(direction, 1), second));
        const __m256i back = _mm256_add_epi32(_mm256_madd_epi16(part(direction, 2), third), _mm256_madd_epi16(part(direction, 3), fourth));
        return _mm256_add_epi32(front, back);
    }

    // The sums of the lanes of each register.
    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m128i sums_of(const __m256i (&parts)[rows_at_once]) {
        const __m256i first = _mm256_add_epi32(_mm256_unpacklo_epi32(parts[0], parts[1]), _mm256_unpackhi_epi32(parts[0], parts[1]));
        const __m256i second = _mm256_add_epi32(_mm256_unpacklo_epi32(parts[2], parts[3]), _mm256_unpackhi_epi32(parts[2], parts[3]));
        const __m256i sums = _mm256_add_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
        return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    }
};

#endif

}  // namespace hoarfrost
