// Trees as large as they pay for themselves (src/hoarfrost/tree/allocation.py).
#pragma once

#include <cstddef>
#include <vector>

#include "tree/tree.hpp"

namespace hoarfrost {

struct Allocation {
    std::vector<size_t> num_rows;  // of each tree that are worth it, the root included
    double expected;               // tokens of the round
    double milliseconds;
};

// Grows the trees, with nothing but their roots yet, until no further node can make the expected tokens per millisecond larger, and says how
// much of each makes it largest. A round of n rows takes row_ms[n - 1] and `fixed_ms`; no round may have more than `max_rows` rows, and there are
// no fewer than trees. Nodes are taken likeliest first, of the lower tree among equals; a node ranks no better than those before it
// in its tree, so a prefix of each tree is taken.
Allocation grow_worthwhile(std::vector<TreeGrower>& trees, const double* row_ms, size_t max_rows, double fixed_ms);

}  // namespace hoarfrost
