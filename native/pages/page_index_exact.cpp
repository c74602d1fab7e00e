// Exact masses of pages, and their ranking. Powers of two by polynomial, eight lanes side by side.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "base/lanes.hpp"
#include "pages/page_index.hpp"
#include "base/prefetch.hpp"
#include "base/rank_key.hpp"

namespace hoarfrost {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr size_t width = 8;
using Eight = Lanes<width>;

// 2^x to about 1e-7 of its value for x <= 127; 0 below the smallest normal number.
HOARFROST_INLINE Eight power_of_two(Eight x) { return exp_of(x * Eight::all(0.69314718056f)); }

// Products of up to four queries with one key.
template <size_t num_queries, class Key>
HOARFROST_INLINE void products(const Key* key, const float* queries, size_t head_dim, float* out, size_t out_stride) {
    const size_t whole = head_dim / width * width;
    Eight sums[num_queries];
    for (size_t q = 0; q < num_queries; ++q) sums[q] = Eight::all(0.0f);
    for (size_t d = 0; d < whole; d += width) {
        const Eight entries = Eight::load(key + d);
        for (size_t q = 0; q < num_queries; ++q) sums[q] = sums[q] + entries * Eight::load(queries + q * head_dim + d);
    }
    for (size_t q = 0; q < num_queries; ++q) {
        float product = sum_of(sums[q]);
        for (size_t d = whole; d < head_dim; ++d) product += to_float(key[d]) * queries[q * head_dim + d];
        out[q * out_stride] = product;
    }
}

HOARFROST_INLINE float log2_sum(const float* scores, size_t count) {
    float largest = -infinity;
    for (size_t i = 0; i < count; ++i) largest = scores[i] > largest ? scores[i] : largest;
    if (largest == -infinity) return -infinity;
    Eight sums = Eight::all(0.0f);
    float tail[width];
    size_t i = 0;
    for (; i + width <= count; i += width) sums = sums + power_of_two(Eight::load(scores + i) - Eight::all(largest));
    std::fill_n(tail, width, -infinity);
    for (size_t j = 0; i + j < count; ++j) tail[j] = scores[i + j];
    sums = sums + power_of_two(Eight::load(tail) - Eight::all(largest));
    return largest + std::log2(sum_of(sums));
}

// `next` is the page that comes after this one: its keys are on their way while this one's are multiplied.
template <class Key>
HOARFROST_INLINE void score_page(const KeySlots<Key>& keys, const ScoredPage& page, const ScoredPage& next, const float* queries,
                                 size_t num_queries, float* scores) {
    const Key* rows = keys.pool + static_cast<size_t>(page.slot) * keys.slot_stride;
    const Key* next_rows = keys.pool + static_cast<size_t>(next.slot) * keys.slot_stride;
    for (size_t row = 0; row < static_cast<size_t>(page.num_rows); ++row) {
        const Key* key = rows + row * keys.head_dim;
        if (row < static_cast<size_t>(next.num_rows)) prefetch_key(next_rows + row * keys.head_dim, keys.head_dim);
        size_t q = 0;
        for (; q + 4 <= num_queries; q += 4)
            products<4>(key, queries + q * keys.head_dim, keys.head_dim, scores + q * keys.page_size + row, keys.page_size);
        for (; q < num_queries; ++q)
            products<1>(key, queries + q * keys.head_dim, keys.head_dim, scores + q * keys.page_size + row, keys.page_size);
    }
}

}  // namespace

template <class Key>
void exact_log_masses(const KeySlots<Key>& keys, const ScoredPage* pages, size_t num_pages, const float* queries, size_t num_queries,
                      InstructionSet instruction_set, float* log_masses) {
    std::vector<float> scores(num_queries * keys.page_size);
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t page = 0; page < num_pages; ++page) {
            score_page(keys, pages[page], pages[std::min(page + 1, num_pages - 1)], queries, num_queries, scores.data());
            for (size_t q = 0; q < num_queries; ++q)
                log_masses[q * num_pages + page] =
                    log2_sum(scores.data() + q * keys.page_size, static_cast<size_t>(pages[page].num_rows));
        }
    });
}

void total_log_masses(const float* log_masses, size_t num_queries, size_t num_pages, InstructionSet instruction_set, float* totals) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t q = 0; q < num_queries; ++q) totals[q] = log2_sum(log_masses + q * num_pages, num_pages);
    });
}

void rank_pages(const float* log_masses, const float* totals, size_t num_queries, size_t num_pages, size_t count,
                InstructionSet instruction_set, int32_t* places) {
    std::vector<float> shares(num_pages + width, 0.0f);
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t q = 0; q < num_queries; ++q) {
            const Eight total = Eight::all(totals[q] > -1e30f ? totals[q] : -1e30f);
            const float* masses = log_masses + q * num_pages;
            size_t page = 0;
            for (; page + width <= num_pages; page += width)
                (Eight::load(shares.data() + page) + power_of_two(Eight::load(masses + page) - total)).store(shares.data() + page);
            float tail[width];
            std::fill_n(tail, width, -infinity);
            for (size_t i = 0; page + i < num_pages; ++i) tail[i] = masses[page + i];
            (Eight::load(shares.data() + page) + power_of_two(Eight::load(tail) - total)).store(shares.data() + page);
        }
    });
    std::vector<uint64_t> keys;
    keys.reserve(num_pages);
    for (size_t page = 0; page < num_pages; ++page)
        for (size_t q = 0; q < num_queries; ++q)
            if (log_masses[q * num_pages + page] > -infinity) {
                keys.push_back(rank_key(shares[page], page));
                break;
            }
    const size_t found = std::min(count, keys.size());
    std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(found), keys.end(), std::greater<>());
    std::sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(found), std::greater<>());
    for (size_t i = 0; i < count; ++i) places[i] = i < found ? static_cast<int32_t>(place_of(keys[i])) : -1;
}

template void exact_log_masses(const KeySlots<float>&, const ScoredPage*, size_t, const float*, size_t, InstructionSet, float*);
template void exact_log_masses(const KeySlots<BFloat16>&, const ScoredPage*, size_t, const float*, size_t, InstructionSet, float*);

}  // namespace hoarfrost
