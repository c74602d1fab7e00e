// Memory that will be read soon, asked for early: keys lie in pages here and there, which no processor guesses, and weights come faster than
// it guesses.
#pragma once

#include <cstddef>

#include "base/instruction_set.hpp"

namespace hoarfrost {

// One cache line. Harmless where it lies behind the end.
HOARFROST_INLINE void prefetch_line(const void* address) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

// The same into the second cache: for what is needed only after the nearest one will have been filled anew.
HOARFROST_INLINE void prefetch_farther(const void* address) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(address, 0, 2);
#else
    (void)address;
#endif
}

template <class Key>
HOARFROST_INLINE void prefetch_key(const Key* key, size_t head_dim) {
    constexpr size_t entries_per_cache_line = 64 / sizeof(Key);
    for (size_t d = 0; d < head_dim; d += entries_per_cache_line) prefetch_line(key + d);
}

}  // namespace hoarfrost
