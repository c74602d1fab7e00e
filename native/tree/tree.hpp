// Best-first draft trees (DDTree, arXiv 2604.12989, section 3): the prefixes of largest probability under what the drafter guesses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tree/candidates.hpp"
#include "tree/retrieval.hpp"

namespace hoarfrost {

// Where a tree of at most `max_rows` rows is written: token_ids, parents, depths, log_probs [max_rows]; ancestors [max_rows, num_words].
// `log_probs` are the calibrated log-probabilities that all rows from the root to this one are accepted.
struct TreeRows {
    int64_t* token_ids;
    int32_t* parents;
    int32_t* depths;
    float* log_probs;
    uint64_t* ancestors;
    size_t max_rows;
    size_t num_words;
};

// What experience says of the drafter: a candidate of probability p is accepted with probability sigmoid(slope * logit(p) + intercept).
// slopes, intercepts [2, num_depths], no fewer depths than the horizon: first for children of rows on the greedy spine, then for those of all others. Null: p as it is.
struct Calibration {
    const float* slopes = nullptr;
    const float* intercepts = nullptr;
    size_t num_depths = 0;
};

// Guesses beside the drafter's. Where the drafter's best candidates leave probability over, a further source has a share of it: the next token of
// the repetition's path below rows that follow it from the root, and the tokens that came after a row's token before. Where the noise that
// will choose is known, the share counts for a token as it is likely to win with its noise. Null where there are none.
struct Extras {
    const SuccessorTable* table = nullptr;
    const Repetition* repetition = nullptr;
    const SourceShares* shares = nullptr;
    size_t max_depth = 0;  // no row lies deeper
    bool has_noise = false;
    uint64_t seed = 0, first_position = 0;  // of the noise; the position is that of depth 1

    bool empty() const { return shares == nullptr; }
};

// The rows of the largest tree that `budget` nodes and `width` candidates per depth allow, root included.
size_t max_tree_rows(size_t budget, size_t horizon, size_t width);

// Grows a tree from its root, node by node. Order of the nodes: cumulative log-probability (float64 sum of the float32 values, calibrated)
// falling, then depth, parent row and rank rising. The greedy spine is never ordered behind where the uncalibrated probabilities put it.
// More candidates are fetched exactly when the next node may be among them.
class TreeGrower {
public:
    // All that is referred to has to outlive the grower.
    TreeGrower(Candidates& candidates, const Calibration& calibration, const Extras& extras, int64_t bonus_token_id, const TreeRows& tree);

    // Adds the next node; false where the tree is full, where nothing is left, or where the node may be a candidate that cannot be fetched.
    bool add_node();

    void grow() {
        while (add_node()) {}
    }

    size_t num_rows() const { return rows_.size(); }
    bool needs_more() const { return needs_more_; }

    // Of the row that was added last: the log-probability that all rows down to it are accepted, and the score by which rows are
    // ordered. No later row has a greater score, none a log-probability above its score.
    float last_log_prob() const { return tree_.log_probs[rows_.size() - 1]; }
    double last_score() const { return rows_.back().score; }

private:
    // A node that may come next: the candidate of `rank` at `depth` below the row `parent`, or a token of another source (rank from
    // `first_extra_rank` on). A bound stands for candidates not yet fetched, with the score of the last one that was: as long as it is not
    // taken, none of them can matter. `score` orders, `log_prob` is what is expected of the node; they differ on the spine alone.
    struct Proposal {
        double score;
        double log_prob;
        int32_t depth;
        int32_t parent;
        int32_t rank;
        int32_t candidate;  // the node's place among the candidates of its depth, as predecessor of the next; -1: none of them
        int64_t token_id;
        enum Kind : uint8_t { ranked, bound, extra } kind;

        bool operator<(const Proposal& other) const;  // heap order: the greatest proposal is taken first
    };

    struct Extra {
        int64_t token_id;
        double share;
    };

    // What the search has to know of a row beyond what is written out.
    struct Row {
        double score;
        double log_prob;
        double raw_log_prob;  // of a row on the spine: uncalibrated
        int32_t candidate;
        bool on_spine;
        bool on_path;
        uint32_t first_extra, num_extras;
    };

    bool is_full() const { return rows_.size() == tree_.max_rows; }
    size_t depth_below(int32_t parent) const { return static_cast<size_t>(tree_.depths[parent]) + 1; }
    bool has_candidates(int32_t parent) const;
    const Ranks& ranks_below(int32_t parent) const;
    const Ranks* fetched_below(int32_t parent);
    double calibrated(float log_prob, size_t depth, bool on_spine) const;
    void propose_after_last();
    void propose(int32_t parent, int32_t rank);
    void propose_extras(int32_t row);
    void collect_extras(int32_t row, const Row& above);
    void hear_noise(size_t first, size_t depth);
    bool is_extra(int32_t row, int64_t token_id) const;
    bool is_next_of_path(const Proposal& node) const;
    void push(const Proposal& proposal);
    void add_row(const Proposal& node);

    Candidates& candidates_;
    const Calibration calibration_;
    const Extras given_;
    const std::span<const int64_t> path_;
    const TreeRows tree_;
    std::vector<Row> rows_;
    std::vector<Extra> extras_;
    std::vector<Proposal> heap_;
    Proposal last_;  // what became the last row; what it leads to is proposed when it is asked for
    bool is_proposed_ = false, needs_more_ = false;
};

}  // namespace hoarfrost
