// Which pivots can be the nearest to a point: products in 8 bits with a proven bound, at twice the rate of those in 16 bits.
//
// With c the mean of the pivots, a point A orders pivots B as A . (B - c) = (A - c) . (B - c) + c . (B - c) does. Let a be u (A - c) and
// b be v (B - c), rounded to 8 bits. By Cauchy and Schwarz a . b + u v c . (B - c) differs from u v A . (B - c) by at most
//     |u (A - c)| |v (B - c) - b| + |u (A - c) - a| |b|,
// so that only pivots whose score comes that near to the exact value of the best score's need an exact product.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "pages/dci_rows.hpp"

#if HOARFROST_X86

namespace hoarfrost {

class PivotScreen {
public:
    explicit PivotScreen(const LiftedRows& pivots);
    void find(const LiftedRows& points, int32_t* nearest) const;

private:
    static constexpr size_t panel_pivots = 16;  // two registers of eight pivots, four entries each
    static constexpr size_t tile_points = 6, block_points = 8 * tile_points;

    struct Block {
        explicit Block(const PivotScreen& screen)
            : exact(block_points, screen.width_), rounded(block_points * exact.width()), scores(block_points * screen.num_panels()),
              panels(screen.num_panels()), near(screen.num_panels()), candidates(screen.num_panels() * panel_pivots + 4) {}
        PaddedRows exact;
        std::vector<uint8_t> rounded;  // a + 128
        float margins[block_points];   // the bound
        std::vector<Entries> scores;   // [block_points, num_panels]
        __m256i leads[block_points];   // the largest score in each lane
        int64_t best[block_points];    // rank of the nearest pivot so far
        int16_t least_scores[block_points];  // that may hide a larger product
        std::vector<uint32_t> panels, near, candidates;
    };

    size_t num_panels() const { return starts_.size() / 2; }
    float subtract_centre(const int16_t* row, float scale, float* centred) const;
    void prepare(const LiftedRows& pivots);
    void choose_scales(float spread);
    void round_point(const int16_t* point, size_t place, Block& block) const;
    void multiply_tile(const uint8_t* points, size_t panel, Entries* scores, __m256i* leads) const;
    size_t leader(const Entries* scores, __m256i lead) const;
    void try_leader(size_t place, Block& block) const;
    void try_others(size_t place, Block& block) const;

    size_t width_, num_steps_;  // of four entries
    PaddedRows pivots_, centre_;
    float rounding_;  // the largest length of what rounding takes away
    std::vector<Entries> panels_;  // [num_panels, num_steps, 2]
    std::vector<Entries> starts_;  // [num_panels, 2]: u v c . (B - c), less what the 128 in a + 128 adds
    float point_scale_ = 1.0f, pivot_scale_ = 1.0f;        // u, v
    float largest_length_ = 1.0f, largest_entry_ = 1.0f;   // of B - c
    float largest_rounded_ = 0.0f, largest_error_ = 0.0f;  // |b|, |v (B - c) - b|
    int64_t shift_ = 0;  // added to all A . (B - c)
};

// Writes `scale` (row - c); returns the largest magnitude of an entry.
HOARFROST_AVX2 inline float PivotScreen::subtract_centre(const int16_t* row, float scale, float* centred) const {
    const int16_t* centre = centre_.row(0);
    float lanes[8] = {};
    for (size_t d = 0; d < pivots_.width(); d += 8)
        for (size_t i = 0; i < 8; ++i) {
            const float entry = static_cast<float>(row[d + i] - centre[d + i]) * scale;
            centred[d + i] = entry;
            lanes[i] = std::abs(entry) > lanes[i] ? std::abs(entry) : lanes[i];
        }
    return *std::max_element(lanes, lanes + 8);
}

// No sum of two products (a + 128) b may pass 16 bits, nor |a| |b| and what the centre adds, `spread` at most.
HOARFROST_AVX2 inline void PivotScreen::choose_scales(float spread) {
    pivot_scale_ = std::min(64.0f / largest_entry_, 170.0f / largest_length_);
    const float length = pivot_scale_ * largest_length_, share = spread / (largest_length_ * largest_length_);
    const float room = 32700.0f - rounding_ * (length + rounding_);
    const float scale = std::min({0.49f, 126.0f / largest_entry_, room / (length + rounding_ + length * share) / largest_length_});
    point_scale_ = std::floor(scale * 65536.0f) / 65536.0f;
}

inline PivotScreen::PivotScreen(const LiftedRows& pivots)
    : width_(pivots.width), num_steps_((width_ + 3) / 4),
      pivots_((pivots.num_rows + panel_pivots - 1) / panel_pivots * panel_pivots, width_), centre_(1, width_),
      rounding_(std::sqrt(static_cast<float>(width_)) / 2.0f), panels_(pivots_.num_rows() / panel_pivots * num_steps_ * 2),
      starts_(panels_.size() / num_steps_) {
    prepare(pivots);
}

HOARFROST_AVX2 inline void PivotScreen::prepare(const LiftedRows& pivots) {
    const size_t padded_width = pivots_.width();
    std::vector<int64_t> sums(width_);
    for (size_t i = 0; i < pivots_.num_rows(); ++i) {
        const int16_t* pivot = pivots.data + std::min(i, pivots.num_rows - 1) * width_;  // copies of the last one fill up the last panel
        std::copy_n(pivot, width_, pivots_.row(i));
        for (size_t d = 0; d < width_; ++d) sums[d] += pivot[d];
    }
    for (size_t d = 0; d < width_; ++d) centre_.row(0)[d] = static_cast<int16_t>(sums[d] / static_cast<int64_t>(pivots_.num_rows()));
    const int16_t* centre = centre_.row(0);
    std::vector<float> row(padded_width), rest(padded_width);
    std::vector<int32_t> shifts(pivots_.num_rows());
    for (size_t i = 0; i < pivots_.num_rows(); ++i) {
        largest_entry_ = std::max(largest_entry_, subtract_centre(pivots_.row(i), 1.0f, row.data()));
        largest_length_ = std::max(largest_length_, std::sqrt(squared_length(row.data(), width_)));
        shifts[i] = _mm_cvtsi128_si32(products_with<1>({pivots_.row(i)}, centre, padded_width));
    }
    const auto [least, most] = std::minmax_element(shifts.begin(), shifts.end());
    const int32_t middle = std::midpoint(*least, *most);
    shift_ = static_cast<int64_t>(_mm_cvtsi128_si32(products_with<1>({centre}, centre, padded_width))) - middle;
    choose_scales(static_cast<float>(*most - middle));
    for (size_t pivot = 0; pivot < pivots_.num_rows(); ++pivot) {
        subtract_centre(pivots_.row(pivot), pivot_scale_, row.data());
        for (size_t d = 0; d < padded_width; ++d) {
            const float rounded = (row[d] + 0x1.8p23f) - 0x1.8p23f;
            rest[d] = row[d] - rounded;
            row[d] = rounded;
        }
        largest_rounded_ = std::max(largest_rounded_, std::sqrt(squared_length(row.data(), width_)));
        largest_error_ = std::max(largest_error_, std::sqrt(squared_length(rest.data(), width_)));
        // In the order in which the sums of neighbours come out.
        const size_t half = pivot / 4 % 2, lane = pivot % 4 + pivot / 8 % 2 * 4, panel = pivot / panel_pivots;
        int32_t start[2] = {static_cast<int32_t>(static_cast<float>(shifts[pivot] - middle) * point_scale_ * pivot_scale_), 0};
        for (size_t d = 0; d < num_steps_ * 4; ++d) {
            const int8_t entry = static_cast<int8_t>(row[d]);
            reinterpret_cast<int8_t*>(panels_[(panel * num_steps_ + d / 4) * 2 + half].values)[lane * 4 + d % 4] = entry;
            start[d / 2 % 2] -= 128 * entry;
        }
        for (size_t side = 0; side < 2; ++side) starts_[panel * 2 + half].values[lane * 2 + side] = static_cast<int16_t>(start[side]);
    }
}

HOARFROST_AVX2 inline void PivotScreen::round_point(const int16_t* point, size_t place, Block& block) const {
    const size_t num_registers = pivots_.width() / 16, num_whole = width_ / 16;
    const auto registers = [](const int16_t* row) HOARFROST_INLINE_LAMBDA { return reinterpret_cast<const __m256i*>(row); };
    __m256i* exact = reinterpret_cast<__m256i*>(block.exact.row(place));
    std::copy(point + num_whole * 16, point + width_, block.exact.row(place) + num_whole * 16);
    const __m256i factors = _mm256_set1_epi16(static_cast<int16_t>(point_scale_ * 65536.0f));
    __m256i squares = _mm256_setzero_si256(), largest = squares, errors = squares;
    __m128i* rounded = reinterpret_cast<__m128i*>(block.rounded.data() + place * pivots_.width());
    for (size_t i = 0; i < num_registers; ++i) {
        if (i < num_whole) exact[i] = _mm256_loadu_si256(registers(point) + i);
        const __m256i half = half_difference(exact[i], registers(centre_.row(0))[i]), whole = _mm256_mulhrs_epi16(half, factors);
        const __m256i rest = _mm256_sub_epi16(_mm256_mullo_epi16(half, factors), _mm256_slli_epi16(whole, 15));
        const __m256i error = _mm256_srai_epi16(rest, 4);  // in parts of 2048
        squares = _mm256_add_epi32(squares, _mm256_madd_epi16(half, half));
        errors = _mm256_add_epi32(errors, _mm256_madd_epi16(error, error));
        largest = _mm256_max_epu16(largest, _mm256_abs_epi16(half));
        const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        _mm_store_si128(rounded + i, _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
    }
    const float length = 2.0f * (std::sqrt(static_cast<float>(sum_of(squares))) + rounding_);
    const float error = (std::sqrt(static_cast<float>(sum_of(errors))) + rounding_) / 2048.0f + 2.0f * rounding_ * point_scale_;
    // Farther out than the pivots, where 8 or 16 bits may not do: every pivot needs its exact product.
    const bool is_outside = length > largest_length_ || static_cast<float>(largest_of(largest)) * 2.0f > largest_entry_;
    const float bound = 1.001f * (point_scale_ * length * largest_error_ + error * largest_rounded_) + 2.0f;
    block.margins[place] = is_outside ? 65536.0f : bound;
}

HOARFROST_AVX2 inline void PivotScreen::multiply_tile(const uint8_t* points, size_t panel, Entries* scores, __m256i* leads) const {
    const __m256i* starts = reinterpret_cast<const __m256i*>(starts_.data() + panel * 2);
    const __m256i* pivots = reinterpret_cast<const __m256i*>(panels_.data() + panel * num_steps_ * 2);
    const size_t padded_width = pivots_.width(), num_steps = num_steps_;
    __m256i sums[tile_points][2];
    for (size_t i = 0; i < tile_points; ++i) {
        sums[i][0] = starts[0];
        sums[i][1] = starts[1];
    }
    for (size_t step = 0; step < num_steps; ++step) {
        const __m256i first = pivots[step * 2], second = pivots[step * 2 + 1];
        for (size_t i = 0; i < tile_points; ++i) {
            int32_t entries;
            __builtin_memcpy(&entries, points + i * padded_width + step * 4, sizeof(entries));
            const __m256i entry = _mm256_set1_epi32(entries);
            sums[i][0] = add_in_place(sums[i][0], _mm256_maddubs_epi16(entry, first));
            sums[i][1] = add_in_place(sums[i][1], _mm256_maddubs_epi16(entry, second));
        }
    }
    for (size_t i = 0; i < tile_points; ++i) {
        const __m256i products = _mm256_hadds_epi16(sums[i][0], sums[i][1]);
        *reinterpret_cast<__m256i*>(scores + i * num_panels() + panel) = products;
        leads[i] = _mm256_max_epi16(leads[i], products);
    }
}

// The first pivot with the largest score.
HOARFROST_AVX2 inline size_t PivotScreen::leader(const Entries* scores, __m256i lead) const {
    const __m256i sign = _mm256_set1_epi16(-32768);
    const __m256i wanted = _mm256_set1_epi16(static_cast<int16_t>(largest_of(_mm256_xor_si256(lead, sign)) ^ 0x8000));
    for (size_t panel = 0;; ++panel) {
        const __m256i is_wanted = _mm256_cmpeq_epi16(*reinterpret_cast<const __m256i*>(scores + panel), wanted);
        const uint32_t found = static_cast<uint32_t>(_mm256_movemask_epi8(is_wanted));
        if (found != 0) return panel * panel_pivots + static_cast<size_t>(__builtin_ctz(found)) / 2;
    }
}

HOARFROST_AVX2 inline void PivotScreen::try_leader(size_t place, Block& block) const {
    const size_t first = leader(block.scores.data() + place * num_panels(), block.leads[place]);
    const __m128i products = products_with<2>({pivots_.row(first), centre_.row(0)}, block.exact.row(place), pivots_.width());
    const int32_t product = _mm_cvtsi128_si32(products);
    const int64_t relative = shift_ + product - _mm_extract_epi32(products, 1);
    const float known = static_cast<float>(relative) * (point_scale_ * pivot_scale_);
    block.best[place] = rank_of(product, first);
    block.least_scores[place] = static_cast<int16_t>(std::max(std::floor(known - block.margins[place]), -32768.0f));
}

HOARFROST_AVX2 inline void PivotScreen::try_others(size_t place, Block& block) const {
    const __m256i* scores = reinterpret_cast<const __m256i*>(block.scores.data() + place * num_panels());
    const __m256i least = _mm256_set1_epi16(block.least_scores[place]);
    uint32_t *panels = block.panels.data(), *near = block.near.data(), *candidates = block.candidates.data();
    size_t num_found = 0, num_candidates = 0;
    for (size_t panel = 0; panel < num_panels(); ++panel) {
        const __m256i is_near = _mm256_cmpeq_epi16(_mm256_max_epi16(scores[panel], least), scores[panel]);
        const uint32_t found = static_cast<uint32_t>(_mm256_movemask_epi8(is_near));
        panels[num_found] = static_cast<uint32_t>(panel * panel_pivots);
        near[num_found] = found & 0x55555555;
        num_found += found != 0;
    }
    for (size_t i = 0; i < num_found; ++i)
        for (uint32_t left = near[i]; left != 0; left &= left - 1)
            candidates[num_candidates++] = panels[i] + static_cast<uint32_t>(__builtin_ctz(left)) / 2;
    std::fill_n(candidates + num_candidates, 3, 0u);  // any others make up the last four
    int64_t best = block.best[place];
    for (size_t i = 0; i < num_candidates; i += 4) {
        const int16_t* const others[4] = {pivots_.row(candidates[i]), pivots_.row(candidates[i + 1]), pivots_.row(candidates[i + 2]),
                                          pivots_.row(candidates[i + 3])};
        alignas(16) int32_t products[4];
        _mm_store_si128(reinterpret_cast<__m128i*>(products), products_with(others, block.exact.row(place), pivots_.width()));
        for (size_t k = 0; k < 4; ++k) best = std::max(best, rank_of(products[k], candidates[i + k]));
    }
    block.best[place] = best;
}

HOARFROST_AVX2 inline void PivotScreen::find(const LiftedRows& points, int32_t* nearest) const {
    Block block(*this);
    for (size_t start = 0; start < points.num_rows; start += block_points) {
        const size_t count = std::min(block_points, points.num_rows - start);
        for (size_t i = 0; i < count; ++i) round_point(points.data + (start + i) * width_, i, block);
        std::fill_n(block.leads, block_points, _mm256_set1_epi16(-32768));
        for (size_t panel = 0; panel < num_panels(); ++panel)
            for (size_t tile = 0; tile < count; tile += tile_points)
                multiply_tile(block.rounded.data() + tile * pivots_.width(), panel, block.scores.data() + tile * num_panels(),
                              block.leads + tile);
        for (size_t i = 0; i < count; ++i) try_leader(i, block);
        for (size_t i = 0; i < count; ++i) try_others(i, block);
        for (size_t i = 0; i < count; ++i) nearest[start + i] = pivot_of(block.best[i]);
    }
}

}  // namespace hoarfrost

#else

namespace hoarfrost {

class PivotScreen {};

}  // namespace hoarfrost

#endif
