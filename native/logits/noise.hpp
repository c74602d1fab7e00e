// Counter-based noise: every (seed, position, token id) has its own 64 hash bits and its own Gumbel value, whatever is asked for beside it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/instruction_set.hpp"
#include "logits/top_k.hpp"

namespace hoarfrost {

// The hash of (seed, position): the stream that the tokens of one position draw from.
uint64_t noise_stream(uint64_t seed, uint64_t position);

// bits[i] = 64 hash bits of token_ids[i] in `stream`.
void noise_bits(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, uint64_t* bits);

// values[i] = the standard Gumbel value of token_ids[i], or of token i where `token_ids` is null.
void gumbel_noise(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, float* values);

// The seed, and the position whose noise the first row gets; every further row is one position on.
struct NoiseOrigin {
    uint64_t seed, position;
};

// Of every row the k <= vocab_size best scores (logit - largest logit) / temperature + noise and their token ids, [num_rows, k], best first,
// the lower id first among equals; -inf and some impossible token behind. Token id -1 throughout for a row with NaN or +inf, or nothing
// but -inf. Only tokens whose noise can lift them so far get their noise computed.
template <class Logit>
void best_with_noise(const LogitRows<Logit>& logits, float temperature, NoiseOrigin noise, size_t k, InstructionSet instruction_set,
                     size_t num_threads, float* scores, int64_t* token_ids);

}  // namespace hoarfrost
