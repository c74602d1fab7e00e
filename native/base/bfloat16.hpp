// bfloat16 as its bits: the upper half of a float32.
#pragma once

#include <bit>
#include <cstdint>

#include "base/instruction_set.hpp"

namespace hoarfrost {

enum class BFloat16 : uint16_t {};

HOARFROST_INLINE float to_float(float value) { return value; }
HOARFROST_INLINE float to_float(BFloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

// To the nearest, ties to even; NaN stays NaN.
HOARFROST_INLINE void assign(float& place, float value) { place = value; }
HOARFROST_INLINE void assign(BFloat16& place, float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40;
    place = static_cast<BFloat16>(value != value ? quiet : rounded);
}

}  // namespace hoarfrost
