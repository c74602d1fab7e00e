#include "tree.hpp"

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

namespace hoarfrost {

namespace {

constexpr double impossible = -std::numeric_limits<double>::infinity();

// A node that may come next: the candidate of `rank` at `depth` below the row `parent`. A bound stands for candidates not yet fetched, with
// the score of the last one that was: as long as it is not taken, none of them can matter.
struct Proposal {
    double score;
    int32_t depth;
    int32_t parent;
    int32_t rank;
    bool is_bound;

    // Heap order: the greatest proposal is taken first.
    bool operator<(const Proposal& other) const {
        if (score != other.score) return score < other.score;
        return std::tie(depth, parent, rank) > std::tie(other.depth, other.parent, other.rank);
    }
};

class Grower {
public:
    Grower(Candidates& candidates, const TreeRows& tree) : candidates_(candidates), tree_(tree) {
        scores_.reserve(tree.max_rows);
        heap_.reserve(tree.max_rows + 1);
    }

    TreeOutcome grow(int64_t bonus_token_id) {
        add_row(bonus_token_id, Proposal{0.0, 0, -1, 0, false});
        if (!is_full()) propose(1, 0, 0);
        while (!is_full() && !heap_.empty()) {
            std::pop_heap(heap_.begin(), heap_.end());
            const Proposal next = heap_.back();
            heap_.pop_back();
            if (next.is_bound) {
                if (ranks(next).count <= static_cast<size_t>(next.rank) && !candidates_.widen(static_cast<size_t>(next.depth)))
                    return {scores_.size(), true};
                propose(next.depth, next.parent, next.rank);
                continue;
            }
            const int32_t row = add_row(ranks(next).token_ids[next.rank], next);
            if (is_full()) break;
            propose(next.depth, next.parent, next.rank + 1);
            propose(next.depth + 1, row, 0);
        }
        return {scores_.size(), false};
    }

private:
    bool is_full() const { return scores_.size() == tree_.max_rows; }

    const Ranks& ranks(const Proposal& proposal) const { return candidates_.at(static_cast<size_t>(proposal.depth)); }

    // Pushes a candidate if there is one, or the bound that stands for it.
    void propose(int32_t depth, int32_t parent, int32_t rank) {
        const size_t level = static_cast<size_t>(depth), index = static_cast<size_t>(rank);
        if (level > candidates_.horizon()) return;
        if (candidates_.at(level).count == 0) candidates_.widen(level);
        const Ranks& given = candidates_.at(level);
        const bool is_bound = index >= given.count;
        if (given.count == 0 || (is_bound && !given.has_more)) return;
        const float log_prob = given.log_probs[std::min(index, given.count - 1)];
        const double score = scores_[static_cast<size_t>(parent)] + static_cast<double>(log_prob);
        if (score == impossible) return;
        heap_.push_back({score, depth, parent, rank, is_bound});
        std::push_heap(heap_.begin(), heap_.end());
    }

    int32_t add_row(int64_t token_id, const Proposal& node) {
        const size_t row = scores_.size();
        tree_.token_ids[row] = token_id;
        tree_.parents[row] = node.parent;
        tree_.depths[row] = node.depth;
        uint64_t* ancestors = tree_.ancestors + row * tree_.num_words;
        if (node.parent < 0)
            std::fill_n(ancestors, tree_.num_words, uint64_t{0});
        else
            std::copy_n(tree_.ancestors + static_cast<size_t>(node.parent) * tree_.num_words, tree_.num_words, ancestors);
        ancestors[row / 64] |= uint64_t{1} << row % 64;
        scores_.push_back(node.score);
        return static_cast<int32_t>(row);
    }

    Candidates& candidates_;
    const TreeRows& tree_;
    std::vector<double> scores_;
    std::vector<Proposal> heap_;
};

}  // namespace

size_t max_tree_rows(size_t budget, size_t horizon, size_t width) {
    size_t num_nodes = 0, num_at_depth = 1;
    for (size_t depth = 0; depth < horizon && num_nodes < budget; ++depth) {
        num_at_depth = std::min(width, budget) * num_at_depth;
        num_nodes = std::min(num_nodes + num_at_depth, budget);
        num_at_depth = std::min(num_at_depth, budget);
    }
    return num_nodes + 1;
}

TreeOutcome build_tree(Candidates& candidates, int64_t bonus_token_id, const TreeRows& tree) {
    return Grower(candidates, tree).grow(bonus_token_id);
}

}  // namespace hoarfrost
