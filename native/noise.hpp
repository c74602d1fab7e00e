// Counter-based noise: every (seed, position, token id) has its own 64 hash bits and its own Gumbel value, whatever is asked for beside it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "instruction_set.hpp"

namespace hoarfrost {

// The hash of (seed, position): the stream that the tokens of one position draw from.
uint64_t noise_stream(uint64_t seed, uint64_t position);

// bits[i] = 64 hash bits of token_ids[i] in `stream`.
void noise_bits(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, uint64_t* bits);

// values[i] = the standard Gumbel value of token_ids[i], or of token i where `token_ids` is null.
void gumbel_noise(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, float* values);

}  // namespace hoarfrost
