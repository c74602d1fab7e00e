// What the bindings of the page indexes share: views of keys and pages, and the checks without which a kernel would read or write astray.
#pragma once

#include "bindings/bindings.hpp"
#include "pages/page_index.hpp"

namespace hoarfrost {

inline void check_counts(const int32_t* counts, size_t size, size_t page_size) {
    for (size_t i = 0; i < size; ++i)
        require(counts[i] >= 0 && static_cast<size_t>(counts[i]) <= page_size, "A page has more rows than fit.");
}

template <class Key, class Stored>
KeySlots<Key> slots_of(const Strided<Stored>& pool) {
    const size_t page_size = pool.shape(1), head_dim = pool.shape(2);
    require(pool.size() == 0 || ((head_dim == 1 || pool.stride(2) == 1) &&
                                 (page_size == 1 || pool.stride(1) == static_cast<int64_t>(head_dim)) && pool.stride(0) >= 0),
            "The keys of a page must lie side by side.");
    return {reinterpret_cast<const Key*>(pool.data()), pool.shape(0), static_cast<size_t>(pool.stride(0)), page_size, head_dim};
}

inline void check_slots(const int64_t* slots, const int32_t* counts, size_t num_pages, size_t num_slots) {
    for (size_t page = 0; page < num_pages; ++page)
        require(counts[page] == 0 || static_cast<uint64_t>(slots[page]) < num_slots, "A page lies outside the pool.");
}

}  // namespace hoarfrost
