#include "decoder/quantized_matrix.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/lanes.hpp"
#include "base/prefetch.hpp"
#include "base/require.hpp"

#if HOARFROST_X86
#include <immintrin.h>
#elif HOARFROST_ARM
#include <arm_neon.h>
#endif

namespace hoarfrost {

namespace {

constexpr size_t max_tile_rows = 6;
constexpr size_t block_rows = 48;       // rows that pass a panel while it is in the nearest cache
constexpr size_t least_work = 1 << 16;  // multiply-adds that are worth waking another thread
constexpr size_t stream_ahead = 8192;   // bytes: how far in front of the products weights are fetched from memory
constexpr size_t row_words = 3;         // beside its codes, a row of a group has a scale, a sum and a correction

// Weights of all panels, panel after panel, group after group: a group's codes, then the scales of its outputs, then their offsets, if any.
struct Panels {
    const uint8_t* groups;
    size_t num_groups, group_size, code_bits;
    size_t group_bytes, scale_bytes;  // of a group, of one scale
    bool has_offsets;
};

// A few rows' product. `tiles` holds the rows as `lay_out` leaves them.
struct Block {
    const int32_t* tiles;
    size_t num_rows, num_outputs;
    const float* bias;  // null: none
    Products products;
};

// The height of the next tile: heights are nearly equal, so that no tile is left with a row or two.
size_t next_height(size_t num_rows_left) {
    const size_t num_tiles = (num_rows_left + max_tile_rows - 1) / max_tile_rows;
    return (num_rows_left + num_tiles - 1) / num_tiles;
}

// How instructions multiply codes: four bytes a lane, unsigned or signed (8-bit codes are then kept 128 lower), or for 8-bit codes two, widened
// to 16 bits.
enum class Style { quads, signed_quads, pairs };

// The heights of tiles that take so many panels side by side; none where `most` is 0.
struct RowRange {
    size_t least, most;
    constexpr bool hold(size_t height) const { return least <= height && height <= most; }
};

constexpr size_t inputs_of(Style style, size_t code_bits) { return style == Style::pairs && code_bits == 8 ? 2 : 4; }

// A group of a row in 8 bits: codes [group_size] times the scale returned are the entries. The scale is NaN where an entry is no finite number.
HOARFROST_INLINE float quantize_group(const float* entries, size_t group_size, int8_t* codes, int32_t& sum) {
    using L = Lanes<8>;
    L largest = L::all(0.0f), probe = L::all(0.0f);
    for (size_t i = 0; i < group_size; i += 8) {
        const L x = L::load(entries + i);
        largest = x.max(L::all(0.0f) - x).max(largest);
        probe = x * L::all(0.0f) + probe;  // 0, or NaN
    }
    float values[8];
    largest.store(values);
    float most = values[0];
    for (size_t i = 1; i < 8; ++i) most = values[i] > most ? values[i] : most;
    const L inverse = L::all(most > 0.0f ? 127.0f / most : 0.0f), shift = L::all(0x1.8p23f);
    sum = 0;
    for (size_t i = 0; i < group_size; i += 8) {
        float shifted[8];
        (L::load(entries + i) * inverse + shift).store(shifted);
        for (size_t j = 0; j < 8; ++j) {
            codes[i + j] = static_cast<int8_t>(std::bit_cast<int32_t>(shifted[j]) - std::bit_cast<int32_t>(0x1.8p23f));
            sum += codes[i + j];
        }
    }
    return most / 127.0f + sum_of(probe);
}

// The rows from `first` on as tiles, one behind the other. A tile has a record per group: the codes of all rows step by step, as many inputs
// together in a word as instructions multiply; then the rows' scales, their sums and, for codes whose zero is not 0, what that adds.
HOARFROST_INLINE void lay_out(const Rows& rows, size_t first, size_t num_rows, size_t num_inputs, const BlockFormat& format,
                              size_t inputs_together, int32_t zero, float* place, int32_t* tile) {
    const size_t group_size = format.group_size, num_steps = group_size / inputs_together, num_groups = num_inputs / group_size;
    for (size_t done = 0; done < num_rows;) {
        const size_t height = next_height(num_rows - done), record = height * (num_steps + row_words);
        for (size_t r = 0; r < height; ++r) {
            const float* row = float_row(rows, first + done + r, num_inputs, place);
            for (size_t group = 0; group < num_groups; ++group) {
                alignas(32) int8_t codes[32];
                int32_t sum;
                const float scale = quantize_group(row + group * group_size, group_size, codes, sum);
                int32_t* words = tile + group * record + r;
                for (size_t step = 0; step < num_steps; ++step) {
                    if (inputs_together == 4)
                        std::memcpy(words + step * height, codes + 4 * step, 4);
                    else
                        words[step * height] = static_cast<int32_t>(static_cast<uint16_t>(codes[2 * step]) |
                                                                    static_cast<uint32_t>(static_cast<uint16_t>(codes[2 * step + 1])) << 16);
                }
                words += num_steps * height;
                words[0] = std::bit_cast<int32_t>(scale);
                words[height] = std::bit_cast<int32_t>(scale * static_cast<float>(sum));
                words[2 * height] = -zero * sum;
            }
        }
        done += height;
        tile += num_groups * record;
    }
}

#define HOARFROST_KERNEL
namespace plain {
// The plain twin of the other sets. A set says how many outputs a register has, which rows it takes with 1, 2 and 4 panels side by side, how
// many inputs it multiplies together, and how: `dots` are the corrections plus the products of a group's codes.
struct Set {
    static constexpr Style style = Style::quads;
    static constexpr size_t lanes = 8;
    struct Ints { int32_t v[lanes]; };
    using Floats = Lanes<lanes>;

    static constexpr RowRange rows_with(size_t num_panels) { return {1, num_panels == 1 ? max_tile_rows : 0}; }
    static constexpr size_t inputs_together(size_t code_bits) { return inputs_of(style, code_bits); }
    static HOARFROST_INLINE Floats all(float value) { return Floats::all(value); }
    static HOARFROST_INLINE Floats multiply(Floats a, Floats b) { return a * b; }
    static HOARFROST_INLINE Floats add_product(Floats a, Floats b, Floats c) { return a * b + c; }
    static HOARFROST_INLINE void store(float* to, Floats values) { values.store(to); }
    static HOARFROST_INLINE Floats to_float(const Ints& ints) {
        float values[lanes];
        for (size_t i = 0; i < lanes; ++i) values[i] = static_cast<float>(ints.v[i]);
        return Floats::load(values);
    }
    static HOARFROST_INLINE Floats load_scales(const uint8_t* scales, bool are_halves) {
        float values[lanes];
        uint16_t halves[lanes];
        std::memcpy(halves, scales, sizeof(halves));
        if (!are_halves) std::memcpy(values, scales, sizeof(values));
        else
            for (size_t i = 0; i < lanes; ++i) values[i] = half_to_float(halves[i]);
        return Floats::load(values);
    }

    template <size_t num_rows, size_t num_panels, size_t group_size, size_t code_bits>
    static HOARFROST_INLINE void dots(const int32_t* record, const uint8_t* codes, size_t panel_bytes, Ints (&sums)[num_rows][num_panels]) {
        constexpr size_t num_steps = group_size / 4;
        const int32_t* corrections = record + num_rows * (num_steps + 2);
        for (size_t r = 0; r < num_rows; ++r)
            for (size_t c = 0; c < num_panels; ++c)
                for (size_t i = 0; i < lanes; ++i) {
                    int32_t sum = corrections[r];
                    for (size_t step = 0; step < num_steps; ++step) {
                        const uint8_t* four = codes + c * panel_bytes + (step % (code_bits == 4 ? 4 : num_steps) * lanes + i) * 4;
                        for (size_t k = 0; k < 4; ++k) {
                            const int32_t code = code_bits == 8 ? four[k] : step < 4 ? four[k] & 0x0F : four[k] >> 4;
                            sum += code * reinterpret_cast<const int8_t*>(record + step * num_rows + r)[k];
                        }
                    }
                    sums[r][c].v[i] = sum;
                }
    }
};
#include "decoder/quantized_kernel.inl"
}  // namespace plain
#undef HOARFROST_KERNEL

#if HOARFROST_X86

// Operations that sets of one width have in common: `bits` of it, and what the names of its types begin with.
#define HOARFROST_SET_OPERATIONS(bits, whole_lanes)                                                                                        \
    static constexpr size_t lanes = whole_lanes;                                                                                           \
    using Ints = __m##bits##i;                                                                                                             \
    using Floats = __m##bits;                                                                                                              \
    static HOARFROST_KERNEL_INLINE Floats all(float value) { return _mm##bits##_set1_ps(value); }                                          \
    static HOARFROST_KERNEL_INLINE Ints all(int32_t value) { return _mm##bits##_set1_epi32(value); }                                       \
    static HOARFROST_KERNEL_INLINE Floats multiply(Floats a, Floats b) { return _mm##bits##_mul_ps(a, b); }                                \
    static HOARFROST_KERNEL_INLINE Floats add_product(Floats a, Floats b, Floats c) { return _mm##bits##_fmadd_ps(a, b, c); }              \
    static HOARFROST_KERNEL_INLINE Floats to_float(Ints ints) { return _mm##bits##_cvtepi32_ps(ints); }                                    \
    static HOARFROST_KERNEL_INLINE void store(float* to, Floats values) { _mm##bits##_storeu_ps(to, values); }                             \
    static HOARFROST_KERNEL_INLINE Ints load(const uint8_t* bytes) {                                                                       \
        Ints ints;                                                                                                                         \
        std::memcpy(&ints, bytes, sizeof(ints));                                                                                           \
        return ints;                                                                                                                       \
    }                                                                                                                                      \
    static HOARFROST_KERNEL_INLINE Half load_half(const uint8_t* bytes) {                                                                  \
        Half half;                                                                                                                         \
        std::memcpy(&half, bytes, sizeof(half));                                                                                           \
        return half;                                                                                                                       \
    }                                                                                                                                      \
    static HOARFROST_KERNEL_INLINE Floats load_scales(const uint8_t* scales, bool are_halves) {                                            \
        return are_halves ? _mm##bits##_cvtph_ps(load_half(scales)) : _mm##bits##_loadu_ps(reinterpret_cast<const float*>(scales));        \
    }                                                                                                                                      \
    static HOARFROST_KERNEL_INLINE Ints low_codes(Ints bytes) { return bytes & _mm##bits##_set1_epi8(0x0F); }                              \
    static HOARFROST_KERNEL_INLINE Ints high_codes(Ints bytes) { return _mm##bits##_srli_epi16(bytes, 4) & _mm##bits##_set1_epi8(0x0F); }

// Without VNNI: 4-bit codes times rows in bytes, eight products in 16 bits before they are widened (8 * 2 * 15 * 127 < 2^15); 8-bit codes and
// rows in 16 bits.
#define HOARFROST_PAIR_DOTS(bits)                                                                                                          \
    static constexpr Style style = Style::pairs;                                                                                           \
    static constexpr size_t inputs_together(size_t code_bits) { return inputs_of(style, code_bits); }                                      \
    template <size_t num_rows, size_t num_panels, size_t group_size, size_t code_bits>                                                     \
    static HOARFROST_KERNEL_INLINE void dots(const int32_t* record, const uint8_t* codes, size_t panel_bytes,                              \
                                             Ints (&sums)[num_rows][num_panels]) {                                                         \
        constexpr size_t num_steps = group_size / inputs_together(code_bits);                                                              \
        const int32_t* corrections = record + num_rows * (num_steps + 2);                                                                  \
        for (size_t r = 0; r < num_rows; ++r)                                                                                              \
            for (size_t c = 0; c < num_panels; ++c) sums[r][c] = code_bits == 4 ? Ints{} : all(corrections[r]);                            \
        if constexpr (code_bits == 8) {                                                                                                    \
            for (size_t step = 0; step < num_steps; ++step)                                                                                \
                for (size_t c = 0; c < num_panels; ++c) {                                                                                  \
                    const Ints pair = _mm##bits##_cvtepu8_epi16(load_half(codes + c * panel_bytes + step * lanes * 2));                    \
                    for (size_t r = 0; r < num_rows; ++r)                                                                                  \
                        sums[r][c] = _mm##bits##_add_epi32(sums[r][c], _mm##bits##_madd_epi16(pair, all(record[step * num_rows + r])));    \
                }                                                                                                                          \
        } else {                                                                                                                           \
            _Pragma("GCC unroll 1") for (size_t step = 0; step < num_steps / 2; ++step)                                                    \
                for (size_t c = 0; c < num_panels; ++c) {                                                                                  \
                    const Ints bytes = load(codes + c * panel_bytes + step * lanes * 4), low = low_codes(bytes), high = high_codes(bytes); \
                    for (size_t r = 0; r < num_rows; ++r) {                                                                                \
                        const Ints first = _mm##bits##_maddubs_epi16(low, all(record[step * num_rows + r]));                               \
                        const Ints second = _mm##bits##_maddubs_epi16(high, all(record[(step + num_steps / 2) * num_rows + r]));           \
                        sums[r][c] = _mm##bits##_add_epi16(sums[r][c], _mm##bits##_add_epi16(first, second));                              \
                    }                                                                                                                      \
                }                                                                                                                          \
            for (size_t r = 0; r < num_rows; ++r)                                                                                          \
                for (size_t c = 0; c < num_panels; ++c)                                                                                    \
                    sums[r][c] = _mm##bits##_add_epi32(_mm##bits##_madd_epi16(sums[r][c], _mm##bits##_set1_epi16(1)), all(corrections[r])); \
        }                                                                                                                                  \
    }

// With VNNI: four products of bytes a lane in one instruction.
#define HOARFROST_QUAD_DOTS(dot)                                                                                                           \
    static constexpr Style style = Style::quads;                                                                                           \
    static constexpr size_t inputs_together(size_t code_bits) { return inputs_of(style, code_bits); }                                      \
    template <size_t num_rows, size_t num_panels, size_t group_size, size_t code_bits>                                                     \
    static HOARFROST_KERNEL_INLINE void dots(const int32_t* record, const uint8_t* codes, size_t panel_bytes,                              \
                                             Ints (&sums)[num_rows][num_panels]) {                                                         \
        constexpr size_t num_steps = group_size / 4, num_loads = code_bits == 4 ? num_steps / 2 : num_steps;                               \
        const int32_t* corrections = record + num_rows * (num_steps + 2);                                                                  \
        for (size_t r = 0; r < num_rows; ++r)                                                                                              \
            for (size_t c = 0; c < num_panels; ++c) sums[r][c] = all(corrections[r]);                                                      \
        for (size_t step = 0; step < num_loads; ++step) {                                                                                  \
            Ints first[num_panels], second[num_panels];                                                                                    \
            for (size_t c = 0; c < num_panels; ++c) {                                                                                      \
                const Ints bytes = load(codes + c * panel_bytes + step * lanes * 4);                                                       \
                first[c] = code_bits == 4 ? low_codes(bytes) : bytes;                                                                      \
                if (code_bits == 4) second[c] = high_codes(bytes);                                                                         \
            }                                                                                                                              \
            for (size_t r = 0; r < num_rows; ++r)                                                                                          \
                for (size_t c = 0; c < num_panels; ++c) sums[r][c] = dot(sums[r][c], first[c], all(record[step * num_rows + r]));          \
            if constexpr (code_bits == 4)                                                                                                  \
                for (size_t r = 0; r < num_rows; ++r)                                                                                      \
                    for (size_t c = 0; c < num_panels; ++c)                                                                                \
                        sums[r][c] = dot(sums[r][c], second[c], all(record[(step + num_loads) * num_rows + r]));                           \
        }                                                                                                                                  \
    }

#define HOARFROST_KERNEL __attribute__((target("avx2,fma,f16c")))
#define HOARFROST_KERNEL_INLINE inline __attribute__((target("avx2,fma,f16c"), always_inline))
namespace avx2 {
struct Set {
    using Half = __m128i;
    HOARFROST_SET_OPERATIONS(256, 8)
    HOARFROST_PAIR_DOTS(256)
    static constexpr RowRange rows_with(size_t num_panels) { return {1, num_panels == 4 ? 1 : num_panels == 2 ? 3 : max_tile_rows}; }
};
#include "decoder/quantized_kernel.inl"
}  // namespace avx2
#undef HOARFROST_KERNEL
#undef HOARFROST_KERNEL_INLINE

#define HOARFROST_KERNEL __attribute__((target("avx2,fma,f16c,avxvnni")))
#define HOARFROST_KERNEL_INLINE inline __attribute__((target("avx2,fma,f16c,avxvnni"), always_inline))
namespace avx2_vnni {
struct Set {
    using Half = __m128i;
    HOARFROST_SET_OPERATIONS(256, 8)
    HOARFROST_QUAD_DOTS(_mm256_dpbusd_avx_epi32)
    static constexpr RowRange rows_with(size_t num_panels) { return {1, num_panels == 4 ? 1 : num_panels == 2 ? 3 : max_tile_rows}; }
};
#include "decoder/quantized_kernel.inl"
}  // namespace avx2_vnni
#undef HOARFROST_KERNEL
#undef HOARFROST_KERNEL_INLINE

#define HOARFROST_KERNEL __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#define HOARFROST_KERNEL_INLINE inline __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"), always_inline))
namespace avx512 {
struct Set {
    using Half = __m256i;
    HOARFROST_SET_OPERATIONS(512, 16)
    HOARFROST_PAIR_DOTS(512)
    static constexpr RowRange rows_with(size_t num_panels) { return {num_panels == 2 ? 2u : 1u, num_panels == 4 ? 0 : max_tile_rows}; }
};
#include "decoder/quantized_kernel.inl"
}  // namespace avx512
#undef HOARFROST_KERNEL
#undef HOARFROST_KERNEL_INLINE

#define HOARFROST_KERNEL __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define HOARFROST_KERNEL_INLINE inline __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"), always_inline))
namespace avx512_vnni {
struct Set {
    using Half = __m256i;
    HOARFROST_SET_OPERATIONS(512, 16)
    HOARFROST_QUAD_DOTS(_mm512_dpbusd_epi32)
    static constexpr RowRange rows_with(size_t num_panels) { return {num_panels == 2 ? 2u : 1u, num_panels == 4 ? 0 : max_tile_rows}; }
};
#include "decoder/quantized_kernel.inl"
}  // namespace avx512_vnni
#undef HOARFROST_KERNEL
#undef HOARFROST_KERNEL_INLINE

#elif HOARFROST_ARM

#define HOARFROST_KERNEL __attribute__((target("arch=armv8.2-a+dotprod")))
#define HOARFROST_KERNEL_INLINE inline __attribute__((target("arch=armv8.2-a+dotprod"), always_inline))
namespace neon_dot {
struct Set {
    static constexpr Style style = Style::signed_quads;
    static constexpr size_t lanes = 4;
    using Ints = int32x4_t;
    using Floats = float32x4_t;

    static constexpr RowRange rows_with(size_t num_panels) { return {1, num_panels == 4 ? 3 : max_tile_rows}; }
    static constexpr size_t inputs_together(size_t code_bits) { return inputs_of(style, code_bits); }
    static HOARFROST_KERNEL_INLINE Floats all(float value) { return vdupq_n_f32(value); }
    static HOARFROST_KERNEL_INLINE Floats multiply(Floats a, Floats b) { return vmulq_f32(a, b); }
    static HOARFROST_KERNEL_INLINE Floats add_product(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
    static HOARFROST_KERNEL_INLINE Floats to_float(Ints ints) { return vcvtq_f32_s32(ints); }
    static HOARFROST_KERNEL_INLINE void store(float* to, Floats values) { vst1q_f32(to, values); }
    static HOARFROST_KERNEL_INLINE Floats load_scales(const uint8_t* scales, bool are_halves) {
        if (!are_halves) return vld1q_f32(reinterpret_cast<const float*>(scales));
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(scales))));
    }
    static HOARFROST_KERNEL_INLINE int8x16_t row_codes(int32_t four) { return vreinterpretq_s8_s32(vdupq_n_s32(four)); }

    template <size_t num_rows, size_t num_panels, size_t group_size, size_t code_bits>
    static HOARFROST_KERNEL_INLINE void dots(const int32_t* record, const uint8_t* codes, size_t panel_bytes, Ints (&sums)[num_rows][num_panels]) {
        constexpr size_t num_steps = group_size / 4, num_loads = code_bits == 4 ? num_steps / 2 : num_steps;
        const int32_t* corrections = record + num_rows * (num_steps + 2);
        for (size_t r = 0; r < num_rows; ++r)
            for (size_t c = 0; c < num_panels; ++c) sums[r][c] = vdupq_n_s32(corrections[r]);
        for (size_t step = 0; step < num_loads; ++step)
            for (size_t c = 0; c < num_panels; ++c) {
                const uint8x16_t bytes = vld1q_u8(codes + c * panel_bytes + step * lanes * 4);
                const int8x16_t first = vreinterpretq_s8_u8(code_bits == 4 ? vandq_u8(bytes, vdupq_n_u8(0x0F)) : bytes);
                for (size_t r = 0; r < num_rows; ++r) sums[r][c] = vdotq_s32(sums[r][c], first, row_codes(record[step * num_rows + r]));
                if constexpr (code_bits == 4) {
                    const int8x16_t second = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
                    for (size_t r = 0; r < num_rows; ++r)
                        sums[r][c] = vdotq_s32(sums[r][c], second, row_codes(record[(step + num_loads) * num_rows + r]));
                }
            }
    }
};
#include "decoder/quantized_kernel.inl"
}  // namespace neon_dot
#undef HOARFROST_KERNEL
#undef HOARFROST_KERNEL_INLINE

#endif

// What a set's kernel is to a matrix.
struct Kernel {
    Style style;
    size_t lanes;
    void (*run_panels)(const Block& block, const Panels& panels, size_t first_panel, size_t last_panel);
};

Kernel kernel_of(InstructionSet instruction_set) {
    switch (instruction_set) {
#if HOARFROST_X86
        case InstructionSet::avx2: return {avx2::Set::style, avx2::Set::lanes, avx2::run_panels};
        case InstructionSet::avx2_vnni: return {avx2_vnni::Set::style, avx2_vnni::Set::lanes, avx2_vnni::run_panels};
        case InstructionSet::avx512: return {avx512::Set::style, avx512::Set::lanes, avx512::run_panels};
        case InstructionSet::avx512_vnni:
        case InstructionSet::avx512_bf16: return {avx512_vnni::Set::style, avx512_vnni::Set::lanes, avx512_vnni::run_panels};
#elif HOARFROST_ARM
        case InstructionSet::neon_dot: return {neon_dot::Set::style, neon_dot::Set::lanes, neon_dot::run_panels};
#endif
        default: return {plain::Set::style, plain::Set::lanes, plain::run_panels};
    }
}

}  // namespace

QuantizedMatrix::QuantizedMatrix(const BlockFormat& format, const uint8_t* blocks, size_t num_outputs, size_t num_inputs,
                                 std::vector<float> bias, InstructionSet instruction_set)
    : Matrix(num_outputs, num_inputs),
      format_(&format),
      instruction_set_(instruction_set),
      lanes_(kernel_of(instruction_set).lanes),
      inputs_together_(inputs_of(kernel_of(instruction_set).style, format.code_bits)),
      lowered_by_(kernel_of(instruction_set).style == Style::signed_quads && format.code_bits == 8 ? 128 : 0),
      num_groups_(num_inputs / format.group_size),
      num_panels_((num_outputs + lanes_ - 1) / lanes_),
      bias_(std::move(bias)),
      code_bytes_(lanes_ * format.group_size * format.code_bits / 8),
      scale_bytes_(format.has_half_scales ? 2 : 4),
      group_bytes_(code_bytes_ + lanes_ * scale_bytes_ * (format.has_offsets ? 2 : 1)),
      groups_(aligned_zeros<uint8_t>(num_panels_ * num_groups_ * group_bytes_)) {
    require(num_inputs % format.block_size == 0, "The inputs must fill whole blocks.");
    std::vector<uint8_t> codes(num_inputs);
    std::vector<float> scales(num_groups_), offsets(num_groups_);
    const size_t groups_per_block = format.block_size / format.group_size;
    for (size_t output = 0; output < num_outputs; ++output) {
        for (size_t block = 0; block < num_inputs / format.block_size; ++block, blocks += format.block_bytes)
            format.unpack(blocks, codes.data() + block * format.block_size, scales.data() + block * groups_per_block,
                          offsets.data() + block * groups_per_block);
        place_row(output, codes.data(), scales.data(), offsets.data());
    }
}

// Where the group of a panel begins that holds weights of this output.
size_t QuantizedMatrix::group_place(size_t output, size_t group) const { return (output / lanes_ * num_groups_ + group) * group_bytes_; }

// Where the byte of a code lies. Of two 4-bit codes in a byte the upper one belongs half a group further on.
size_t QuantizedMatrix::code_place(size_t output, size_t input) const {
    const size_t position = input % (format_->group_size * format_->code_bits / 8);
    return group_place(output, input / format_->group_size) +
           (position / inputs_together_ * lanes_ + output % lanes_) * inputs_together_ + position % inputs_together_;
}

// Where the scale of a group lies, or with `is_offset` its offset.
size_t QuantizedMatrix::scale_place(size_t output, size_t group, bool is_offset) const {
    return group_place(output, group) + code_bytes_ + ((is_offset ? lanes_ : 0) + output % lanes_) * scale_bytes_;
}

bool QuantizedMatrix::is_upper(size_t input) const { return format_->code_bits == 4 && input % format_->group_size >= format_->group_size / 2; }

void QuantizedMatrix::place_row(size_t output, const uint8_t* codes, const float* scales, const float* offsets) {
    for (size_t input = 0; input < num_inputs(); ++input)
        groups_[code_place(output, input)] |= static_cast<uint8_t>(is_upper(input) ? codes[input] << 4 : codes[input] - lowered_by_);
    for (size_t group = 0; group < num_groups_; ++group) {
        place_scale(scale_place(output, group, false), scales[group]);
        if (format_->has_offsets) place_scale(scale_place(output, group, true), offsets[group]);
    }
}

void QuantizedMatrix::place_scale(size_t place, float scale) {
    const uint16_t half = float_to_half(scale);
    if (format_->has_half_scales) std::memcpy(&groups_[place], &half, sizeof(half));
    else std::memcpy(&groups_[place], &scale, sizeof(scale));
}

float QuantizedMatrix::scale_at(size_t place) const {
    uint16_t half = 0;
    float scale = 0.0f;
    if (format_->has_half_scales) std::memcpy(&half, &groups_[place], sizeof(half));
    else std::memcpy(&scale, &groups_[place], sizeof(scale));
    return format_->has_half_scales ? half_to_float(half) : scale;
}

void QuantizedMatrix::read_row(size_t output, float* weights) const {
    for (size_t group = 0; group < num_groups_; ++group) {
        const float scale = scale_at(scale_place(output, group, false));
        const float offset = format_->has_offsets ? scale_at(scale_place(output, group, true)) : 0.0f;
        for (size_t input = group * format_->group_size; input < (group + 1) * format_->group_size; ++input) {
            const uint8_t byte = groups_[code_place(output, input)];
            const int32_t code = format_->code_bits == 8 ? static_cast<uint8_t>(byte + lowered_by_) : is_upper(input) ? byte >> 4 : byte & 0x0F;
            weights[input] = scale * static_cast<float>(code - format_->zero) + offset;
        }
    }
}

size_t QuantizedMatrix::num_bytes() const { return num_panels_ * num_groups_ * group_bytes_ + bias_.size() * sizeof(float); }

size_t QuantizedMatrix::panels_per_share(size_t num_rows) const {
    const size_t work_per_panel = std::max<size_t>(1, num_rows * num_inputs() * lanes_);
    return (least_work + work_per_panel - 1) / work_per_panel;
}

size_t QuantizedMatrix::num_shares(size_t num_rows) const {
    const size_t num_panels = panels_per_share(num_rows);
    return (num_panels_ + num_panels - 1) / num_panels;
}

void QuantizedMatrix::multiply(const Member& member, const Rows& rows, const Products& products) const {
    const Kernel kernel = kernel_of(instruction_set_);
    const size_t words_per_group = format_->group_size / inputs_together_ + row_words;
    const Panels panels{groups_.get(), num_groups_, format_->group_size, format_->code_bits, group_bytes_, scale_bytes_, format_->has_offsets};
    member.share(num_panels_, panels_per_share(rows.count), [&](size_t first_panel, size_t last_panel) {
        const size_t most_rows = std::min(block_rows, rows.count);
        float* place = kept_memory<Panels, float>(num_inputs());
        int32_t* tiles = kept_memory<Block, int32_t>(most_rows * num_groups_ * words_per_group);
        for (size_t row = 0; row < rows.count; row += block_rows) {
            const size_t num_rows = std::min(block_rows, rows.count - row);
            run_with(instruction_set_, [&]() HOARFROST_INLINE_LAMBDA {
                lay_out(rows, row, num_rows, num_inputs(), *format_, inputs_together_, format_->zero - lowered_by_, place, tiles);
            });
            const Block block{tiles, num_rows, num_outputs(), bias_.empty() ? nullptr : bias_.data(), products.at(row, 0)};
            kernel.run_panels(block, panels, first_panel, last_panel);
        }
    });
}

}  // namespace hoarfrost
