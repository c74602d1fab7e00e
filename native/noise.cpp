#include "noise.hpp"

#include <algorithm>
#include <bit>

namespace hoarfrost {

namespace {

constexpr size_t tile_size = 256;

// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
HOARFROST_INLINE uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    x ^= x >> 31;
    return x;
}

HOARFROST_INLINE uint64_t token_bits(uint64_t stream, uint64_t token_id) { return mix(stream ^ mix(token_id + 0xD1B54A32D192ED03u)); }

// An integer below 2^52 as a double: AVX2 has no such conversion, the bit pattern of 2^52 + integer needs none.
HOARFROST_INLINE double to_double(uint64_t integer) { return std::bit_cast<double>(integer | 0x4330000000000000u) - 0x1p52; }

// The top 53 bits as a point of the open interval (0, 1). The largest of the 2^53 values would round to 1 and have no finite noise.
HOARFROST_INLINE double unit_interval(uint64_t bits) {
    const double integer = to_double(bits >> 32) * 0x1p21 + to_double((bits >> 11) & 0x1FFFFFu);
    const double unit = (integer + 0.5) * 0x1p-53;
    return unit < 1.0 ? unit : 0x1.fffffffffffffp-1;
}

// Natural logarithm of a positive normal number, branch-free so that it vectorises, good to about 1e-15 relative.
// x = 2^exponent * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172, as its power series.
HOARFROST_INLINE double log_positive(double x) {
    constexpr uint64_t sqrt_half = 0x3FE6A09E667F3BCDu;
    const uint64_t shifted = std::bit_cast<uint64_t>(x) + (0x3FF0000000000000u - sqrt_half);
    const double exponent = to_double(shifted >> 52) - 1023.0;
    const double m = std::bit_cast<double>((shifted & 0x000FFFFFFFFFFFFFu) + sqrt_half);
    const double s = (m - 1.0) / (m + 1.0);
    const double z = s * s;
    double series = 1.0 / 19.0;
    for (int divisor = 17; divisor >= 1; divisor -= 2) series = series * z + 1.0 / divisor;
    return exponent * 0.6931471805599453 + 2.0 * s * series;
}

HOARFROST_INLINE float gumbel(uint64_t bits) { return static_cast<float>(-log_positive(-log_positive(unit_interval(bits)))); }

}  // namespace

uint64_t noise_stream(uint64_t seed, uint64_t position) { return mix(seed ^ mix(position + 0x9E3779B97F4A7C15u)); }

void noise_bits(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, uint64_t* bits) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t i = 0; i < count; ++i) bits[i] = token_bits(stream, static_cast<uint64_t>(token_ids[i]));
    });
}

void gumbel_noise(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, float* values) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        // Integer hashing and float arithmetic vectorise better apart; a tile keeps what passes between them in the first-level cache.
        uint64_t bits[tile_size];
        for (size_t start = 0; start < count; start += tile_size) {
            const size_t end = std::min(count - start, tile_size);
            if (token_ids == nullptr)
                for (size_t i = 0; i < end; ++i) bits[i] = token_bits(stream, start + i);
            else
                for (size_t i = 0; i < end; ++i) bits[i] = token_bits(stream, static_cast<uint64_t>(token_ids[start + i]));
            for (size_t i = 0; i < end; ++i) values[start + i] = gumbel(bits[i]);
        }
    });
}

}  // namespace hoarfrost
