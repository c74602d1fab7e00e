#include "decoder/transitions.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>

#include "base/lanes.hpp"

namespace hoarfrost {

namespace {

using L = Lanes<8>;
constexpr float infinity = std::numeric_limits<float>::infinity();

size_t padded(size_t count) { return (count + 7) / 8 * 8; }

// `count` entries of a codebook, filled up with zeros.
template <class Weight>
HOARFROST_INLINE void read_entry(const Weight* entry, size_t count, size_t padded_count, float* out) {
    for (size_t i = 0; i < count; ++i) out[i] = to_float(entry[i]);
    for (size_t i = count; i < padded_count; ++i) out[i] = 0.0f;
}

HOARFROST_INLINE float dot(const float* a, const float* b, size_t padded_count) {
    L total = L::all(0.0f);
    for (size_t i = 0; i < padded_count; i += 8) total = L::load(a + i) * L::load(b + i) + total;
    return sum_of(total);
}

// Scores [count], with room for whole registers, become log-probabilities that make up `share` together.
HOARFROST_INLINE void normalise(float* scores, size_t count, float share, float* log_probs) {
    float maximum = scores[0];
    for (size_t j = 1; j < count; ++j) maximum = scores[j] > maximum || std::isnan(scores[j]) ? scores[j] : maximum;
    for (size_t j = count; j < padded(count); ++j) scores[j] = -infinity;
    L total = L::all(0.0f);
    for (size_t j = 0; j < padded(count); j += 8) total = total + exp_of(L::load(scores + j) - L::all(maximum));
    const float shift = share - std::log(sum_of(total));
    for (size_t j = 0; j < count; ++j) {
        const float log_prob = scores[j] - maximum + shift;
        log_probs[j] = log_prob > 0.0f ? 0.0f : log_prob;  // rounding may put a share above 1
    }
}

// The logarithm of the probability that all candidates have together.
float log_share(const float* log_probs, size_t count) {
    double share = 0.0;
    for (size_t j = 0; j < count; ++j) share += std::exp(static_cast<double>(log_probs[j]));
    return static_cast<float>(std::log(share));
}

}  // namespace

template <class Weight>
void transition_log_probs(const Codebooks<Weight>& codebooks, const DepthCandidates& candidates, size_t depth, const float* projected,
                          float* log_probs) {
    const size_t count = candidates.count, rank = codebooks.rank, width = padded(rank);
    const auto memory = std::make_unique_for_overwrite<float[]>(count * width + width + padded(count));
    float *after = memory.get(), *before = after + count * width, *scores = before + width;
    const float* unary = candidates.log_probs + depth * count;
    const int64_t *ids = candidates.token_ids + depth * count, *predecessors = depth > 0 ? ids - count : &candidates.bonus_token_id;
    run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA {
        const float share = log_share(unary, count);
        for (size_t j = 0; j < count; ++j)
            read_entry(codebooks.successors + static_cast<size_t>(ids[j]) * rank, rank, width, after + j * width);
        for (size_t i = 0; i < (depth > 0 ? count : 1); ++i) {
            read_entry(codebooks.predecessors + static_cast<size_t>(predecessors[i]) * rank, rank, width, before);
            for (size_t r = 0; r < rank; ++r) before[r] *= projected[r];
            for (size_t j = 0; j < count; ++j) scores[j] = unary[j] + dot(before, after + j * width, width);
            normalise(scores, count, share, log_probs + i * count);
        }
    });
    for (size_t i = 1; depth == 0 && i < count; ++i) std::copy_n(log_probs, count, log_probs + i * count);
}

bool order_transitions(const float* log_probs, const int64_t* token_ids, size_t horizon, size_t count, float* ordered, int64_t* ordered_ids,
                       int32_t* places) {
    for (size_t depth = 0; depth < horizon; ++depth)
        for (size_t i = 0; i < count; ++i, ordered += count, ordered_ids += count, places += count) {
            const float* row = log_probs + (depth * count + (depth > 0 ? i : 0)) * count;
            if (!std::all_of(row, row + count, [](float log_prob) { return log_prob <= 0.0f; })) return false;
            std::iota(places, places + count, 0);
            std::sort(places, places + count, [row](int32_t a, int32_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); });
            for (size_t j = 0; j < count; ++j) {
                ordered[j] = row[places[j]];
                ordered_ids[j] = token_ids[depth * count + static_cast<size_t>(places[j])];
            }
        }
    return true;
}

template void transition_log_probs(const Codebooks<float>&, const DepthCandidates&, size_t, const float*, float*);
template void transition_log_probs(const Codebooks<BFloat16>&, const DepthCandidates&, size_t, const float*, float*);

}  // namespace hoarfrost
