// Weight matrices in blocks of few bits, as GGUF files hold them, taken apart into groups that products understand.
//
// A row of inputs is cut into groups of 32 (or 16); a weight of a group is scale * (code - zero) or scale * code + offset, with small unsigned
// codes. That is what the types below are, each packed in its own way (layouts of ggml; the `gguf` package is the plain twin).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace hoarfrost {

struct BlockFormat {
    const char* name;
    size_t block_size, block_bytes;  // weights of a block, bytes that they take
    size_t group_size;               // weights that share a scale
    size_t code_bits;                // 4 or 8: what a code is kept in
    int32_t zero;                    // the code of weight 0, where there are no offsets
    bool has_offsets;
    bool has_half_scales;            // scales and offsets are float16 numbers; else products of them, which float32 holds exactly

    void (*unpack)(const uint8_t* block, uint8_t* codes, float* scales, float* offsets);
};

// The format of that ggml name ("Q4_0", "Q8_0", "Q6_K", ...); throws std::invalid_argument for others.
const BlockFormat& block_format(const std::string& name);

// float16 as its bits.
float half_to_float(uint16_t half);
uint16_t float_to_half(float value);  // exact for what came from a half

}  // namespace hoarfrost
