// Sketches: a row is centred, flipped, transformed, and its signs, its mean size and its first entries are kept.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "pages/page_index.hpp"
#include "pages/page_index_rotation.hpp"

namespace hoarfrost {

namespace {

constexpr size_t max_lanes = 32;         // in which the sizes of entries are added up
constexpr size_t max_padded_dim = 256;  // of the fast variant

uint16_t factor_of(float sum, size_t padded_dim) {
    BFloat16 factor;
    assign(factor, sum / static_cast<float>(padded_dim));
    return static_cast<uint16_t>(factor);
}

void sketch_row(const float* y, size_t padded_dim, float coordinate_scale, size_t row, const SketchRows& sketches) {
    const size_t num_lanes = std::min(padded_dim, max_lanes);
    float lanes[max_lanes] = {};
    for (size_t d = 0; d < padded_dim; ++d) lanes[d % num_lanes] += std::fabs(y[d]);
    for (size_t half = num_lanes / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    sketches.factors[row] = factor_of(lanes[0], padded_dim);
    uint8_t* codes = sketches.codes + row * padded_dim / 8;
    std::fill_n(codes, padded_dim / 8, static_cast<uint8_t>(0));
    for (size_t d = 0; d < padded_dim; ++d) codes[d / 8] |= static_cast<uint8_t>((y[d] >= 0.0f) << d % 8);
    int8_t* coordinates = sketches.coordinates + row * sketches.num_coordinates;
    for (size_t i = 0; i < sketches.num_coordinates; ++i)
        coordinates[i] = static_cast<int8_t>(std::nearbyint(std::clamp(y[i] * coordinate_scale, -127.0f, 127.0f)));
}

template <class Key>
void sketch_keys_plain(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                       const SketchRows& sketches) {
    std::vector<float> y(rotation.padded_dim);
    for (size_t row = 0; row < keys.num_rows; ++row) {
        const Key* key = keys.data + row * keys.row_stride;
        std::fill(y.begin(), y.end(), 0.0f);
        for (size_t d = 0; d < keys.head_dim; ++d) y[d] = (to_float(key[d]) - centre[d]) * rotation.flips[d];
        transform(y.data(), rotation.padded_dim);
        sketch_row(y.data(), rotation.padded_dim, coordinate_scale, row, sketches);
    }
}

#if HOARFROST_X86

constexpr size_t register_entries = 8, max_coordinate_registers = 8;

HOARFROST_AVX2 inline __attribute__((always_inline)) __m256 load_floats(const float* from) { return _mm256_loadu_ps(from); }
HOARFROST_AVX2 inline __attribute__((always_inline)) __m256 load_floats(const BFloat16* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// Eight entries as whole numbers of 16 bits, limited to -127..127.
HOARFROST_AVX2 inline __attribute__((always_inline)) __m256i rounded(__m256 y, __m256 scale) {
    const __m256 limited = _mm256_max_ps(_mm256_min_ps(_mm256_mul_ps(y, scale), _mm256_set1_ps(127.0f)), _mm256_set1_ps(-127.0f));
    return _mm256_cvtps_epi32(limited);
}

// Neighbouring registers, `near` at a time: sixteen are too many to work on at once.
template <class Key, size_t registers, size_t near>
HOARFROST_AVX2 inline __attribute__((always_inline)) void rotate_neighbours_avx2(const Key* key, const float* centre, const float* flips,
                                                                                 float* y) {
    for (size_t start = 0; start < registers; start += near) {
        __m256 neighbours[near];
#pragma GCC unroll 4
        for (size_t i = 0; i < near; ++i) {
            const size_t first = (start + i) * register_entries;
            const __m256 centred = _mm256_sub_ps(load_floats(key + first), _mm256_loadu_ps(centre + first));
            neighbours[i] = transform_within_avx2(_mm256_mul_ps(centred, _mm256_loadu_ps(flips + first)));
        }
        transform_between_avx2<near>(neighbours);
#pragma GCC unroll 4
        for (size_t i = 0; i < near; ++i) _mm256_store_ps(y + (start + i) * register_entries, neighbours[i]);
    }
}

// Registers `near` apart; writes their signs. Returns the sum of the sizes of their entries.
template <size_t registers, size_t near>
HOARFROST_AVX2 inline __attribute__((always_inline)) __m256 rotate_apart_avx2(float* y, uint8_t* codes) {
    constexpr size_t count = registers / near;
    const __m256 positive = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    __m256 apart[count], sum = _mm256_setzero_ps();
#pragma GCC unroll 8
    for (size_t j = 0; j < count; ++j) apart[j] = _mm256_load_ps(y + j * near * register_entries);
    transform_between_avx2<count>(apart);
#pragma GCC unroll 8
    for (size_t j = 0; j < count; ++j) {
        codes[j * near] = static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(apart[j], _mm256_setzero_ps(), _CMP_GE_OQ)));
        sum = _mm256_add_ps(sum, _mm256_and_ps(apart[j], positive));
        if (j * near < max_coordinate_registers) _mm256_store_ps(y + j * near * register_entries, apart[j]);
    }
    return sum;
}

// `registers` is the padded size in registers of eight.
template <class Key, size_t registers>
HOARFROST_AVX2 void sketch_keys_avx2(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                                     const SketchRows& sketches) {
    constexpr size_t padded_dim = registers * register_entries, near = std::min(registers, max_lanes / register_entries);
    const __m256 scale = _mm256_set1_ps(coordinate_scale);
    alignas(32) float y[padded_dim], padded_centre[padded_dim] = {};
    Key padded_key[padded_dim] = {};
    std::copy_n(centre, keys.head_dim, padded_centre);
    for (size_t row = 0; row < keys.num_rows; ++row) {
        const Key* key = keys.data + row * keys.row_stride;
        if (keys.head_dim < padded_dim) {
            std::copy_n(key, keys.head_dim, padded_key);
            key = padded_key;
        }
        rotate_neighbours_avx2<Key, registers, near>(key, padded_centre, rotation.flips, y);
        __m256 sums[near];
#pragma GCC unroll 4
        for (size_t i = 0; i < near; ++i)
            sums[i] = rotate_apart_avx2<registers, near>(y + i * register_entries, sketches.codes + row * registers + i);
        for (size_t half = near / 2; half > 0; half /= 2)
            for (size_t i = 0; i < half; ++i) sums[i] = _mm256_add_ps(sums[i], sums[i + half]);
        __m128 sum = _mm_add_ps(_mm256_castps256_ps128(sums[0]), _mm256_extractf128_ps(sums[0], 1));
        sum = _mm_add_ps(sum, _mm_permute_ps(sum, 0x4E));
        sketches.factors[row] = factor_of(_mm_cvtss_f32(_mm_add_ps(sum, _mm_permute_ps(sum, 0xB1))), padded_dim);
        int8_t* coordinates = sketches.coordinates + row * sketches.num_coordinates;
        for (size_t i = 0; i < std::min(registers, max_coordinate_registers); i += 2) {  // 16 coordinates at a time
            const __m256i first = rounded(_mm256_load_ps(y + i * register_entries), scale);
            const __m256i words = _mm256_packs_epi32(first, rounded(_mm256_load_ps(y + (i + 1) * register_entries), scale));
            const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
            const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(coordinates + i * register_entries), bytes);
        }
    }
}

template <class Key>
bool sketch_keys_fast(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                      const SketchRows& sketches) {
    switch (rotation.padded_dim) {
        case 16: sketch_keys_avx2<Key, 2>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case 32: sketch_keys_avx2<Key, 4>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case 64: sketch_keys_avx2<Key, 8>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case 128: sketch_keys_avx2<Key, 16>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case max_padded_dim: sketch_keys_avx2<Key, 32>(keys, centre, rotation, coordinate_scale, sketches); return true;
        default: return false;
    }
}

// The codes of 16 rows, byte by byte, where a code is a multiple of 16 bytes: 16 x 16 bytes change places in four rounds of interleaving.
bool transpose_codes(const uint8_t* codes, const int32_t* rows, size_t num_bytes, uint8_t* block) {
    if (num_bytes % unit_rows != 0) return false;
    for (size_t start = 0; start < num_bytes; start += unit_rows) {
        __m128i held[unit_rows], next[unit_rows];
        for (size_t lane = 0; lane < unit_rows; ++lane)
            held[lane] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + static_cast<size_t>(rows[lane]) * num_bytes + start));
        for (size_t round = 0; round < 4; ++round) {
            for (size_t i = 0; i < unit_rows / 2; ++i) {
                next[2 * i] = _mm_unpacklo_epi8(held[i], held[i + unit_rows / 2]);
                next[2 * i + 1] = _mm_unpackhi_epi8(held[i], held[i + unit_rows / 2]);
            }
            std::copy_n(next, unit_rows, held);
        }
        for (size_t byte = 0; byte < unit_rows; ++byte)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(block + (start + byte) * unit_rows), held[byte]);
    }
    return true;
}

#else

bool transpose_codes(const uint8_t*, const int32_t*, size_t, uint8_t*) { return false; }

#endif

}  // namespace

template <class Key>
void sketch_keys(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                 InstructionSet instruction_set, const SketchRows& sketches) {
#if HOARFROST_X86
    if (instruction_set != InstructionSet::plain && sketch_keys_fast(keys, centre, rotation, coordinate_scale, sketches)) return;
#endif
    (void)instruction_set;
    sketch_keys_plain(keys, centre, rotation, coordinate_scale, sketches);
}

void lay_out_sketches(const uint8_t* codes, const uint16_t* factors, const int32_t* rows, size_t num_pages, size_t page_size,
                      size_t num_bytes, uint8_t* blocks, uint16_t* placed_factors) {
    const size_t num_units = (page_size + unit_rows - 1) / unit_rows;
    for (size_t unit = 0; unit < num_pages * num_units; ++unit) {
        const size_t first = unit % num_units * unit_rows, num_slots = std::min(unit_rows, page_size - first);
        const int32_t* held = rows + unit / num_units * page_size + first;
        const size_t count = static_cast<size_t>(std::find_if(held, held + num_slots, [](int32_t row) { return row < 0; }) - held);
        uint8_t* block = blocks + unit * num_bytes * unit_rows;
        uint16_t* unit_factors = placed_factors + unit * unit_rows;
        for (size_t lane = 0; lane < unit_rows; ++lane) unit_factors[lane] = lane < count ? factors[held[lane]] : 0;
        if (count == unit_rows && transpose_codes(codes, held, num_bytes, block)) continue;
        std::memset(block, 0, num_bytes * unit_rows);
        for (size_t lane = 0; lane < count; ++lane)
            for (size_t byte = 0; byte < num_bytes; ++byte)
                block[byte * unit_rows + lane] = codes[static_cast<size_t>(held[lane]) * num_bytes + byte];
    }
}

template void sketch_keys(const KeyRows<float>&, const float*, const Rotation&, float, InstructionSet, const SketchRows&);
template void sketch_keys(const KeyRows<BFloat16>&, const float*, const Rotation&, float, InstructionSet, const SketchRows&);

}  // namespace hoarfrost
