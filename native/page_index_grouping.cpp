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
constexpr size_t num_bins = 1024;
constexpr size_t few_rows = 256;  // as few heights are faster sorted than counted

using Direction = std::array<int16_t, max_coordinates>;
using Sums = std::array<int32_t, max_coordinates>;

int32_t height_plain(const int8_t* row, const Direction& direction, size_t count) {
    int32_t height = 0;
    for (size_t i = 0; i < count; ++i) height += static_cast<int32_t>(row[i]) * direction[i];
    return height;
}

void add_plain(Sums& sums, const int8_t* row, size_t count) {
    for (size_t i = 0; i < count; ++i) sums[i] += row[i];
}

struct PlainRows {
    static void heights(const int8_t* coordinates, size_t width, const int32_t* rows, size_t count, size_t stride,
                        const Direction& direction, int32_t* out) {
        for (size_t i = 0, place = 0; place < count; ++i, place += stride)
            out[i] = height_plain(coordinates + static_cast<size_t>(rows[place]) * width, direction, width);
    }
    static void add(const int8_t* row, size_t width, Sums& sums) { add_plain(sums, row, width); }
};

#if HOARFROST_X86

// Rows of 64 coordinates, four registers of 16 bits each.
struct Avx2Rows {
    HOARFROST_AVX2 static void heights(const int8_t* coordinates, size_t, const int32_t* rows, size_t count, size_t stride,
                                       const Direction& direction, int32_t* out) {
        __m256i along[4];
        for (size_t i = 0; i < 4; ++i) along[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(direction.data() + 16 * i));
        for (size_t i = 0, place = 0; place < count; ++i, place += stride) {
            const int8_t* row = coordinates + static_cast<size_t>(rows[place]) * max_coordinates;
            __m256i sums[4];
            for (size_t j = 0; j < 4; ++j)
                sums[j] = _mm256_madd_epi16(
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 16 * j))), along[j]);
            const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
            __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
            half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4E));
            out[i] = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1)));
        }
    }
    HOARFROST_AVX2 static void add(const int8_t* row, size_t, Sums& sums) {
        for (size_t j = 0; j < max_coordinates; j += 8) {
            const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + j)));
            __m256i* place = reinterpret_cast<__m256i*>(sums.data() + j);
            _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), wide));
        }
    }
};

#endif

template <class Rows>
class Halving {
public:
    Halving(const int8_t* coordinates, size_t num_rows, size_t width, size_t page_size, int32_t* rows)
        : coordinates_(coordinates), width_(width), page_size_(page_size), rows_(rows), heights_(num_rows), upper_(num_rows) {
        for (size_t i = 0; i < num_rows; ++i) rows[i] = static_cast<int32_t>(i);
    }

    // Orders rows_[start .. start + count) by page; ascending within a page.
    void split(size_t start, size_t count) {
        if (count <= page_size_) return;
        const size_t num_left = count / page_size_ / 2 * page_size_;
        int32_t* rows = rows_ + start;
        Rows::heights(coordinates_, width_, rows, count, 1, direction(rows, count), heights_.data());
        partition(rows, count, num_left);
        split(start, num_left);
        split(start + num_left, count - num_left);
    }

private:
    const int8_t* coordinates_;
    size_t width_, page_size_;
    int32_t* rows_;
    std::vector<int32_t> heights_, upper_;
    std::vector<uint64_t> keys_;

    const int8_t* row(int32_t number) const { return coordinates_ + static_cast<size_t>(number) * width_; }

    Direction direction(const int32_t* rows, size_t count) {
        const size_t stride = (count + sample_rows - 1) / sample_rows, num_sampled = (count + stride - 1) / stride;
        Sums total{}, upper{};
        for (size_t i = 0; i < num_sampled; ++i) Rows::add(row(rows[i * stride]), width_, i < num_sampled / 2 ? total : upper);
        for (size_t d = 0; d < width_; ++d) total[d] += upper[d];
        Direction along = between_means(total, upper, num_sampled, num_sampled - num_sampled / 2);
        for (int round = 0; round < num_refinements; ++round) {
            int64_t sum = 0;
            for (size_t d = 0; d < width_; ++d) sum += static_cast<int64_t>(along[d]) * total[d];
            Rows::heights(coordinates_, width_, rows, count, stride, along, heights_.data());
            upper.fill(0);
            size_t num_upper = 0;
            for (size_t i = 0; i < num_sampled; ++i)
                if (static_cast<int64_t>(heights_[i]) * static_cast<int64_t>(num_sampled) > sum) {
                    Rows::add(row(rows[i * stride]), width_, upper);
                    ++num_upper;
                }
            if (num_upper == 0) break;
            along = between_means(total, upper, num_sampled, num_upper);
        }
        return along;
    }

    Direction between_means(const Sums& total, const Sums& upper, size_t num_rows, size_t num_upper) const {
        std::array<int64_t, max_coordinates> difference{};
        int64_t largest = 0;
        for (size_t d = 0; d < width_; ++d) {
            difference[d] = static_cast<int64_t>(upper[d]) * static_cast<int64_t>(num_rows - num_upper) -
                            static_cast<int64_t>(total[d] - upper[d]) * static_cast<int64_t>(num_upper);
            largest = std::max(largest, std::abs(difference[d]));
        }
        const int shift = std::max(0, static_cast<int>(std::bit_width(static_cast<uint64_t>(largest))) - 15);
        Direction along{};
        for (size_t d = 0; d < width_; ++d) along[d] = static_cast<int16_t>(difference[d] >> shift);
        return along;
    }

    // Height first, then place: as one integer.
    uint64_t key(size_t place) const {
        return static_cast<uint64_t>(static_cast<uint32_t>(heights_[place]) ^ 0x80000000u) << 32 | place;
    }

    // Moves the `num_left` lowest rows to the front; both parts keep their order.
    void partition(int32_t* rows, size_t count, size_t num_left) {
        const uint64_t last_left = count <= few_rows ? smallest(count, num_left - 1) : counted_smallest(count, num_left - 1);
        size_t num_lower = 0, num_upper = 0;
        for (size_t i = 0; i < count; ++i) {
            const int32_t number = rows[i];
            const bool is_lower = key(i) <= last_left;
            rows[num_lower] = number;
            upper_[num_upper] = number;
            num_lower += is_lower;
            num_upper += !is_lower;
        }
        std::copy_n(upper_.data(), num_upper, rows + num_lower);
    }

    // The key of the given rank.
    uint64_t smallest(size_t count, size_t rank) {
        keys_.resize(count);
        for (size_t i = 0; i < count; ++i) keys_[i] = key(i);
        std::nth_element(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(rank), keys_.end());
        return keys_[rank];
    }

    // The same by counting heights in equal bins; only the keys of one bin are compared.
    uint64_t counted_smallest(size_t count, size_t rank) {
        const auto [low, high] = std::minmax_element(heights_.begin(), heights_.begin() + static_cast<std::ptrdiff_t>(count));
        const int64_t lowest = *low;
        const int shift = std::max(0, static_cast<int>(std::bit_width(static_cast<uint64_t>(*high - lowest))) - 10);
        std::array<uint32_t, num_bins> bins{};
        for (size_t i = 0; i < count; ++i) ++bins[static_cast<size_t>((heights_[i] - lowest) >> shift)];
        size_t bin = 0;
        while (rank >= bins[bin]) rank -= bins[bin++];
        keys_.clear();
        for (size_t i = 0; i < count; ++i)
            if (static_cast<size_t>((heights_[i] - lowest) >> shift) == bin) keys_.push_back(key(i));
        std::nth_element(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(rank), keys_.end());
        return keys_[rank];
    }
};

}  // namespace

void group_similar(const int8_t* coordinates, size_t num_rows, size_t num_coordinates, size_t page_size, InstructionSet instruction_set,
                   int32_t* rows) {
#if HOARFROST_X86
    if (instruction_set != InstructionSet::plain && num_coordinates == max_coordinates)
        return Halving<Avx2Rows>(coordinates, num_rows, num_coordinates, page_size, rows).split(0, num_rows);
#endif
    (void)instruction_set;
    Halving<PlainRows>(coordinates, num_rows, num_coordinates, page_size, rows).split(0, num_rows);
}

}  // namespace hoarfrost
