// Guesses from the text and from the target's earlier choices, and what they turn out to be worth (src/hoarfrost/drafting/retrieval.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "suffix.hpp"

namespace hoarfrost {

// The text of one sequence, and how it went on where its end occurred before.
class Repetition {
public:
    void extend(const int64_t* token_ids, size_t count);

    size_t size() const { return text_.size(); }
    SuffixMatch longest_match() const { return index_.longest_match(); }

    // The tokens of the text that come behind the earlier occurrence of its end; none where it never occurred.
    const int64_t* continuation() const { return text_.data() + longest_match().end; }
    size_t continuation_length() const { return longest_match().length == 0 ? 0 : text_.size() - longest_match().end; }

private:
    SuffixIndex index_;
    std::vector<int64_t> text_;
};

// Per bucket, the share of the left-over probability that a source's token turned out to get.
class Shares {
public:
    Shares(std::vector<float> priors, double prior_weight);

    // A round has passed: what was seen before counts a little less.
    void forget();

    // Whether the source's token was chosen against the drafter's best, which had left over `chance` for it.
    void observe(size_t bucket, bool is_hit, double chance);

    const std::vector<float>& values() const { return values_; }

private:
    std::vector<double> hits_, chances_;
    std::vector<float> values_;
    double weight_ = 1.0;  // of an observation now; that the older ones count less is that the newer ones count more
};

// What came after each token of the vocabulary, best first, -1: none further; and how sure each seemed. Both [vocab_size, width].
struct SuccessorTable {
    int32_t* token_ids;
    uint8_t* grades;
    size_t width;
};

// Notes the best next tokens `best [num_best]` behind one verified token. A grade is the number of `bounds` below a token's log-probability; the
// likeliest token's grades lie behind the others'. `num_best` is at most the width.
void remember(const SuccessorTable& table, int64_t token_id, const int64_t* best, const float* log_probs, size_t num_best,
              std::span<const float> bounds);

// A walk from the root: the token of each row, what the target chose there, and what the drafter's guesses made of it (null: there were none).
struct WalkedRows {
    const int64_t* row_tokens;
    const int64_t* chosen;
    const double* left_over;
    const bool* is_open;  // whether the choice was none of the drafter's best
    size_t count;
};

// Judges what either source guessed below the rows of a walk. The path's token at step j, with `matched` + j tokens before it that agree with
// the text, belongs to that bucket or the last one.
void judge_successors(const SuccessorTable& table, const WalkedRows& rows, Shares& shares);
void judge_path(const int64_t* path, size_t length, size_t matched, const WalkedRows& rows, Shares& shares);

}  // namespace hoarfrost
