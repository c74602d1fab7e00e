// How a row is read:
// 1. Tiles of 16 lanes x 32 steps. Each lane keeps its own running maximum and its own sum of exponentials relative to it (the streaming
//    softmax of Milakov and Gimelshein, arXiv 1805.02867), and notes the maximum of its 32 elements of this tile: a group.
// 2. The k-th largest group maximum is a lower bound of the k-th largest logit, so only groups that reach it can hold one of the k best.
// 3. The few elements of those groups that reach the bound are sorted out with the row's final order (logit falling, token id rising).
#include "logits/top_k.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "logits/best_keys.hpp"
#include "base/team.hpp"

namespace hoarfrost {

namespace {

constexpr size_t num_lanes = 16;
constexpr size_t num_steps = 32;
constexpr size_t tile_size = num_lanes * num_steps;
constexpr float lowest = std::numeric_limits<float>::lowest();
constexpr float infinity = std::numeric_limits<float>::infinity();

// exp(x) for x <= 0, branch-free: 2^n times a polynomial for 2^f, |f| <= 1/2 (fitted to a relative error of 2e-7 with exp(0) = 1 exactly,
// so that a sum rescaled by it many times does not drift). Far below what counts beside 1 it stops falling at 2^-126. NaN stays NaN.
HOARFROST_INLINE float exp_negative(float x) {
    constexpr float round_to_integer = 0x1.8p23f;  // adding it leaves the nearest integer in the low mantissa bits
    const float unbounded = x * 1.44269504f;
    const float exponent = unbounded < -126.0f ? -126.0f : unbounded;
    const float rounded = exponent + round_to_integer;
    const float f = exponent - (rounded - round_to_integer);
    float p = 0x1.5bba14p-10f;
    p = p * f + 0x1.3cea88p-7f;
    p = p * f + 0x1.c6b752p-5f;
    p = p * f + 0x1.ebf9bcp-3f;
    p = p * f + 0x1.62e42ap-1f;
    p = p * f + 1.0f;
    return p * std::bit_cast<float>((std::bit_cast<uint32_t>(rounded) << 23) + 0x3F800000u);
}

// The log-normaliser in the making: of every lane the maximum so far, and the sum of exponentials relative to it.
struct Normaliser {
    float lane_maxima[num_lanes];
    double lane_sums[num_lanes];

    Normaliser() {
        std::fill_n(lane_maxima, num_lanes, lowest);
        std::fill_n(lane_sums, num_lanes, 0.0);
    }

    double maximum() const { return *std::max_element(lane_maxima, lane_maxima + num_lanes); }

    // The logarithm of the sum of exponentials relative to the maximum.
    double log_sum() const {
        double sum = 0.0;
        for (size_t lane = 0; lane < num_lanes; ++lane) sum += lane_sums[lane] * std::exp(lane_maxima[lane] - maximum());
        return std::log(sum);
    }
};

HOARFROST_INLINE void summarise_tile(const float* tile, float* group_maxima, Normaliser& normaliser) {
    float maxima[num_lanes];
    double sums[num_lanes];
    for (size_t lane = 0; lane < num_lanes; ++lane) {
        float maximum = tile[lane];
        for (size_t step = 1; step < num_steps; ++step) {
            const float x = tile[step * num_lanes + lane];
            maximum = maximum > x ? maximum : x;
        }
        maxima[lane] = maximum;
    }
    for (size_t lane = 0; lane < num_lanes; ++lane) {
        group_maxima[lane] = maxima[lane];
        maxima[lane] = normaliser.lane_maxima[lane] > maxima[lane] ? normaliser.lane_maxima[lane] : maxima[lane];
        sums[lane] = normaliser.lane_sums[lane] * exp_negative(normaliser.lane_maxima[lane] - maxima[lane]);
    }
    for (size_t step = 0; step < num_steps; step += 4)
        for (size_t lane = 0; lane < num_lanes; ++lane) {
            const float* x = tile + step * num_lanes + lane;
            const float m = maxima[lane];
            const float first = exp_negative(x[0] - m) + exp_negative(x[num_lanes] - m);
            const float second = exp_negative(x[2 * num_lanes] - m) + exp_negative(x[3 * num_lanes] - m);
            sums[lane] += first + second;
        }
    for (size_t lane = 0; lane < num_lanes; ++lane) {
        normaliser.lane_maxima[lane] = maxima[lane];
        normaliser.lane_sums[lane] = sums[lane];
    }
}

// `count` logits from `start` on as one tile of floats, padded with -inf; in `buffer`, unless the row itself will do.
template <class Logit>
HOARFROST_INLINE const float* tile_at(const Logit* row, size_t start, size_t vocab_size, float* buffer) {
    const size_t count = std::min(vocab_size - start, tile_size);
    if constexpr (std::is_same_v<Logit, float>)
        if (count == tile_size) return row + start;
    for (size_t i = 0; i < count; ++i) buffer[i] = to_float(row[start + i]);
    for (size_t i = count; i < tile_size; ++i) buffer[i] = -infinity;
    return buffer;
}

template <class Logit>
HOARFROST_INLINE void summarise_row(const Logit* row, size_t vocab_size, float* group_maxima, Normaliser& normaliser) {
    float buffer[tile_size];
    for (size_t start = 0; start < vocab_size; start += tile_size)
        summarise_tile(tile_at(row, start, vocab_size, buffer), group_maxima + start / num_steps, normaliser);
}

// The k-th largest group maximum; where there are fewer groups, the lowest finite number, which every logit but -inf reaches.
float lower_bound_of_best(const std::vector<float>& group_maxima, BestKeys& best) {
    best.clear();
    for (size_t group = 0; group < group_maxima.size(); ++group)
        if (group_maxima[group] >= best.bound()) best.offer(group_maxima[group], group);
    best.prune();
    return best.bound();
}

template <class Logit>
void offer_candidates(const Logit* row, size_t vocab_size, const std::vector<float>& group_maxima, float bound, BestKeys& best) {
    best.clear();
    for (size_t group = 0; group < group_maxima.size(); ++group) {
        if (!(group_maxima[group] >= bound)) continue;
        const size_t first = group / num_lanes * tile_size + group % num_lanes;
        const size_t end = std::min(first + tile_size, vocab_size);
        for (size_t index = first; index < end; index += num_lanes)
            if (to_float(row[index]) >= bound) best.offer(to_float(row[index]), index);
    }
}

// Fills places `filled` to k with the lowest ids among the logits that are -inf.
template <class Logit>
void fill_with_impossible(const Logit* logits, size_t filled, size_t k, int64_t* token_ids) {
    for (size_t index = 0; filled < k; ++index)
        if (to_float(logits[index]) == -infinity) token_ids[filled++] = static_cast<int64_t>(index);
}

}  // namespace

template <class Logit>
RowReader<Logit>::RowReader(const LogitRows<Logit>& logits, size_t row, InstructionSet instruction_set)
    : row_(logits.data + row * logits.row_stride),
      vocab_size_(logits.vocab_size),
      group_maxima_((logits.vocab_size + tile_size - 1) / tile_size * num_lanes) {
    Normaliser normaliser;
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA { summarise_row(row_, vocab_size_, group_maxima_.data(), normaliser); });
    maximum_ = normaliser.maximum();
    log_sum_ = normaliser.log_sum();
}

template <class Logit>
bool RowReader<Logit>::is_broken() const {
    return std::isnan(log_sum_);
}

template <class Logit>
void RowReader<Logit>::top(size_t k, float* log_probs, int64_t* token_ids) const {
    BestKeys best(k);
    offer_candidates(row_, vocab_size_, group_maxima_, lower_bound_of_best(group_maxima_, best), best);
    size_t filled = 0;
    for (const uint64_t key : best.sorted()) {
        log_probs[filled] = static_cast<float>(score_of(key) - maximum_ - log_sum_);
        token_ids[filled++] = static_cast<int64_t>(place_of(key));
    }
    std::fill(log_probs + filled, log_probs + k, -infinity);
    fill_with_impossible(row_, filled, k, token_ids);
}

template <class Logit>
void top_log_probs(const LogitRows<Logit>& logits, size_t k, InstructionSet instruction_set, size_t num_threads, float* log_probs,
                   int64_t* token_ids) {
    parallel_for(logits.num_rows, num_threads, [&](size_t row) {
        const RowReader<Logit> reader(logits, row, instruction_set);
        if (reader.is_broken()) {
            std::fill_n(log_probs + row * k, k, std::numeric_limits<float>::quiet_NaN());
            std::fill_n(token_ids + row * k, k, 0);
        } else {
            reader.top(k, log_probs + row * k, token_ids + row * k);
        }
    });
}

template class RowReader<float>;
template class RowReader<BFloat16>;
template void top_log_probs(const LogitRows<float>&, size_t, InstructionSet, size_t, float*, int64_t*);
template void top_log_probs(const LogitRows<BFloat16>&, size_t, InstructionSet, size_t, float*, int64_t*);

}  // namespace hoarfrost
