// The walk down a draft tree (DDTree, arXiv 2604.12989, section 3; in Python: src/hoarfrost/tree/walk.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace hoarfrost {

// A tree as the walk sees it: of each row its parent, a lower row, and its token.
struct TreeLinks {
    const int32_t* parents;
    const int64_t* token_ids;
    size_t num_rows;
};

// The accepted rows, and the tokens chosen at them.
using Walked = std::pair<std::vector<int64_t>, std::vector<int64_t>>;

// From the root to the child that carries the row's choice, as long as there is one; `choose(row, depth)` is asked in that order. A negative
// choice ends the walk.
template <class Choose>
Walked walk(const TreeLinks& tree, const Choose& choose) {
    Walked walked;
    size_t row = 0;
    while (row < tree.num_rows) {
        const int64_t chosen = choose(row, walked.first.size());
        walked.first.push_back(static_cast<int64_t>(row));
        walked.second.push_back(chosen);
        if (chosen < 0) break;
        const size_t parent = row++;
        while (row < tree.num_rows && (static_cast<size_t>(tree.parents[row]) != parent || tree.token_ids[row] != chosen)) ++row;
    }
    return walked;
}

}  // namespace hoarfrost
