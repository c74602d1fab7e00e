// Grouping by halving: see src/hoarfrost/cache/index/grouping.py. Whole numbers throughout, so that every variant finds the same pages.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <vector>

#include "page_index.hpp"

#if HOARFROST_X86
#include <immintrin.h>
#endif

namespace hoarfrost {

namespace {

constexpr size_t sample_rows = 512;
constexpr int num_refinements = 2;
constexpr size_t max_coordinates = 64;
constexpr int log2_bins = 8, few_log2_bins = 5;  // of many heights, and of few
constexpr size_t few_rows = 128;

using Direction = std::array<int16_t, max_coordinates>;
using Sums = std::array<int32_t, max_coordinates>;

// Every `stride`-th of `count` rows.
struct Sample {
    const int32_t* rows;
    size_t count, stride;

    size_t size() const { return (count + stride - 1) / stride; }
};

struct PlainRows {
    const int8_t* coordinates;
    size_t width;

    const int8_t* row(int32_t number) const { return coordinates + static_cast<size_t>(number) * width; }

    int32_t height(int32_t number, const Direction& direction) const {
        int32_t height = 0;
        for (size_t i = 0; i < width; ++i) height += static_cast<int32_t>(row(number)[i]) * direction[i];
        return height;
    }

    void heights(const int32_t* rows, size_t count, const Direction& direction, int32_t* out) const {
        for (size_t i = 0; i < count; ++i) out[i] = height(rows[i], direction);
    }

    // The sum of the sampled rows from place `first` on.
    Sums sum(const Sample& sample, size_t first) const {
        Sums sums{};
        for (size_t place = first; place < sample.size(); ++place)
            for (size_t d = 0; d < width; ++d) sums[d] += row(sample.rows[place * sample.stride])[d];
        return sums;
    }

    // The sum of the sampled rows that are higher than `limit`, and their number.
    size_t sum_above(const Sample& sample, const Direction& direction, int32_t limit, Sums& sums) const {
        sums.fill(0);
        size_t num_upper = 0;
        for (size_t place = 0; place < sample.count; place += sample.stride) {
            if (height(sample.rows[place], direction) <= limit) continue;
            for (size_t d = 0; d < width; ++d) sums[d] += row(sample.rows[place])[d];
            ++num_upper;
        }
        return num_upper;
    }
};

#if HOARFROST_X86

// Rows of 64 coordinates, four registers of 16 bits each. Sums of up to 256 rows fit those bits.
struct Avx2Rows {
    const int8_t* coordinates;
    static constexpr size_t width = max_coordinates, num_registers = 4, rows_per_sum = 256;

    HOARFROST_AVX2 void heights(const int32_t* rows, size_t count, const Direction& direction, int32_t* out) const {
        __m256i along[num_registers], row[num_registers];
        load(direction, along);
        for (size_t i = 0; i < count; ++i) {
            load(rows[i], row);
            out[i] = height(row, along);
        }
    }

    HOARFROST_AVX2 Sums sum(const Sample& sample, size_t first) const {
        Sums sums{};
        __m256i row[num_registers];
        for (size_t place = first; place < sample.size();) {
            __m256i part[num_registers] = {};
            const size_t end = std::min(place + rows_per_sum, sample.size());
            for (; place < end; ++place) {
                load(sample.rows[place * sample.stride], row);
                for (size_t j = 0; j < num_registers; ++j) part[j] = _mm256_add_epi16(part[j], row[j]);
            }
            add(part, sums);
        }
        return sums;
    }

    HOARFROST_AVX2 size_t sum_above(const Sample& sample, const Direction& direction, int32_t limit, Sums& sums) const {
        sums.fill(0);
        __m256i along[num_registers], row[num_registers];
        load(direction, along);
        size_t num_upper = 0;
        for (size_t place = 0; place < sample.size();) {
            __m256i part[num_registers] = {};
            const size_t end = std::min(place + rows_per_sum, sample.size());
            for (; place < end; ++place) {
                load(sample.rows[place * sample.stride], row);
                const bool is_above = height(row, along) > limit;
                const __m256i mask = _mm256_set1_epi16(static_cast<int16_t>(-static_cast<int>(is_above)));
                for (size_t j = 0; j < num_registers; ++j) part[j] = _mm256_add_epi16(part[j], _mm256_and_si256(row[j], mask));
                num_upper += is_above;
            }
            add(part, sums);
        }
        return num_upper;
    }

private:
    HOARFROST_AVX2 inline __attribute__((always_inline)) void load(int32_t number, __m256i (&row)[num_registers]) const {
        const __m128i* from = reinterpret_cast<const __m128i*>(coordinates + static_cast<size_t>(number) * width);
        for (size_t j = 0; j < num_registers; ++j) row[j] = _mm256_cvtepi8_epi16(_mm_loadu_si128(from + j));
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) void load(const Direction& direction, __m256i (&along)[num_registers]) {
        const __m256i* from = reinterpret_cast<const __m256i*>(direction.data());
        for (size_t j = 0; j < num_registers; ++j) along[j] = _mm256_loadu_si256(from + j);
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) int32_t height(const __m256i (&row)[num_registers],
                                                                               const __m256i (&along)[num_registers]) {
        const __m256i first = _mm256_add_epi32(_mm256_madd_epi16(row[0], along[0]), _mm256_madd_epi16(row[1], along[1]));
        const __m256i second = _mm256_add_epi32(_mm256_madd_epi16(row[2], along[2]), _mm256_madd_epi16(row[3], along[3]));
        const __m256i sum = _mm256_add_epi32(first, second);
        __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
        return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
    }

    HOARFROST_AVX2 static inline __attribute__((always_inline)) void add(const __m256i (&part)[num_registers], Sums& sums) {
        int16_t entries[max_coordinates];
        for (size_t j = 0; j < num_registers; ++j) _mm256_storeu_si256(reinterpret_cast<__m256i*>(entries + 16 * j), part[j]);
        for (size_t d = 0; d < max_coordinates; ++d) sums[d] += entries[d];
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
          heights_(num_rows),
          upper_(num_rows + 1),
          compared_(num_rows + 1) {
        for (size_t i = 0; i < num_rows; ++i) rows[i] = static_cast<int32_t>(i);
    }

    // Orders rows_[start .. start + count) by page; ascending within a page.
    void split(size_t start, size_t count) {
        if (count <= page_size_) return;
        const size_t num_left = count / page_size_ / 2 * page_size_;
        int32_t* rows = rows_ + start;
        source_.heights(rows, count, direction({rows, count, (count + sample_rows - 1) / sample_rows}), heights_.data());
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

    Direction direction(const Sample& sample) const {
        const size_t size = sample.size();
        const Sums total = source_.sum(sample, 0);
        Sums upper = source_.sum(sample, size / 2);
        Direction along = between_means(total, upper, size, size - size / 2);
        for (int round = 0; round < num_refinements; ++round) {
            int64_t sum = 0;
            for (size_t d = 0; d < source_.width; ++d) sum += static_cast<int64_t>(along[d]) * total[d];
            // height * size > sum, as one comparison: height > floor(sum / size)
            const int64_t divisor = static_cast<int64_t>(size), quotient = sum / divisor;
            const int64_t limit = quotient - (sum % divisor < 0);
            const size_t num_upper = source_.sum_above(sample, along, static_cast<int32_t>(limit), upper);
            if (num_upper == 0) break;
            along = between_means(total, upper, size, num_upper);
        }
        return along;
    }

    // The scaled difference of the means, upper * n - total * m: a sample's sums leave room for it in 32 bits.
    Direction between_means(const Sums& total, const Sums& upper, size_t num_rows, size_t num_upper) const {
        Direction along{};
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
        run_with(instruction_set_, [&]() HOARFROST_INLINE_LAMBDA {
            const int32_t limit = height_of_rank(count, num_left - 1);
            size_t num_below = 0;
            for (size_t i = 0; i < count; ++i) num_below += heights_[i] < limit;
            size_t num_level = num_left - num_below, num_lower = 0, num_upper = 0;
            for (size_t i = 0; i < count; ++i) {
                const int32_t number = rows[i], height = heights_[i];
                const bool is_level = height == limit;
                const bool is_lower = (height < limit) | (is_level & (num_level > 0));
                num_level -= is_level & (num_level > 0);
                rows[num_lower] = number;
                upper_[num_upper] = number;
                num_lower += is_lower;
                num_upper += !is_lower;
            }
            std::copy_n(upper_.data(), num_upper, rows + num_lower);
        });
    }

    // The height of which `rank` heights, or fewer, are lower: counted in equal bins, so that only those of one bin are compared.
    HOARFROST_INLINE int32_t height_of_rank(size_t count, size_t rank) {
        int32_t low = heights_[0], high = heights_[0];
        for (size_t i = 1; i < count; ++i) {
            low = std::min(low, heights_[i]);
            high = std::max(high, heights_[i]);
        }
        const uint32_t range = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
        const int shift = std::max(0, static_cast<int>(std::bit_width(range)) - (count <= few_rows ? few_log2_bins : log2_bins));
        std::array<uint32_t, size_t{1} << log2_bins> bins;
        std::fill_n(bins.data(), size_t{1} << (count <= few_rows ? few_log2_bins : log2_bins), 0u);
        for (size_t i = 0; i < count; ++i) ++bins[(static_cast<uint32_t>(heights_[i]) - static_cast<uint32_t>(low)) >> shift];
        uint32_t bin = 0;
        while (rank >= bins[bin]) rank -= bins[bin++];
        size_t num_compared = 0;
        for (size_t i = 0; i < count; ++i) {
            compared_[num_compared] = heights_[i];
            num_compared += (static_cast<uint32_t>(heights_[i]) - static_cast<uint32_t>(low)) >> shift == bin;
        }
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
    (void)instruction_set;
    Halving<PlainRows>({coordinates, num_coordinates}, num_rows, page_size, instruction_set, rows).split(0, num_rows);
}

}  // namespace hoarfrost
