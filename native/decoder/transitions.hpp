// What follows what among the few candidates of each depth: how likely by a candidate selector (src/hoarfrost/drafting/selector.py), and the
// order of the candidates behind each predecessor.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"

namespace hoarfrost {

// Codebooks [vocabulary, rank].
template <class Weight>
struct Codebooks {
    const Weight *predecessors, *successors;
    size_t rank;
};

// One sequence's candidates [horizon, count], best first, with their marginal log-probabilities; the bonus token precedes the first ones.
struct DepthCandidates {
    const float* log_probs;
    const int64_t* token_ids;
    size_t horizon, count;
    int64_t bonus_token_id;
};

// Writes log_probs [count, count]: candidate j of `depth`, 0 the first, after candidate i of the depth before. `projected [rank]` is the
// projected state of the depth. At the first depth all i have the same row. NaN in what comes in comes out as NaN.
template <class Weight>
void transition_log_probs(const Codebooks<Weight>& codebooks, const DepthCandidates& candidates, size_t depth, const float* projected,
                          float* log_probs);

// Brings every row of log_probs [horizon, count, count] into falling order, equal ones in that of their places, and the places and token ids
// with them, all [horizon, count, count]; at the first depth row 0 stands for all. False where a row holds NaN or what is above 0.
bool order_transitions(const float* log_probs, const int64_t* token_ids, size_t horizon, size_t count, float* ordered, int64_t* ordered_ids,
                       int32_t* places);

}  // namespace hoarfrost
