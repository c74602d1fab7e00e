// Sketches: a row is centred, flipped, transformed, and its signs, its mean size and its first entries are kept.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "page_index.hpp"
#include "page_index_rotation.hpp"

namespace hoarfrost {

namespace {

constexpr size_t num_lanes = 8;
constexpr size_t max_padded_dim = 256;  // of the fast variant, which keeps a row in registers

float sum_of_lanes(float* lanes) {
    for (size_t half = num_lanes / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

uint16_t factor_of(float* lanes, size_t padded_dim) {
    BFloat16 factor;
    assign(factor, sum_of_lanes(lanes) / static_cast<float>(padded_dim));
    return static_cast<uint16_t>(factor);
}

void sketch_row(const float* y, size_t padded_dim, float coordinate_scale, size_t row, const SketchRows& sketches) {
    float lanes[num_lanes] = {};
    for (size_t d = 0; d < padded_dim; d += num_lanes) {
        uint8_t bits = 0;
        for (size_t i = 0; i < num_lanes; ++i) {
            bits |= static_cast<uint8_t>((y[d + i] >= 0.0f) << i);
            lanes[i] += std::fabs(y[d + i]);
        }
        sketches.codes[(row * padded_dim + d) / 8] = bits;
    }
    sketches.factors[row] = factor_of(lanes, padded_dim);
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

// `head_dim` is a multiple of 8 and `registers` its padded size in registers of eight.
template <class Key, size_t registers>
HOARFROST_AVX2 void sketch_keys_avx2(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                                     const SketchRows& sketches) {
    const __m256 scale = _mm256_set1_ps(coordinate_scale), zero = _mm256_setzero_ps();
    const __m256 positive = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    const size_t used = keys.head_dim / num_lanes;
    for (size_t row = 0; row < keys.num_rows; ++row) {
        const Key* key = keys.data + row * keys.row_stride;
        __m256 y[registers];
        for (size_t i = 0; i < registers; ++i) {
            if (i >= used) {
                y[i] = zero;
                continue;
            }
            const __m256 centred = _mm256_sub_ps(load_floats(key + i * num_lanes), _mm256_loadu_ps(centre + i * num_lanes));
            y[i] = _mm256_mul_ps(centred, _mm256_loadu_ps(rotation.flips + i * num_lanes));
        }
        transform_avx2(y);
        __m256 sums = zero;
        uint8_t* codes = sketches.codes + row * registers;
        for (size_t i = 0; i < registers; ++i) {
            codes[i] = static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(y[i], zero, _CMP_GE_OQ)));
            sums = _mm256_add_ps(sums, _mm256_and_ps(y[i], positive));
        }
        float lanes[num_lanes];
        _mm256_storeu_ps(lanes, sums);
        sketches.factors[row] = factor_of(lanes, registers * num_lanes);
        int8_t* coordinates = sketches.coordinates + row * sketches.num_coordinates;
        for (size_t i = 0; i < std::min<size_t>(registers, 8); i += 2) {  // 16 coordinates at a time
            const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(rounded(y[i], scale), rounded(y[i + 1], scale)), 0xD8);
            const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(coordinates + i * num_lanes), bytes);
        }
    }
}

template <class Key>
bool sketch_keys_fast(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                      const SketchRows& sketches) {
    if (keys.head_dim % num_lanes != 0) return false;
    switch (rotation.padded_dim) {
        case 16: sketch_keys_avx2<Key, 2>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case 32: sketch_keys_avx2<Key, 4>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case 64: sketch_keys_avx2<Key, 8>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case 128: sketch_keys_avx2<Key, 16>(keys, centre, rotation, coordinate_scale, sketches); return true;
        case max_padded_dim: sketch_keys_avx2<Key, 32>(keys, centre, rotation, coordinate_scale, sketches); return true;
        default: return false;
    }
}

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
    std::memset(blocks, 0, num_pages * num_units * num_bytes * unit_rows);
    std::memset(placed_factors, 0, num_pages * num_units * unit_rows * sizeof(uint16_t));
    for (size_t page = 0; page < num_pages; ++page)
        for (size_t slot = 0; slot < page_size && rows[page * page_size + slot] >= 0; ++slot) {
            const size_t row = static_cast<size_t>(rows[page * page_size + slot]);
            const size_t unit = page * num_units + slot / unit_rows, lane = slot % unit_rows;
            for (size_t byte = 0; byte < num_bytes; ++byte)
                blocks[(unit * num_bytes + byte) * unit_rows + lane] = codes[row * num_bytes + byte];
            placed_factors[unit * unit_rows + lane] = factors[row];
        }
}

template void sketch_keys(const KeyRows<float>&, const float*, const Rotation&, float, InstructionSet, const SketchRows&);
template void sketch_keys(const KeyRows<BFloat16>&, const float*, const Rotation&, float, InstructionSet, const SketchRows&);

}  // namespace hoarfrost
