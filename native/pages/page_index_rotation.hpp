// The Walsh-Hadamard transform of one row, in place; every variant adds the same pairs.
#pragma once

#include <cstddef>

#include "base/instruction_set.hpp"

#if HOARFROST_X86
#include <immintrin.h>
#endif

namespace hoarfrost {

inline void transform(float* y, size_t count) {
    for (size_t half = 1; half < count; half *= 2)
        for (size_t start = 0; start < count; start += 2 * half)
            for (size_t i = start; i < start + half; ++i) {
                const float a = y[i], b = y[i + half];
                y[i] = a + b;
                y[i + half] = a - b;
            }
}

#if HOARFROST_X86

// Of `count` registers, those at distance 1, 2, 4, ... from each other.
template <size_t count>
HOARFROST_AVX2 inline __attribute__((always_inline)) void transform_between_avx2(__m256* y) {
    if constexpr (count > 1) {
        transform_between_avx2<count / 2>(y);
        transform_between_avx2<count / 2>(y + count / 2);
#pragma GCC unroll 16
        for (size_t i = 0; i < count / 2; ++i) {
            const __m256 a = y[i], b = y[i + count / 2];
            y[i] = _mm256_add_ps(a, b);
            y[i + count / 2] = _mm256_sub_ps(a, b);
        }
    }
}

// Within a register of eight entries: distances 1, 2 and 4.
HOARFROST_AVX2 inline __attribute__((always_inline)) __m256 transform_within_avx2(__m256 y) {
    const __m256 odd = _mm256_castsi256_ps(_mm256_set1_epi64x(static_cast<long long>(0x8000000000000000u)));
    const __m256 second_pair = _mm256_castsi256_ps(_mm256_set_epi64x(static_cast<long long>(0x8000000080000000u), 0,
                                                                      static_cast<long long>(0x8000000080000000u), 0));
    const __m256 upper = _mm256_castsi256_ps(_mm256_set_epi64x(static_cast<long long>(0x8000000080000000u),
                                                                static_cast<long long>(0x8000000080000000u), 0, 0));
    y = _mm256_add_ps(_mm256_permute_ps(y, 0xB1), _mm256_xor_ps(y, odd));
    y = _mm256_add_ps(_mm256_permute_ps(y, 0x4E), _mm256_xor_ps(y, second_pair));
    return _mm256_add_ps(_mm256_permute2f128_ps(y, y, 1), _mm256_xor_ps(y, upper));
}

#endif

}  // namespace hoarfrost
