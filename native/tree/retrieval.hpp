// Guesses from the text and from the target's earlier choices, and what they turn out to be worth (src/hoarfrost/drafting/retrieval.py).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tree/suffix.hpp"

namespace hoarfrost {

// The text of one sequence, and how it went on where its end occurred before.
class Repetition {
public:
    static constexpr size_t max_path = 24;  // tokens of the continuation that are guessed

    void extend(const int64_t* token_ids, size_t count);

    size_t size() const { return text_.size(); }
    SuffixMatch longest_match() const { return index_.longest_match(); }

    // The tokens of the text that come behind the earlier occurrence of its end; none where it never occurred.
    std::span<const int64_t> path() const;

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

    // That of a bucket; buckets behind the last one are the last one.
    float at(size_t bucket) const { return values_[std::min(bucket, values_.size() - 1)]; }

private:
    std::vector<double> hits_, chances_;
    std::vector<float> values_;
    double weight_ = 1.0;  // of an observation now; that the older ones count less is that the newer ones count more
};

// What came after each token of the vocabulary, best first, -1: none further; and how sure each seemed.
class SuccessorTable {
public:
    SuccessorTable(size_t vocab_size, size_t width, std::vector<float> bounds);

    // Notes the best next tokens `best [num_best <= width]` behind one verified token, best first. A grade is the number of bounds below a token's
    // log-probability; the likeliest token's grades lie behind the others'.
    void remember(int64_t token_id, const int64_t* best, const float* log_probs, size_t num_best);

    bool has(int64_t token_id) const { return token_id >= 0 && static_cast<size_t>(token_id) < vocab_size_; }
    const int32_t* token_ids_after(int64_t token_id) const { return token_ids_.data() + static_cast<size_t>(token_id) * width_; }
    const uint8_t* grades_after(int64_t token_id) const { return grades_.data() + static_cast<size_t>(token_id) * width_; }

    size_t vocab_size() const { return vocab_size_; }
    size_t width() const { return width_; }
    std::vector<int32_t>& token_ids() { return token_ids_; }
    std::vector<uint8_t>& grades() { return grades_; }

private:
    size_t vocab_size_, width_;
    std::vector<float> bounds_;
    std::vector<int32_t> token_ids_;
    std::vector<uint8_t> grades_;
};

// A walk from the root: the token of each row, what the target chose there, and what the drafter's guesses made of it (null: there were none).
struct WalkedRows {
    const int64_t* row_tokens;
    const int64_t* chosen;
    const double* left_over;
    const bool* is_open;  // whether the choice was none of the drafter's best
    size_t count;
};

// What both sources are worth: a bucket per grade of a successor, and per number of tokens that match before the next one of a path.
struct SourceShares {
    Shares successors, paths;

    // Judges what either source guessed below the rows of a walk.
    void observe(const SuccessorTable& table, const Repetition& repetition, const WalkedRows& rows);
};

}  // namespace hoarfrost
