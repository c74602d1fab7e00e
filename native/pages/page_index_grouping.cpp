// Grouping by halving: see src/hoarfrost/cache/index/grouping.py. Whole numbers throughout, so that every variant finds the same pages.
//
// Rows are read often when sets have become small: those are widened to 16 bits once, side by side, and so are the samples of large sets.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <vector>

#include "pages/coordinate_rows.hpp"
#include "pages/page_index.hpp"

namespace hoarfrost {

namespace {

constexpr size_t sample_rows = 512;  // and the largest set whose rows are widened
constexpr int num_refinements = 2;
constexpr int log2_bins = 8, few_log2_bins = 5;  // of many heights, and of few
constexpr size_t few_rows = 128;
constexpr size_t slack = 8;  // numbers that may be written behind the last one
constexpr int32_t lowest = std::numeric_limits<int32_t>::min(), highest = std::numeric_limits<int32_t>::max();

template <class Rows>
class Halving {
public:
    Halving(const Rows& source, size_t num_rows, size_t page_size, InstructionSet instruction_set, int32_t* rows)
        : source_(source),
          page_size_(page_size),
          rows_(rows),
          instruction_set_(instruction_set),
          heights_(num_rows + slack),
          upper_(num_rows + slack),
          compared_(num_rows + slack),
          widened_(sample_rows),
          places_(sample_rows) {
        std::iota(rows, rows + num_rows, 0);
    }

    // Orders rows_[start .. start + count) by page; ascending within a page.
    void split(size_t start, size_t count) {
        if (count <= sample_rows) return split_widened(start, count);
        const size_t num_left = num_left_of(count), stride = (count + sample_rows - 1) / sample_rows;
        int32_t* rows = rows_ + start;
        size_t size = 0;
        for (size_t i = 0; i < count; i += stride) widen(rows[i], size++);
        source_.heights(rows, count, direction(places_.data(), size), heights_.data());
        partition(rows, count, num_left);
        split(start, num_left);
        split(start + num_left, count - num_left);
    }

private:
    Rows source_;
    size_t page_size_;
    int32_t* rows_;
    InstructionSet instruction_set_;
    std::vector<int32_t> heights_, upper_, compared_;
    std::vector<Row> widened_;      // rows of the set or sample at hand
    std::vector<int32_t> places_;  // among them

    size_t num_left_of(size_t count) const { return count / page_size_ / 2 * page_size_; }

    void widen(int32_t row, size_t place) {
        source_.widen(row, widened_[place]);
        places_[place] = static_cast<int32_t>(place);
    }

    void split_widened(size_t start, size_t count) {
        int32_t* rows = rows_ + start;
        for (size_t i = 0; i < count; ++i) widen(rows[i], i);
        split_places(places_.data(), count);
        std::copy_n(rows, count, upper_.data());
        for (size_t i = 0; i < count; ++i) rows[i] = upper_[static_cast<size_t>(places_[i])];
    }

    void split_places(int32_t* places, size_t count) {
        if (count <= page_size_) return;
        const size_t num_left = num_left_of(count);
        Rows::heights(widened_.data(), places, count, direction(places, count), heights_.data());
        partition(places, count, num_left);
        split_places(places, num_left);
        split_places(places + num_left, count - num_left);
    }

    Row direction(const int32_t* places, size_t size) {
        const Row* rows = widened_.data();
        Sums total = Rows::sum(rows, places, size / 2), upper = Rows::sum(rows, places + size / 2, size - size / 2);
        for (size_t d = 0; d < max_coordinates; ++d) total[d] += upper[d];
        Row along = between_means(total, upper, size, size - size / 2);
        for (int round = 0; round < num_refinements; ++round) {
            int64_t sum = 0;
            for (size_t d = 0; d < max_coordinates; ++d) sum += static_cast<int64_t>(along[d]) * total[d];
            // height * size > sum, as one comparison: height > floor(sum / size)
            const int64_t divisor = static_cast<int64_t>(size), quotient = sum / divisor;
            const int32_t limit = static_cast<int32_t>(quotient - (sum % divisor < 0));
            Rows::heights(rows, places, size, along, heights_.data());
            const size_t num_upper = Rows::keep(places, heights_.data(), size, limit + 1, highest, upper_.data());
            if (num_upper == 0) break;
            upper = Rows::sum(rows, upper_.data(), num_upper);
            along = between_means(total, upper, size, num_upper);
        }
        return along;
    }

    // The scaled difference of the means, upper * n - total * m: a sample's sums leave room for it in 32 bits.
    Row between_means(const Sums& total, const Sums& upper, size_t num_rows, size_t num_upper) const {
        Row along{};
        run_with(instruction_set_, [&]() HOARFROST_INLINE_LAMBDA {
            Sums difference{};
            int32_t largest = 0;
            for (size_t d = 0; d < max_coordinates; ++d) {
                difference[d] = upper[d] * static_cast<int32_t>(num_rows) - total[d] * static_cast<int32_t>(num_upper);
                largest = std::max(largest, std::abs(difference[d]));
            }
            const int shift = std::max(0, static_cast<int>(std::bit_width(static_cast<uint32_t>(largest))) - 15);
            for (size_t d = 0; d < max_coordinates; ++d) along[d] = static_cast<int16_t>(difference[d] >> shift);
        });
        return along;
    }

    // Moves the `num_left` lowest rows to the front, of equally high ones the first; both parts keep their order.
    void partition(int32_t* rows, size_t count, size_t num_left) {
        const int32_t limit = height_of_rank(count, num_left - 1), *heights = heights_.data();
        size_t num_below = 0, num_level = 0;
        run_with(instruction_set_, [&]() HOARFROST_INLINE_LAMBDA {
            uint32_t below = 0, level = 0;
            for (size_t i = 0; i < count; ++i) {
                below += heights[i] < limit;
                level += heights[i] == limit;
            }
            num_below = below;
            num_level = level;
        });
        size_t num_surplus = num_below + num_level - num_left;
        for (size_t i = count; num_surplus > 0; --i)  // of equally high ones the last go up
            if (heights[i - 1] == limit) {
                ++heights_[i - 1];
                --num_surplus;
            }
        Rows::keep(rows, heights, count, limit + 1, highest, upper_.data());
        Rows::keep(rows, heights, count, lowest, limit, rows);
        std::copy_n(upper_.data(), count - num_left, rows + num_left);
    }

    // The height of which `rank` heights, or fewer, are lower: counted in equal bins, so that only those of one bin are compared.
    int32_t height_of_rank(size_t count, size_t rank) {
        int32_t low = heights_[0], high = heights_[0];
        const size_t num_bins = size_t{1} << (count <= few_rows ? few_log2_bins : log2_bins);
        std::array<uint32_t, size_t{1} << log2_bins> bins;
        int shift = 0;
        run_with(instruction_set_, [&]() HOARFROST_INLINE_LAMBDA {
            const int32_t* heights = heights_.data();
            int32_t least = heights[0], most = heights[0];
            for (size_t i = 1; i < count; ++i) {
                least = std::min(least, heights[i]);
                most = std::max(most, heights[i]);
            }
            low = least;
            high = most;
        });
        const uint32_t range = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
        while (range >> shift >= num_bins) ++shift;
        std::fill_n(bins.data(), num_bins, 0u);
        for (size_t i = 0; i < count; ++i) ++bins[(static_cast<uint32_t>(heights_[i]) - static_cast<uint32_t>(low)) >> shift];
        uint32_t bin = 0;
        while (rank >= bins[bin]) rank -= bins[bin++];
        const int64_t first = low + (static_cast<int64_t>(bin) << shift), last = first + (int64_t{1} << shift) - 1;
        const size_t num_compared = Rows::keep(heights_.data(), heights_.data(), count, static_cast<int32_t>(first),
                                               static_cast<int32_t>(std::min<int64_t>(last, high)), compared_.data());
        std::nth_element(compared_.data(), compared_.data() + rank, compared_.data() + num_compared);
        return compared_[rank];
    }
};

}  // namespace

void group_similar(const int8_t* coordinates, size_t num_rows, size_t num_coordinates, size_t page_size, InstructionSet instruction_set,
                   int32_t* rows) {
#if HOARFROST_X86
    if (instruction_set != InstructionSet::plain && num_coordinates == max_coordinates)
        return Halving<Avx2Rows>({coordinates}, num_rows, page_size, instruction_set, rows).split(0, num_rows);
#endif
    Halving<PlainRows>({coordinates, num_coordinates}, num_rows, page_size, instruction_set, rows).split(0, num_rows);
}

}  // namespace hoarfrost
