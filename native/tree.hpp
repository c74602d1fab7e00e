// Best-first draft trees (DDTree, arXiv 2604.12989, section 3): the prefixes of largest probability under what the drafter guesses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "candidates.hpp"

namespace hoarfrost {

// Where a tree of at most `max_rows` rows is written: token_ids, parents, depths, log_probs [max_rows]; ancestors [max_rows, num_words].
// `log_probs` are the calibrated log-probabilities that all rows from the root to this one are accepted.
struct TreeRows {
    int64_t* token_ids;
    int32_t* parents;
    int32_t* depths;
    float* log_probs;
    uint64_t* ancestors;
    size_t max_rows;
    size_t num_words;
};

// What experience says of the drafter: a candidate of probability p is accepted with probability sigmoid(slope * logit(p) + intercept).
// slopes, intercepts [2, num_depths], no fewer depths than the horizon: first for children of rows on the greedy spine, then for those of all others. Null: p as it is.
struct Calibration {
    const float* slopes = nullptr;
    const float* intercepts = nullptr;
    size_t num_depths = 0;
};

// Guesses beside the drafter's. Where the drafter's best candidates leave probability over, a further source has a share of it:
// the next token of `path` (a continuation of the committed text) below rows that follow it from the root, and the tokens
// that came after a row's token before, `successors [vocab_size, num_successors]` (-1: none), best first, with the share of their grade. Where the noise that will choose is
// known, the share counts for a token as it is likely to win with its noise.
struct Extras {
    const int64_t* path = nullptr;
    const float* path_shares = nullptr;
    size_t path_length = 0;
    const int32_t* successors = nullptr;
    const uint8_t* grades = nullptr;  // of the same shape
    const float* grade_shares = nullptr;
    size_t num_successors = 0, num_grades = 0;
    size_t vocab_size = 0;
    size_t max_depth = 0;  // no row lies deeper
    bool has_noise = false;
    uint64_t seed = 0, first_position = 0;  // of the noise; the position is that of depth 1

    bool empty() const { return path_length == 0 && num_successors == 0; }
};

struct TreeOutcome {
    size_t num_rows;
    bool needs_more;  // the next node may be a candidate that could not be fetched; the tree is unfinished
};

// The rows of the largest tree that `budget` nodes and `width` candidates per depth allow, root included.
size_t max_tree_rows(size_t budget, size_t horizon, size_t width);

// Grows the tree from the root `bonus_token_id`. Order of the nodes: cumulative log-probability (float64 sum of the float32 values, calibrated)
// falling, then depth, parent row and rank rising. The greedy spine is never ordered behind where the uncalibrated probabilities put it.
// More candidates are fetched exactly when the next node may be among them.
TreeOutcome build_tree(Candidates& candidates, const Calibration& calibration, const Extras& extras, int64_t bonus_token_id,
                       const TreeRows& tree);

}  // namespace hoarfrost
