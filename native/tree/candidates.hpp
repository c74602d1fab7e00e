// Where a tree gets its candidates: per depth the best tokens, as many as have been fetched, and a way to fetch more.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "logits/top_k.hpp"

namespace hoarfrost {

// The candidates of one depth that are at hand, best first. -inf marks what can never be a node.
struct Ranks {
    const float* log_probs = nullptr;
    const int64_t* token_ids = nullptr;
    size_t count = 0;
    bool has_more = true;            // further candidates exist, at no higher log-probability
    const int32_t* places = nullptr;  // which predecessor of the next depth each one is; null where that makes no difference
};

class Candidates {
public:
    // `num_predecessors` different rows of candidates per depth: one for marginals, which know no predecessor.
    explicit Candidates(size_t horizon, size_t num_predecessors = 1)
        : horizon_(horizon), num_predecessors_(num_predecessors), ranks_(horizon * num_predecessors) {}
    virtual ~Candidates() = default;

    size_t horizon() const { return horizon_; }

    // Depth 1 is the first below the root.
    const Ranks& at(size_t depth, size_t predecessor) const { return ranks_[(depth - 1) * num_predecessors_ + predecessor]; }

    // Fetches more candidates of a depth that has more; false where that is the caller's business.
    virtual bool widen(size_t depth) = 0;

protected:
    size_t horizon_, num_predecessors_;
    std::vector<Ranks> ranks_;
};

// Candidates that somebody else has sorted: log_probs, token_ids [horizon, num_predecessors, num_ranks], and places of the same shape or null.
class GivenCandidates final : public Candidates {
public:
    // Where a row of each array begins: steps from depth to depth and from predecessor to predecessor.
    template <class Scalar>
    struct Rows {
        const Scalar* data;
        int64_t depth_stride, predecessor_stride;

        const Scalar* at(size_t depth, size_t predecessor) const {
            return data == nullptr ? nullptr
                                   : data + static_cast<int64_t>(depth) * depth_stride + static_cast<int64_t>(predecessor) * predecessor_stride;
        }
    };

    GivenCandidates(const Rows<float>& log_probs, const Rows<int64_t>& token_ids, const Rows<int32_t>& places, size_t horizon,
                    size_t num_predecessors, size_t num_ranks, bool has_more)
        : Candidates(horizon, num_predecessors) {
        for (size_t row = 0; row < ranks_.size(); ++row) {
            const size_t depth = row / num_predecessors, predecessor = row % num_predecessors;
            ranks_[row] = {log_probs.at(depth, predecessor), token_ids.at(depth, predecessor), num_ranks, has_more, places.at(depth, predecessor)};
        }
    }

    bool widen(size_t) override { return false; }
};

// Candidates read from logits when they are asked for: a row no node leads to is never read.
template <class Logit>
class LogitCandidates final : public Candidates {
public:
    LogitCandidates(const LogitRows<Logit>& logits, size_t max_width, InstructionSet instruction_set)
        : Candidates(logits.num_rows),
          logits_(logits),
          width_(std::min(max_width, logits.vocab_size)),
          instruction_set_(instruction_set),
          fetched_(logits.num_rows) {}

    bool widen(size_t depth) override {
        Fetched& fetched = fetched_[depth - 1];
        if (!fetched.reader) fetched.reader.emplace(logits_, depth - 1, instruction_set_);
        if (fetched.reader->is_broken()) throw std::domain_error("The logits of depth " + std::to_string(depth) + " hold NaN or +inf.");
        const size_t count = std::min(fetched.log_probs.empty() ? initial_count : 2 * fetched.log_probs.size(), width_);
        fetched.log_probs.resize(count);
        fetched.token_ids.resize(count);
        fetched.reader->top(count, fetched.log_probs.data(), fetched.token_ids.data());
        ranks_[depth - 1] = {fetched.log_probs.data(), fetched.token_ids.data(), count, count < width_};
        return true;
    }

private:
    static constexpr size_t initial_count = 8;

    struct Fetched {
        std::optional<RowReader<Logit>> reader;
        std::vector<float> log_probs;
        std::vector<int64_t> token_ids;
    };

    LogitRows<Logit> logits_;
    size_t width_;
    InstructionSet instruction_set_;
    std::vector<Fetched> fetched_;
};

}  // namespace hoarfrost
