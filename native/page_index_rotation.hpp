// The Walsh-Hadamard transform of one row, in place; every variant adds the same pairs.
#pragma once

#include <cstddef>

#include "instruction_set.hpp"

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

// `count` registers of eight entries: distances 1, 2 and 4 within a register, the others between registers.
template <size_t count>
HOARFROST_AVX2 inline __attribute__((always_inline)) void transform_avx2(__m256 (&y)[count]) {
    const __m256 odd = _mm256_castsi256_ps(_mm256_set1_epi64x(static_cast<long long>(0x8000000000000000u)));
    const __m256 second_pair = _mm256_castsi256_ps(_mm256_set_epi64x(static_cast<long long>(0x8000000080000000u), 0,
                                                                      static_cast<long long>(0x8000000080000000u), 0));
    const __m256 upper = _mm256_castsi256_ps(_mm256_set_epi64x(static_cast<long long>(0x8000000080000000u),
                                                                static_cast<long long>(0x8000000080000000u), 0, 0));
    for (size_t i = 0; i < count; ++i) {
        y[i] = _mm256_add_ps(_mm256_permute_ps(y[i], 0xB1), _mm256_xor_ps(y[i], odd));
        y[i] = _mm256_add_ps(_mm256_permute_ps(y[i], 0x4E), _mm256_xor_ps(y[i], second_pair));
        y[i] = _mm256_add_ps(_mm256_permute2f128_ps(y[i], y[i], 1), _mm256_xor_ps(y[i], upper));
    }
    for (size_t half = 1; half < count; half *= 2)
        for (size_t start = 0; start < count; start += 2 * half)
            for (size_t i = start; i < start + half; ++i) {
                const __m256 a = y[i], b = y[i + half];
                y[i] = _mm256_add_ps(a, b);
                y[i + half] = _mm256_sub_ps(a, b);
            }
}

#endif

}  // namespace hoarfrost
