// Rows of 16-bit entries in registers of AVX2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "pages/dci.hpp"

#if HOARFROST_X86

#include <immintrin.h>

namespace hoarfrost {

struct alignas(32) Entries {
    int16_t values[16];
};

// Rows filled up with zeros to whole registers.
class PaddedRows {
public:
    PaddedRows(size_t num_rows, size_t width) : registers_((width + 15) / 16), entries_(num_rows * registers_) {}
    size_t num_rows() const { return entries_.size() / registers_; }
    size_t width() const { return registers_ * 16; }
    int16_t* row(size_t index) { return entries_[index * registers_].values; }
    const int16_t* row(size_t index) const { return entries_[index * registers_].values; }

private:
    size_t registers_;
    std::vector<Entries> entries_;
};

// Of pivots by their product, the first among equals.
inline int64_t rank_of(int32_t product, size_t pivot) { return (static_cast<int64_t>(product) << 32) - static_cast<int64_t>(pivot); }
inline int32_t pivot_of(int64_t rank) { return static_cast<int32_t>(-rank & 0x7FFFFFFF); }

// Products of a row with one, two or four others, all padded to `width`.
template <size_t count>
HOARFROST_AVX2 inline __m128i products_with(const int16_t* const (&others)[count], const int16_t* row, size_t width) {
    __m256i sums[count] = {};
    for (size_t d = 0; d < width; d += 16) {
        const __m256i entries = *reinterpret_cast<const __m256i*>(row + d);
        for (size_t i = 0; i < count; ++i)
            sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(entries, *reinterpret_cast<const __m256i*>(others[i] + d)));
    }
    const __m256i pairs = _mm256_hadd_epi32(sums[0], sums[1 % count]), more = _mm256_hadd_epi32(sums[2 % count], sums[3 % count]);
    const __m256i both = _mm256_hadd_epi32(pairs, more);
    return _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
}

HOARFROST_AVX2 inline int32_t sum_of(__m256i lanes) {
    const __m128i halves = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    const __m128i pairs = _mm_add_epi32(halves, _mm_shuffle_epi32(halves, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(pairs, _mm_shuffle_epi32(pairs, 0xB1)));
}

// Of unsigned numbers; there is an instruction for the least.
HOARFROST_AVX2 inline uint16_t largest_of(__m256i lanes) {
    const __m128i halves = _mm_max_epu16(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    return static_cast<uint16_t>(~_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(halves, _mm_set1_epi16(-1)))));
}

// (a - b) / 2, rounded down.
HOARFROST_AVX2 inline __m256i half_difference(__m256i a, __m256i b) {
    const __m256i sign = _mm256_set1_epi16(-32768);
    return _mm256_xor_si256(_mm256_avg_epu16(_mm256_xor_si256(a, sign), _mm256_xor_si256(b, _mm256_set1_epi16(32767))), sign);
}

// The intrinsic would let GCC move all products of a tile before their sums, and run out of registers.
HOARFROST_AVX2 inline __m256i add_in_place(__m256i sum, __m256i products) {
    asm volatile("vpaddw %1, %0, %0" : "+x"(sum) : "x"(products));
    return sum;
}

}  // namespace hoarfrost

#endif
