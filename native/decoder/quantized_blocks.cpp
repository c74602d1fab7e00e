#include "decoder/quantized_blocks.hpp"

#include <bit>
#include <cstring>
#include <stdexcept>

namespace hoarfrost {

namespace {

float half_at(const uint8_t* bytes) {
    uint16_t half;
    std::memcpy(&half, bytes, sizeof(half));
    return half_to_float(half);
}

// 32 codes of 4 bits: the low halves of 16 bytes, then the high ones. With `high_bits`, bit i is the fifth bit of code i.
void unpack_nibbles(const uint8_t* bytes, uint32_t high_bits, uint8_t* codes) {
    for (size_t i = 0; i < 16; ++i) {
        codes[i] = static_cast<uint8_t>((bytes[i] & 0x0F) | (high_bits >> i & 1) << 4);
        codes[i + 16] = static_cast<uint8_t>(bytes[i] >> 4 | (high_bits >> (i + 16) & 1) << 4);
    }
}

uint32_t word_at(const uint8_t* bytes) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof(word));
    return word;
}

void unpack_q4_0(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    unpack_nibbles(block + 2, 0, codes);
}

void unpack_q4_1(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    scales[0] = half_at(block);
    offsets[0] = half_at(block + 2);
    unpack_nibbles(block + 4, 0, codes);
}

void unpack_q5_0(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    unpack_nibbles(block + 6, word_at(block + 2), codes);
}

void unpack_q5_1(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    scales[0] = half_at(block);
    offsets[0] = half_at(block + 2);
    unpack_nibbles(block + 8, word_at(block + 4), codes);
}

void unpack_q8_0(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    scales[0] = half_at(block);
    for (size_t i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(block[2 + i] ^ 0x80);  // signed, moved up by 128
}

// Eight groups' factors of scale and minimum, 6 bits each, in 12 bytes: four whole ones with the upper bits of the others above them, twice,
// then the lower bits of the others.
void unpack_k_scales(const uint8_t* block, float* scales, float* offsets) {
    const float scale = half_at(block), minimum = half_at(block + 2);
    const uint8_t* packed = block + 4;
    for (size_t group = 0; group < 4; ++group) {
        scales[group] = scale * static_cast<float>(packed[group] & 0x3F);
        offsets[group] = -minimum * static_cast<float>(packed[group + 4] & 0x3F);
        scales[group + 4] = scale * static_cast<float>((packed[group + 8] & 0x0F) | (packed[group] >> 2 & 0x30));
        offsets[group + 4] = -minimum * static_cast<float>(packed[group + 8] >> 4 | (packed[group + 4] >> 2 & 0x30));
    }
}

void unpack_q4_k(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    unpack_k_scales(block, scales, offsets);
    const uint8_t* bytes = block + 16;
    for (size_t pair = 0; pair < 4; ++pair, bytes += 32)
        for (size_t i = 0; i < 32; ++i) {
            codes[pair * 64 + i] = bytes[i] & 0x0F;
            codes[pair * 64 + 32 + i] = bytes[i] >> 4;
        }
}

void unpack_q5_k(const uint8_t* block, uint8_t* codes, float* scales, float* offsets) {
    unpack_k_scales(block, scales, offsets);
    const uint8_t *high = block + 16, *bytes = block + 48;
    for (size_t pair = 0; pair < 4; ++pair, bytes += 32)
        for (size_t i = 0; i < 32; ++i) {
            codes[pair * 64 + i] = static_cast<uint8_t>((bytes[i] & 0x0F) | (high[i] >> (2 * pair) & 1) << 4);
            codes[pair * 64 + 32 + i] = static_cast<uint8_t>(bytes[i] >> 4 | (high[i] >> (2 * pair + 1) & 1) << 4);
        }
}

void unpack_q6_k(const uint8_t* block, uint8_t* codes, float* scales, float*) {
    const uint8_t *low = block, *high = block + 128, *factors = block + 192;
    const float scale = half_at(block + 208);
    for (size_t half = 0; half < 2; ++half, low += 64, high += 32, codes += 128)
        for (size_t i = 0; i < 32; ++i) {
            codes[i] = static_cast<uint8_t>((low[i] & 0x0F) | (high[i] & 3) << 4);
            codes[i + 32] = static_cast<uint8_t>((low[i + 32] & 0x0F) | (high[i] >> 2 & 3) << 4);
            codes[i + 64] = static_cast<uint8_t>(low[i] >> 4 | (high[i] >> 4 & 3) << 4);
            codes[i + 96] = static_cast<uint8_t>(low[i + 32] >> 4 | (high[i] >> 6 & 3) << 4);
        }
    for (size_t group = 0; group < 16; ++group) scales[group] = scale * static_cast<float>(static_cast<int8_t>(factors[group]));
}

constexpr BlockFormat formats[] = {
    {"Q4_0", 32, 18, 32, 4, 8, false, true, unpack_q4_0},   {"Q4_1", 32, 20, 32, 4, 0, true, true, unpack_q4_1},
    {"Q5_0", 32, 22, 32, 8, 16, false, true, unpack_q5_0},  {"Q5_1", 32, 24, 32, 8, 0, true, true, unpack_q5_1},
    {"Q8_0", 32, 34, 32, 8, 128, false, true, unpack_q8_0}, {"Q4_K", 256, 144, 32, 4, 0, true, false, unpack_q4_k},
    {"Q5_K", 256, 176, 32, 8, 0, true, false, unpack_q5_k}, {"Q6_K", 256, 210, 16, 8, 32, false, false, unpack_q6_k},
};

}  // namespace

const BlockFormat& block_format(const std::string& name) {
    std::string names;
    for (const BlockFormat& format : formats) {
        if (name == format.name) return format;
        names += names.empty() ? format.name : std::string(", ") + format.name;
    }
    throw std::invalid_argument("There is no product for weights of type '" + name + "'; there are " + names + ".");
}

float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, exponent = half >> 10 & 0x1F, fraction = half & 0x3FF;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | fraction << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
}

uint16_t float_to_half(float value) {
    const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 0xFF;
    if (exponent == 255) return static_cast<uint16_t>(sign | 0x7C00 | (bits >> 13 & 0x3FF));
    if (exponent > 112) return static_cast<uint16_t>(sign | (exponent - 112) << 10 | (bits >> 13 & 0x3FF));
    const float magnitude = value < 0 ? -value : value;
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(magnitude * 0x1p24f));
}

}  // namespace hoarfrost
