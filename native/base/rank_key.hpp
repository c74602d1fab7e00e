// A score and a place as one integer, the greater the better: by score, and among equals the lower place.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "base/instruction_set.hpp"

namespace hoarfrost {

HOARFROST_INLINE uint64_t rank_key(float score, size_t place) {
    const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 and +0 are equal scores
    const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(ordered) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(place));
}

HOARFROST_INLINE float score_of(uint64_t key) {
    const uint32_t ordered = static_cast<uint32_t>(key >> 32);
    return std::bit_cast<float>((ordered & 0x80000000u) != 0 ? ordered & 0x7FFFFFFFu : ~ordered);
}

HOARFROST_INLINE size_t place_of(uint64_t key) { return 0xFFFFFFFFu - static_cast<uint32_t>(key); }

}  // namespace hoarfrost
