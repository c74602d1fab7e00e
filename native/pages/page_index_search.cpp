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
                  size_t num_candidates, size_t num_wanted, InstructionSet instruction_set, int32_t* chosen) {
    const size_t num_pages = held.num_pages, head_dim = held.keys.head_dim, num_scaled = num_queries * head_dim;
    std::vector<float> estimates(num_queries * num_pages), exact(num_queries * num_candidates), scaled(num_scaled);
    std::vector<float> totals(num_queries), exact_totals(num_queries);
    std::vector<int32_t> candidates(num_candidates);
    std::vector<ScoredPage> scored(num_candidates, ScoredPage{0, 0});
    const auto add_resident = [&] {
        for (size_t q = 0; q < num_queries && resident != nullptr; ++q) totals[q] = sum_of_two(totals[q], resident[q]);
    };

    const float weight = scale / static_cast<float>(held.rotation.padded_dim);
    estimate_log_masses(held.sketches, held.counts, num_pages, queries, num_queries, head_dim, held.rotation, weight, instruction_set,
                        estimates.data());
    total_log_masses(estimates.data(), num_queries, num_pages, instruction_set, totals.data());
    add_resident();
    rank_pages(estimates.data(), totals.data(), num_queries, num_pages, num_candidates, instruction_set, candidates.data());

    for (size_t i = 0; i < num_candidates; ++i) {
        if (candidates[i] < 0) continue;
        const size_t page = static_cast<size_t>(candidates[i]);
        scored[i] = {held.slots[page], held.counts[page]};
        for (size_t q = 0; q < num_queries; ++q) estimates[q * num_pages + page] = -infinity;
    }
    for (size_t i = 0; i < num_scaled; ++i) scaled[i] = queries[i] * scale;
    exact_log_masses(held.keys, scored.data(), num_candidates, scaled.data(), num_queries, instruction_set, exact.data());

    total_log_masses(estimates.data(), num_queries, num_pages, instruction_set, totals.data());
    add_resident();
    total_log_masses(exact.data(), num_queries, num_candidates, instruction_set, exact_totals.data());
    for (size_t q = 0; q < num_queries; ++q) totals[q] = sum_of_two(totals[q], exact_totals[q]);
    rank_pages(exact.data(), totals.data(), num_queries, num_candidates, num_wanted, instruction_set, chosen);
    for (size_t i = 0; i < num_wanted; ++i) chosen[i] = chosen[i] < 0 ? -1 : candidates[static_cast<size_t>(chosen[i])];
}

template void search_pages(const SketchedKeys<float>&, const float*, size_t, float, const float*, size_t, size_t, InstructionSet, int32_t*);
template void search_pages(const SketchedKeys<BFloat16>&, const float*, size_t, float, const float*, size_t, size_t, InstructionSet,
                           int32_t*);

}  // namespace hoarfrost
