// The best log-probabilities of a row of logits, read once however often more of them are asked for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bfloat16.hpp"
#include "base/instruction_set.hpp"

namespace hoarfrost {

// The logits of one sequence: rows of `vocab_size` entries, `row_stride` entries apart.
template <class Logit>
struct LogitRows {
    const Logit* data;
    size_t num_rows;
    size_t row_stride;
    size_t vocab_size;
};

// Construction reads the whole row; `top` then looks only where the best can be. The row must outlive the reader and stay as it is.
template <class Logit>
class RowReader {
public:
    RowReader(const LogitRows<Logit>& logits, size_t row, InstructionSet instruction_set);

    // Whether the row holds NaN or +inf; `top` is not for such a row.
    bool is_broken() const;

    // Writes the k <= vocab_size best entries of the log-softmax and their token ids, best first, the lower id first among equal logits.
    void top(size_t k, float* log_probs, int64_t* token_ids) const;

private:
    const Logit* row_;
    size_t vocab_size_;
    std::vector<float> group_maxima_;
    double maximum_;
    double log_sum_;  // the log-normaliser less the maximum: apart, large logits cost no accuracy
};

// Writes log_probs and token_ids [num_rows, k] of all rows; a broken row gets NaN and token id 0 throughout.
template <class Logit>
void top_log_probs(const LogitRows<Logit>& logits, size_t k, InstructionSet instruction_set, size_t num_threads, float* log_probs,
                   int64_t* token_ids);

// token_ids[i] = the likeliest token of row i, the lowest id among equal logits; -1 for a row that is broken or whose best logit is -inf.
template <class Logit>
void best_tokens(const LogitRows<Logit>& logits, InstructionSet instruction_set, size_t num_threads, int64_t* token_ids);

}  // namespace hoarfrost
