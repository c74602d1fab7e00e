// The search of the `ice` index for one set of queries: see src/hoarfrost/cache/index/scoring.py, whose `search` is the plain twin.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pages/page_index.hpp"

namespace hoarfrost {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// The log2 of the sum of two masses.
float sum_of_two(float a, float b) {
    const float larger = std::max(a, b), smaller = std::min(a, b);
    return smaller == -infinity ? larger : larger + std::log2(1.0f + std::exp2(smaller - larger));
}

}  // namespace

template <class Key>
void search_pages(const SketchedKeys<Key>& held, const float* queries, size_t num_queries, float scale, const float* resident,
                  size_t num_candidates, size_t num_wanted, bool single_rows, InstructionSet instruction_set, int32_t* chosen) {
    const size_t num_pages = held.num_pages, head_dim = held.keys.head_dim, num_scaled = num_queries * head_dim;
    std::vector<float> estimates(num_queries * num_pages), scaled(num_scaled), totals(num_queries), exact_totals(num_queries);
    std::vector<int32_t> candidates(num_candidates), names;
    std::vector<ScoredPage> scored;
    // A single row is a page of one row: the slots are then as large as a row.
    KeySlots<Key> keys = held.keys;
    if (single_rows) keys.slot_stride = head_dim, keys.page_size = 1;
    const int64_t rows_per_slot = static_cast<int64_t>(held.keys.slot_stride / head_dim);
    const auto add_resident = [&] {
        for (size_t q = 0; q < num_queries && resident != nullptr; ++q) totals[q] = sum_of_two(totals[q], resident[q]);
    };

    const float weight = scale / static_cast<float>(held.rotation.padded_dim);
    estimate_log_masses(held.sketches, held.counts, num_pages, queries, num_queries, head_dim, held.rotation, weight, instruction_set,
                        estimates.data());
    total_log_masses(estimates.data(), num_queries, num_pages, instruction_set, totals.data());
    add_resident();
    rank_pages(estimates.data(), totals.data(), num_queries, num_pages, num_candidates, instruction_set, candidates.data());

    for (const int32_t candidate : candidates) {
        if (candidate < 0) continue;
        const size_t page = static_cast<size_t>(candidate);
        for (size_t q = 0; q < num_queries; ++q) estimates[q * num_pages + page] = -infinity;
        if (!single_rows) {
            scored.push_back({held.slots[page], held.counts[page]});
            names.push_back(candidate);
        }
        for (int32_t row = 0; single_rows && row < held.counts[page]; ++row) {
            scored.push_back({held.slots[page] * rows_per_slot + row, 1});
            names.push_back(candidate * static_cast<int32_t>(held.keys.page_size) + row);
        }
    }
    std::vector<float> exact(num_queries * scored.size());
    for (size_t i = 0; i < num_scaled; ++i) scaled[i] = queries[i] * scale;
    exact_log_masses(keys, scored.data(), scored.size(), scaled.data(), num_queries, instruction_set, exact.data());

    total_log_masses(estimates.data(), num_queries, num_pages, instruction_set, totals.data());
    add_resident();
    total_log_masses(exact.data(), num_queries, scored.size(), instruction_set, exact_totals.data());
    for (size_t q = 0; q < num_queries; ++q) totals[q] = sum_of_two(totals[q], exact_totals[q]);
    rank_pages(exact.data(), totals.data(), num_queries, scored.size(), num_wanted, instruction_set, chosen);
    for (size_t i = 0; i < num_wanted; ++i) chosen[i] = chosen[i] < 0 ? -1 : names[static_cast<size_t>(chosen[i])];
}

template void search_pages(const SketchedKeys<float>&, const float*, size_t, float, const float*, size_t, size_t, bool, InstructionSet,
                           int32_t*);
template void search_pages(const SketchedKeys<BFloat16>&, const float*, size_t, float, const float*, size_t, size_t, bool, InstructionSet,
                           int32_t*);

}  // namespace hoarfrost
