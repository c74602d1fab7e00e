// Best-first draft trees (DDTree, arXiv 2604.12989, section 3): the prefixes of largest probability under independent marginals.
#pragma once

#include <cstddef>
#include <cstdint>

#include "candidates.hpp"

namespace hoarfrost {

// Where a tree of at most `max_rows` rows is written: token_ids, parents, depths [max_rows]; ancestors [max_rows, num_words].
struct TreeRows {
    int64_t* token_ids;
    int32_t* parents;
    int32_t* depths;
    uint64_t* ancestors;
    size_t max_rows;
    size_t num_words;
};

struct TreeOutcome {
    size_t num_rows;
    bool needs_more;  // the next node may be a candidate that could not be fetched; the tree is unfinished
};

// The rows of the largest tree that `budget` nodes and `width` candidates per depth allow, root included.
size_t max_tree_rows(size_t budget, size_t horizon, size_t width);

// Grows the tree from the root `bonus_token_id`. Order of the nodes: cumulative log-probability (float64 sum of the float32 values)
// falling, then depth, parent row and rank rising. More candidates are fetched exactly when the next node may be among them.
TreeOutcome build_tree(Candidates& candidates, int64_t bonus_token_id, const TreeRows& tree);

}  // namespace hoarfrost
