// The scan of all sketches: table look-ups by byte shuffles, sums in whole numbers, one estimated mass per page and query.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "pages/page_index.hpp"
#include "pages/page_index_rotation.hpp"

#if HOARFROST_X86
#include <immintrin.h>
#endif

namespace hoarfrost {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int largest_entry = 63;
constexpr size_t queries_at_once = 4;
constexpr size_t units_ahead = 12, cache_line_bytes = 64;  // what is fetched early

// The tables of one query: 16 entries per nibble of a code, and what turns a sum of entries into the estimate.
struct QueryTables {
    std::vector<uint8_t> entries;  // [num_nibbles, 16]
    float step = 0.0f, offset = 0.0f;
};

QueryTables tables_of(const float* query, size_t head_dim, const Rotation& rotation) {
    std::vector<float> y(rotation.padded_dim);
    for (size_t d = 0; d < head_dim; ++d) y[d] = query[d] * rotation.flips[d];
    transform(y.data(), rotation.padded_dim);
    const size_t num_nibbles = rotation.padded_dim / 4;
    QueryTables tables;
    tables.entries.resize(num_nibbles * 16);
    std::vector<float> widths(num_nibbles);
    float widest = 0.0f;
    for (size_t nibble = 0; nibble < num_nibbles; ++nibble) {
        const float* v = y.data() + 4 * nibble;
        widths[nibble] = (std::fabs(v[0]) + std::fabs(v[1])) + (std::fabs(v[2]) + std::fabs(v[3]));
        widest = std::max(widest, widths[nibble]);
        tables.offset += widths[nibble];
    }
    tables.step = widest * 2.0f / static_cast<float>(largest_entry);
    const float inverse = tables.step > 0.0f ? 1.0f / std::max(tables.step, std::numeric_limits<float>::min()) : 0.0f;
    for (size_t nibble = 0; nibble < num_nibbles; ++nibble) {
        const float* v = y.data() + 4 * nibble;
        for (size_t signs = 0; signs < 16; ++signs) {
            const float first = (signs & 1 ? v[0] : -v[0]) + (signs & 2 ? v[1] : -v[1]);
            const float second = (signs & 4 ? v[2] : -v[2]) + (signs & 8 ? v[3] : -v[3]);
            const int entry = static_cast<int>(((first + second) + widths[nibble]) * inverse + 0.5f);
            tables.entries[nibble * 16 + signs] = static_cast<uint8_t>(std::min(entry, largest_entry));
        }
    }
    return tables;
}

// 2^x for x <= 0 and its inverse, linear between whole exponents.
HOARFROST_INLINE float rough_exp2(float x) {
    const float bounded = x > -126.0f ? x : -126.0f;
    return std::bit_cast<float>(static_cast<int32_t>((bounded + 127.0f) * 0x1p23f));
}
HOARFROST_INLINE float rough_log2(float x) { return static_cast<float>(std::bit_cast<int32_t>(x)) * 0x1p-23f - 127.0f; }

HOARFROST_INLINE float bfloat16_bits_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// The mass of one page from the scores of its slots [num_units * 16], -inf in empty ones.
HOARFROST_INLINE float log_mass_of(const float* scores, size_t num_units) {
    float lanes[unit_rows];
    for (size_t i = 0; i < unit_rows; ++i) lanes[i] = scores[i];
    for (size_t unit = 1; unit < num_units; ++unit)
        for (size_t i = 0; i < unit_rows; ++i) {
            const float score = scores[unit * unit_rows + i];
            lanes[i] = lanes[i] > score ? lanes[i] : score;
        }
    for (size_t half = unit_rows / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    const float largest = lanes[0];
    for (size_t i = 0; i < unit_rows; ++i) lanes[i] = 0.0f;
    for (size_t unit = 0; unit < num_units; ++unit)
        for (size_t i = 0; i < unit_rows; ++i) {
            const float score = scores[unit * unit_rows + i];
            const float power = rough_exp2(score - largest);
            lanes[i] += score > -infinity ? power : 0.0f;
        }
    for (size_t half = unit_rows / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return largest + rough_log2(lanes[0]);
}

struct Scan {
    const SketchPages& pages;
    const int32_t* counts;
    size_t num_pages;
    float weight;
};

// Sums of table entries of the 16 rows of a unit.
void unit_sums_plain(const uint8_t* unit, size_t num_bytes, const uint8_t* entries, uint16_t* sums) {
    std::fill_n(sums, unit_rows, static_cast<uint16_t>(0));
    for (size_t byte = 0; byte < num_bytes; ++byte)
        for (size_t i = 0; i < unit_rows; ++i) {
            const uint8_t code = unit[byte * unit_rows + i];
            sums[i] = static_cast<uint16_t>(sums[i] + entries[byte * 32 + (code & 15)] + entries[byte * 32 + 16 + (code >> 4)]);
        }
}

HOARFROST_INLINE void score_unit(const uint16_t* sums, const uint16_t* factors, const QueryTables& tables, float weight, float* scores) {
    for (size_t i = 0; i < unit_rows; ++i)
        scores[i] = (static_cast<float>(sums[i]) * tables.step - tables.offset) * (bfloat16_bits_to_float(factors[i]) * weight);
}

void scan_plain(const Scan& scan, const QueryTables& tables, float* log_masses) {
    const size_t num_units = scan.pages.num_units, num_bytes = scan.pages.num_bytes;
    std::vector<float> scores(num_units * unit_rows);
    for (size_t page = 0; page < scan.num_pages; ++page) {
        const size_t count = static_cast<size_t>(scan.counts[page]);
        for (size_t unit = 0; unit < num_units; ++unit) {
            const size_t place = page * num_units + unit;
            uint16_t sums[unit_rows];
            unit_sums_plain(scan.pages.blocks + place * num_bytes * unit_rows, num_bytes, tables.entries.data(), sums);
            score_unit(sums, scan.pages.factors + place * unit_rows, tables, scan.weight, scores.data() + unit * unit_rows);
        }
        std::fill(scores.begin() + static_cast<std::ptrdiff_t>(count), scores.end(), -infinity);
        log_masses[page] = count > 0 ? log_mass_of(scores.data(), num_units) : -infinity;
    }
}

#if HOARFROST_X86

// Tables in the order of the look-ups: per two bytes of code the low nibbles of both, then the high ones.
std::vector<uint8_t> interleaved(const QueryTables& tables, size_t num_bytes) {
    std::vector<uint8_t> entries(num_bytes * 32);
    for (size_t byte = 0; byte < num_bytes; ++byte)
        for (size_t half = 0; half < 2; ++half)
            std::memcpy(entries.data() + ((byte / 2 * 2 + half) * 2 + byte % 2) * 16, tables.entries.data() + (byte * 2 + half) * 16, 16);
    return entries;
}

// Sums of four look-ups fit a byte; they gather in words, those of the even rows with those of the odd rows above them.
template <size_t num_queries>
HOARFROST_AVX2 inline __attribute__((always_inline)) void unit_sums_avx2(const uint8_t* unit, size_t num_bytes,
                                                                         const uint8_t* const (&entries)[num_queries],
                                                                         __m256i (&sums)[num_queries]) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i both[num_queries], odd[num_queries];
    for (size_t q = 0; q < num_queries; ++q) both[q] = odd[q] = _mm256_setzero_si256();
    for (size_t byte = 0; byte < num_bytes; byte += 4) {
        __m256i nibbles[4];
        const size_t count = byte + 2 < num_bytes ? 4 : 2;
        for (size_t i = 0; i < count; i += 2) {
            const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(unit + (byte + i) * unit_rows));
            nibbles[i] = _mm256_and_si256(codes, low);
            nibbles[i + 1] = _mm256_and_si256(_mm256_srli_epi16(codes, 4), low);
        }
        for (size_t q = 0; q < num_queries; ++q) {
            const __m256i* tables = reinterpret_cast<const __m256i*>(entries[q] + byte * 32);
            __m256i sum = _mm256_add_epi8(_mm256_shuffle_epi8(_mm256_loadu_si256(tables), nibbles[0]),
                                          _mm256_shuffle_epi8(_mm256_loadu_si256(tables + 1), nibbles[1]));
            if (count == 4)
                sum = _mm256_add_epi8(sum, _mm256_add_epi8(_mm256_shuffle_epi8(_mm256_loadu_si256(tables + 2), nibbles[2]),
                                                           _mm256_shuffle_epi8(_mm256_loadu_si256(tables + 3), nibbles[3])));
            both[q] = _mm256_add_epi16(both[q], sum);
            odd[q] = _mm256_add_epi16(odd[q], _mm256_srli_epi16(sum, 8));
        }
    }
    for (size_t q = 0; q < num_queries; ++q) {
        const __m256i even = _mm256_sub_epi16(both[q], _mm256_slli_epi16(odd[q], 8));
        const __m128i evens = _mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1));
        const __m128i odds = _mm_add_epi16(_mm256_castsi256_si128(odd[q]), _mm256_extracti128_si256(odd[q], 1));
        sums[q] = _mm256_set_m128i(_mm_unpackhi_epi16(evens, odds), _mm_unpacklo_epi16(evens, odds));
    }
}

// The factors of the 16 rows of a unit times the weight.
HOARFROST_AVX2 inline __attribute__((always_inline)) void weigh_avx2(const uint16_t* factors, float weight, __m256 (&weights)[2]) {
    for (size_t i = 0; i < 2; ++i) {
        const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(factors + 8 * i)));
        weights[i] = _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16)), _mm256_set1_ps(weight));
    }
}

// The scores of the 16 rows of a unit, as `score_unit` computes them.
HOARFROST_AVX2 inline __attribute__((always_inline)) void score_unit_avx2(__m256i sums, const QueryTables& tables,
                                                                          const __m256 (&weights)[2], __m256 (&scores)[2]) {
    const __m256 step = _mm256_set1_ps(tables.step), offset = _mm256_set1_ps(tables.offset);
    const __m128i halves[2] = {_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)};
    for (size_t i = 0; i < 2; ++i) {
        const __m256 sum = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(halves[i]));
        scores[i] = _mm256_mul_ps(_mm256_sub_ps(_mm256_mul_ps(sum, step), offset), weights[i]);
    }
}

HOARFROST_AVX2 inline __attribute__((always_inline)) __m256 rough_exp2_avx2(__m256 x) {
    const __m256 bounded = _mm256_max_ps(x, _mm256_set1_ps(-126.0f));
    const __m256 bits = _mm256_mul_ps(_mm256_add_ps(bounded, _mm256_set1_ps(127.0f)), _mm256_set1_ps(0x1p23f));
    return _mm256_castsi256_ps(_mm256_cvttps_epi32(bits));
}

// One lane of each of four registers: where `in_four_lanes` leaves what it makes of them.
constexpr int lanes_of_four[4] = {0, 4, 1, 5};

// Combines the eight lanes of each of four registers in the order of `log_mass_of`: those four apart, two apart, neighbours.
template <class Combine>
HOARFROST_AVX2 inline __attribute__((always_inline)) __m256 in_four_lanes(const __m256 (&v)[4]) {
    const __m256 first = Combine::of(_mm256_permute2f128_ps(v[0], v[1], 0x20), _mm256_permute2f128_ps(v[0], v[1], 0x31));
    const __m256 second = Combine::of(_mm256_permute2f128_ps(v[2], v[3], 0x20), _mm256_permute2f128_ps(v[2], v[3], 0x31));
    const __m256 pairs = Combine::of(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xEE));
    return Combine::of(_mm256_shuffle_ps(pairs, pairs, 0x88), _mm256_shuffle_ps(pairs, pairs, 0xDD));
}

struct Largest {
    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m256 of(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
};
struct Sum {
    HOARFROST_AVX2 static inline __attribute__((always_inline)) __m256 of(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
};

// `log_mass_of` for a full page of one unit and up to four queries at once; the same sums in the same order.
template <size_t num_queries>
HOARFROST_AVX2 inline __attribute__((always_inline)) void log_masses_avx2(const __m256 (&scores)[num_queries][2], float* log_masses,
                                                                          size_t stride) {
    __m256 parts[4];
    for (size_t q = 0; q < 4; ++q) parts[q] = _mm256_max_ps(scores[q % num_queries][0], scores[q % num_queries][1]);
    const __m256 largest = in_four_lanes<Largest>(parts);
    for (size_t q = 0; q < 4; ++q) {
        const __m256 own = _mm256_permutevar8x32_ps(largest, _mm256_set1_epi32(lanes_of_four[q]));
        parts[q] = _mm256_add_ps(rough_exp2_avx2(_mm256_sub_ps(scores[q % num_queries][0], own)),
                                 rough_exp2_avx2(_mm256_sub_ps(scores[q % num_queries][1], own)));
    }
    const __m256 exponents = _mm256_cvtepi32_ps(_mm256_castps_si256(in_four_lanes<Sum>(parts)));
    const __m256 logarithms = _mm256_sub_ps(_mm256_mul_ps(exponents, _mm256_set1_ps(0x1p-23f)), _mm256_set1_ps(127.0f));
    alignas(32) float masses[8];
    _mm256_store_ps(masses, _mm256_add_ps(largest, logarithms));
    for (size_t q = 0; q < num_queries; ++q) log_masses[q * stride] = masses[lanes_of_four[q]];
}

template <size_t num_queries>
HOARFROST_AVX2 void scan_avx2(const Scan& scan, const QueryTables* tables, const std::vector<uint8_t>* ordered, float* log_masses) {
    const size_t num_units = scan.pages.num_units, num_bytes = scan.pages.num_bytes, num_scores = num_units * unit_rows;
    const uint8_t* entries[num_queries];
    for (size_t q = 0; q < num_queries; ++q) entries[q] = ordered[q].data();
    std::vector<float> scores(num_queries * num_scores);
    for (size_t page = 0; page < scan.num_pages; ++page) {
        const size_t count = static_cast<size_t>(scan.counts[page]);
        const bool is_one_full_unit = num_units == 1 && count == unit_rows;
        for (size_t unit = 0; unit < num_units; ++unit) {
            const size_t place = page * num_units + unit, unit_bytes = num_bytes * unit_rows;
            const uint8_t* block = scan.pages.blocks + place * unit_bytes;
            for (size_t byte = 0; byte < unit_bytes; byte += cache_line_bytes) __builtin_prefetch(block + units_ahead * unit_bytes + byte);
            __builtin_prefetch(scan.pages.factors + (place + units_ahead) * unit_rows);
            __m256i sums[num_queries];
            unit_sums_avx2(block, num_bytes, entries, sums);
            __m256 weights[2], unit_scores[num_queries][2];
            weigh_avx2(scan.pages.factors + place * unit_rows, scan.weight, weights);
            for (size_t q = 0; q < num_queries; ++q) {
                score_unit_avx2(sums[q], tables[q], weights, unit_scores[q]);
                for (size_t i = 0; i < 2 && !is_one_full_unit; ++i)
                    _mm256_storeu_ps(scores.data() + q * num_scores + unit * unit_rows + 8 * i, unit_scores[q][i]);
            }
            if (is_one_full_unit) log_masses_avx2(unit_scores, log_masses + page, scan.num_pages);
        }
        for (size_t q = 0; q < num_queries && !is_one_full_unit; ++q) {
            float* page_scores = scores.data() + q * num_scores;
            std::fill(page_scores + count, page_scores + num_scores, -infinity);
            log_masses[q * scan.num_pages + page] = count > 0 ? log_mass_of(page_scores, num_units) : -infinity;
        }
    }
}

void scan_fast(const Scan& scan, const std::vector<QueryTables>& tables, float* log_masses) {
    std::vector<std::vector<uint8_t>> ordered;
    for (const QueryTables& one : tables) ordered.push_back(interleaved(one, scan.pages.num_bytes));
    size_t q = 0;
    for (; q + queries_at_once <= tables.size(); q += queries_at_once)
        scan_avx2<queries_at_once>(scan, tables.data() + q, ordered.data() + q, log_masses + q * scan.num_pages);
    for (; q < tables.size(); ++q) scan_avx2<1>(scan, tables.data() + q, ordered.data() + q, log_masses + q * scan.num_pages);
}

#endif

}  // namespace

void estimate_log_masses(const SketchPages& pages, const int32_t* counts, size_t num_pages, const float* queries, size_t num_queries,
                         size_t head_dim, const Rotation& rotation, float weight, InstructionSet instruction_set, float* log_masses) {
    const Scan scan{pages, counts, num_pages, weight};
    std::vector<QueryTables> tables;
    for (size_t q = 0; q < num_queries; ++q) tables.push_back(tables_of(queries + q * head_dim, head_dim, rotation));
#if HOARFROST_X86
    if (instruction_set != InstructionSet::plain) return scan_fast(scan, tables, log_masses);
#endif
    (void)instruction_set;
    for (size_t q = 0; q < num_queries; ++q) scan_plain(scan, tables[q], log_masses + q * num_pages);
}

}  // namespace hoarfrost
