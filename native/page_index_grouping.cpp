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

#include "page_index.hpp"

#if HOARFROST_X86
#include <immintrin.h>
#endif

namespace hoarfrost {

namespace {

constexpr size_t sample_rows = 512;  // and the largest set whose rows are widened
constexpr int num_refinements = 2;
constexpr size_t max_coordinates = 64;
constexpr int log2_bins = 8, few_log2_bins = 5;  // of many heights, and of few
constexpr size_t few_rows = 128;
constexpr size_t slack = 8;  // numbers that may be written behind the last one
constexpr int32_t lowest = std::numeric_limits<int32_t>::min(), highest = std::numeric_limits<int32_t>::max();

using Row = std::array<int16_t, max_coordinates>;  // of coordinates, or a direction
using Sums = std::array<int32_t, max_coordinates>;

struct PlainRows {
    const int8_t* coordinates;
    size_t width;

    void widen(int32_t number, Row& row) const {
        row.fill(0);
        std::copy_n(coordinates + static_cast<size_t>(number) * width, width, row.begin());
    }

    void heights(const int32_t* rows, size_t count, const Row& direction, int32_t* out) const {
        Row row;
        for (size_t i = 0; i < count; ++i) {
            widen(rows[i], row);
            out[i] = height(row, direction);
        }
    }

    static void heights(const Row* widened, const int32_t* rows, size_t count, const Row& direction, int32_t* out) {
        for (size_t i = 0; i < count; ++i) out[i] = height(widened[rows[i]], direction);
    }

    static Sums sum(const Row* widened, const int32_t* rows, size_t count) {
        Sums sums{};
        for (size_t i = 0; i < count; ++i)
            for (size_t d = 0; d < max_coordinates; ++d) sums[d] += widened[rows[i]][d];
        return sums;
    }

    // Writes the numbers whose height is `least` to `most`, in order, to `out`, which may be `numbers`. Returns how many.
    static size_t keep(const int32_t* numbers, const int32_t* heights, size_t count, int32_t least, int32_t most, int32_t* out) {
        size_t num_kept = 0;
        for (size_t i = 0; i < count; ++i) {
            out[num_kept] = numbers[i];
            num_kept += (heights[i] >= least) & (heights[i] <= most);
        }
        return num_kept;
    }

private:
    static int32_t height(const Row& row, const Row& direction) {
        int32_t height = 0;
        for (size_t d = 0; d < max_coordinates; ++d) height += static_cast<int32_t>(row[d]) * direction[d];
        return height;
    }
};

#if HOARFROST_X86

// For every set of lanes, the lanes in it, in order.
struct PackedLanes {
    std::array<std::array<uint8_t, 8>, 256> lanes{};
    std::array<uint8_t, 256> counts{};

    constexpr PackedLanes() {
        for (size_t set = 0; set < 256; ++set)
            for (size_t lane = 0; lane < 8; ++lane)
                if (set >> lane & 1) lanes[set][counts[set]++] = static_cast<uint8_t>(lane);
    }
};
constexpr PackedLanes packed_lanes;

// Rows of 64 coordinates, four registers of 16 bits each.
struct Avx2Rows {
    const int8_t* coordinates;
    static constexpr size_t num_registers = 4, num_lanes = 8, rows_at_once = 4, rows_ahead = 16;
    static constexpr size_t rows_per_sum = 256;  // whose sums fit 16 bits

    HOARFROST_AVX2 void widen(int32_t number, Row& row) const {
        for (size_t j = 0; j < num_registers; ++j)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(row.data()) + j, part(number, j));
    }

    HOARFROST_AVX2 void heights(const int32_t* rows, size_t count, const Row& direction, int32_t* out) const {
        const size_t last = count - 1;
        for (size_t i = 0; i < count; i += rows_at_once) {
            for (size_t row = 0; row < rows_at_once; ++row)
                __builtin_prefetch(coordinates + static_cast<size_t>(rows[std::min(i + rows_ahead + row, last)]) * max_coordinates);
            __m256i products[rows_at_once];
            for (size_t row = 0; row < rows_at_once; ++row) {
                const int32_t number = rows[std::min(i + row, last)];
                products[row] = height(part(number, 0), part(number, 1), part(number, 2), part(number, 3), direction);
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), sums_of(products));
        }
    }

    HOARFROST_AVX2 static void heights(const Row* widened, const int32_t* rows, size_t count, const Row& direction, int32_t* out) {
        for (size_t i = 0; i < count; i += rows_at_once) {
            __m256i products[rows_at_once];
            for (size_t lane = 0; lane < rows_at_once; ++lane) {
                const Row& row = widened[rows[std::min(i + lane, count - 1)]];
                products[lane] = height(part(row, 0), part(row, 1), part(row, 2), part(row, 3), direction);
            }
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), sums_of(products));
        }
    }

    HOARFROST_AVX2 static Sums sum(const Row* widened, const int32_t* rows, size_t count) {
        Sums sums{};
        for (size_t i = 0; i < count;) {
            __m256i parts[num_registers] = {};
            const size_t end = std::min(i + rows_per_sum, count);
            for (; i < end; ++i)
                for (size_t j = 0; j < num_registers; ++j) parts[j] = _mm256_add_epi16(parts[j], part(widened[rows[i]], j));
            Row entries;
            for (size_t j = 0; j < num_registers; ++j) _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries.data()) + j, parts[j]);
            for (size_t d = 0; d < max_coordinates; ++d) sums[d] += entries[d];
        }
        return sums;
    }

    HOARFROST_AVX2 static size_t keep(const int32_t* numbers, const int32_t* heights, size_t count, int32_t least, int32_t most,
                                      int32_t* out) {
        const __m256i low = _mm256_set1_epi32(least), high = _mm256_set1_epi32(most);
        size_t num_kept = 0, i = 0;
        for (; i + num_lanes <= count; i += num_lanes) {
            const __m256i tested = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(heights + i));
            const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(low, tested), _mm256_cmpgt_epi32(tested, high));
            const size_t kept = 0xFF ^ static_cast<size_t>(_mm256_movemask_ps(_mm256_castsi256_ps(outside)));
            const __m128i lanes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed_lanes.lanes[kept].data()));
            const __m256i held = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(numbers + i));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + num_kept), _mm256_permutevar8x32_epi32(held, _mm256_cvtepu8_epi32(lanes)));
            num_kept += packed_lanes.counts[kept];
        }
        return num_kept + PlainRows::keep(numbers + i, heights + i, count - i, least, most, out + num_kept);
    }

private:
    HOARFROST_AVX2 inline __attribute__((always_inline)) __m256i part(int32_t number, size_t j) const {
        const __m128i* from = reinterpret_cast<const __m128i*>(coordinates + static_cast<size_t>(number) * max_coordinates);
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(from + j));
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m256i part(const Row& row, size_t j) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row.data()) + j);
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m256i height(__m256i first, __m256i second, __m256i third, __m256i fourth,
                                                                               const Row& direction) {
        const __m256i front = _mm256_add_epi32(_mm256_madd_epi16(part(direction, 0), first), _mm256_madd_epi16(part(direction, 1), second));
        const __m256i back = _mm256_add_epi32(_mm256_madd_epi16(part(direction, 2), third), _mm256_madd_epi16(part(direction, 3), fourth));
        return _mm256_add_epi32(front, back);
    }

    // The sums of the lanes of each register.
    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m128i sums_of(const __m256i (&parts)[rows_at_once]) {
        const __m256i first = _mm256_add_epi32(_mm256_unpacklo_epi32(parts[0], parts[1]), _mm256_unpackhi_epi32(parts[0], parts[1]));
        const __m256i second = _mm256_add_epi32(_mm256_unpacklo_epi32(parts[2], parts[3]), _mm256_unpackhi_epi32(parts[2], parts[3]));
        const __m256i sums = _mm256_add_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second));
        return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    }
};

#endif

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
