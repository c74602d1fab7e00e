// Memory that will be read soon, asked for early: keys lie in pages here and there, which no processor guesses.
#pragma once

#include <cstddef>

#include "base/instruction_set.hpp"

namespace hoarfrost {

template <class Key>
HOARFROST_INLINE void prefetch_key(const Key* key, size_t head_dim) {
#if defined(__GNUC__) || defined(__clang__)
    constexpr size_t entries_per_cache_line = 64 / sizeof(Key);
    for (size_t d = 0; d < head_dim; d += entries_per_cache_line) __builtin_prefetch(key + d);
#else
    (void)key;
    (void)head_dim;
#endif
}

}  // namespace hoarfrost
