#include "tree/allocation.hpp"

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

// Per number of rows n, at [n - 1], the least time that a row more costs: of all lines to larger numbers the flattest, which leads along the lower
// convex hull of the times. One pass from the right; infinite where no more rows may be.
std::vector<double> least_slopes(const double* row_ms, size_t max_rows) {
    std::vector<double> slopes(max_rows, std::numeric_limits<double>::infinity());
    std::vector<size_t> hull;  // the numbers of rows on it, the nearest last
    const auto slope = [row_ms](size_t from, size_t to) { return (row_ms[to - 1] - row_ms[from - 1]) / static_cast<double>(to - from); };
    for (size_t num_rows = max_rows; num_rows > 0; --num_rows) {
        while (hull.size() > 1 && slope(num_rows, hull.back()) >= slope(hull.back(), hull[hull.size() - 2])) hull.pop_back();
        if (!hull.empty()) slopes[num_rows - 1] = slope(num_rows, hull.back());
        hull.push_back(num_rows);
    }
    return slopes;
}

}  // namespace

Allocation grow_worthwhile(std::vector<TreeGrower>& trees, const double* row_ms, size_t max_rows, double fixed_ms) {
    constexpr double slack = 1.0 - 1e-9;  // nothing is given up for the sake of rounding
    const std::vector<double> slopes = least_slopes(row_ms, max_rows);
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
        if (std::exp(greatest_score) * best.milliseconds < slack * best.expected * slopes[total - 1]) break;
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
