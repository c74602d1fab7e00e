#include <algorithm>
#include <cmath>
#include <limits>

#include "logits/largest_logit.hpp"
#include "base/team.hpp"
#include "logits/top_k.hpp"

namespace hoarfrost {

namespace {

// Tile by tile, so that the place of the maximum is looked for in one of them only.
template <class Logit>
HOARFROST_INLINE int64_t best_token(const Logit* row, size_t vocab_size) {
    constexpr size_t tile_size = 512;
    float maximum = -std::numeric_limits<float>::infinity();
    size_t place = 0;
    for (size_t start = 0; start < vocab_size; start += tile_size) {
        const float of_tile = largest_logit(row + start, std::min(vocab_size - start, tile_size));
        if (std::isnan(of_tile)) return -1;
        if (of_tile > maximum) {
            maximum = of_tile;
            place = start;
        }
    }
    if (std::isinf(maximum)) return -1;
    while (to_float(row[place]) != maximum) ++place;
    return static_cast<int64_t>(place);
}

}  // namespace

template <class Logit>
void best_tokens(const LogitRows<Logit>& logits, InstructionSet instruction_set, size_t num_threads, int64_t* token_ids) {
    parallel_for(logits.num_rows, num_threads, [&](size_t row) {
        const Logit* values = logits.data + row * logits.row_stride;
        run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA { token_ids[row] = best_token(values, logits.vocab_size); });
    });
}

template void best_tokens(const LogitRows<float>&, InstructionSet, size_t, int64_t*);
template void best_tokens(const LogitRows<BFloat16>&, InstructionSet, size_t, int64_t*);

}  // namespace hoarfrost
