#include "allocation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hoarfrost {

namespace {

// A tree's next node, which is grown already: where it stands in the order of all trees' nodes.
class Frontier {
public:
    explicit Frontier(TreeGrower& tree) : tree_(&tree) { advance(); }

    bool has_node() const { return has_node_; }
    float rank() const { return rank_; }  // the least log-probability so far
    double gain() const { return std::exp(static_cast<double>(tree_->last_log_prob())); }
    double score() const { return has_node_ ? tree_->last_score() : -std::numeric_limits<double>::infinity(); }

    void advance() {
        has_node_ = tree_->add_node();
        if (has_node_) rank_ = std::min(rank_, tree_->last_log_prob());
    }

private:
    TreeGrower* tree_;
    bool has_node_ = false;
    float rank_ = 0.0f;
};

// The least time that a row more costs, of all numbers of rows above `num_rows`.
double least_slope(const double* row_ms, size_t num_rows, size_t max_rows) {
    double slope = std::numeric_limits<double>::infinity();
    for (size_t more = num_rows + 1; more <= max_rows; ++more)
        slope = std::min(slope, (row_ms[more - 1] - row_ms[num_rows - 1]) / static_cast<double>(more - num_rows));
    return slope;
}

}  // namespace

Allocation grow_worthwhile(std::vector<TreeGrower>& trees, const double* row_ms, size_t max_rows, double fixed_ms) {
    constexpr double slack = 1.0 - 1e-9;  // nothing is given up for the sake of rounding
    std::vector<Frontier> next(trees.begin(), trees.end());
    std::vector<size_t> num_rows(trees.size(), 1);
    size_t total = trees.size();
    double expected = static_cast<double>(total);
    Allocation best{num_rows, expected, fixed_ms + row_ms[total - 1]};
    while (total < max_rows) {
        size_t likeliest = trees.size();
        double greatest_score = -std::numeric_limits<double>::infinity();
        for (size_t i = 0; i < trees.size(); ++i) {
            greatest_score = std::max(greatest_score, next[i].score());
            if (next[i].has_node() && (likeliest == trees.size() || next[i].rank() > next[likeliest].rank())) likeliest = i;
        }
        if (likeliest == trees.size()) break;
        if (std::exp(greatest_score) * best.milliseconds < slack * best.expected * least_slope(row_ms, total, max_rows)) break;
        expected += next[likeliest].gain();
        ++num_rows[likeliest];
        ++total;
        const double milliseconds = fixed_ms + row_ms[total - 1];
        if (expected * best.milliseconds > best.expected * milliseconds) best = {num_rows, expected, milliseconds};
        next[likeliest].advance();
    }
    return best;
}

}  // namespace hoarfrost
