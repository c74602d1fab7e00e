#include "tree/tree.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "logits/noise.hpp"

namespace hoarfrost {

namespace {

constexpr double impossible = -std::numeric_limits<double>::infinity();
constexpr double most_certain = -1e-7;  // a log-probability of 0 has no logit
constexpr size_t num_best = 4;          // candidates whose probability counts as the drafter's opinion; what they leave goes to other sources
constexpr int32_t first_extra_rank = 1 << 20;

// The probability that a token which wins with probability `share` does so, given its own noise: the greatest of all others'
// log-probability + noise is a Gumbel value shifted by log(1 - share).
double share_given(double share, float noise) {
    return share <= 0.0 ? 0.0 : std::exp((1.0 - 1.0 / share) * std::exp(-static_cast<double>(noise)));
}

}  // namespace

bool TreeGrower::Proposal::operator<(const Proposal& other) const {
    if (score != other.score) return score < other.score;
    return std::tie(depth, parent, rank) > std::tie(other.depth, other.parent, other.rank);
}

TreeGrower::TreeGrower(Candidates& candidates, const Calibration& calibration, const Extras& extras, int64_t bonus_token_id,
                       const TreeRows& tree)
    : candidates_(candidates),
      calibration_(calibration),
      given_(extras),
      path_(extras.empty() ? std::span<const int64_t>() : extras.repetition->path()),
      tree_(tree) {
    rows_.reserve(tree.max_rows);
    heap_.reserve(tree.max_rows + 1);
    add_row({0.0, 0.0, 0, -1, 0, 0, bonus_token_id, Proposal::extra});
}

bool TreeGrower::add_node() {
    if (is_full()) return false;
    if (!is_proposed_) propose_after_last();
    while (!heap_.empty()) {
        std::pop_heap(heap_.begin(), heap_.end());
        const Proposal next = heap_.back();
        heap_.pop_back();
        if (next.kind != Proposal::bound) {
            add_row(next);
            return true;
        }
        if (ranks_below(next.parent).count <= static_cast<size_t>(next.rank) && !candidates_.widen(static_cast<size_t>(next.depth))) {
            needs_more_ = true;
            heap_.clear();
            return false;
        }
        propose(next.parent, next.rank);
    }
    return false;
}

// What follows from the last row: its next best sibling, and its children.
void TreeGrower::propose_after_last() {
    is_proposed_ = true;
    const int32_t row = static_cast<int32_t>(rows_.size()) - 1;
    if (last_.kind == Proposal::ranked) propose(last_.parent, last_.rank + 1);
    if (!given_.empty()) propose_extras(row);
    propose(row, 0);
}

bool TreeGrower::has_candidates(int32_t parent) const {
    return depth_below(parent) <= candidates_.horizon() && rows_[static_cast<size_t>(parent)].candidate >= 0;
}

const Ranks& TreeGrower::ranks_below(int32_t parent) const {
    return candidates_.at(depth_below(parent), static_cast<size_t>(rows_[static_cast<size_t>(parent)].candidate));
}

// The candidates below a row, the first few fetched; null where there are none.
const Ranks* TreeGrower::fetched_below(int32_t parent) {
    if (!has_candidates(parent)) return nullptr;
    if (ranks_below(parent).count == 0) candidates_.widen(depth_below(parent));
    const Ranks& given = ranks_below(parent);
    return given.count == 0 ? nullptr : &given;
}

double TreeGrower::calibrated(float log_prob, size_t depth, bool on_spine) const {
    if (calibration_.slopes == nullptr || std::isinf(log_prob)) return static_cast<double>(log_prob);
    const size_t place = (on_spine ? 0 : calibration_.num_depths) + depth - 1;
    const double certain = std::min(static_cast<double>(log_prob), most_certain);
    const double logit = certain - std::log(-std::expm1(certain));
    return -std::log1p(std::exp(-(calibration_.slopes[place] * logit + calibration_.intercepts[place])));
}

// Pushes the candidate of a rank below a row if there is one, or the bound that stands for it.
void TreeGrower::propose(int32_t parent, int32_t rank) {
    const Ranks* given = fetched_below(parent);
    if (given == nullptr) return;
    size_t index = static_cast<size_t>(rank);
    while (index < given->count && is_extra(parent, given->token_ids[index])) ++index;
    const bool is_bound = index >= given->count;
    if (is_bound && !given->has_more) return;
    const float raw = given->log_probs[std::min(index, given->count - 1)];
    const Row& above = rows_[static_cast<size_t>(parent)];
    const double log_prob = above.log_prob + calibrated(raw, depth_below(parent), above.on_spine);
    if (log_prob == impossible) return;
    const bool on_spine = above.on_spine && index == 0;
    const double score = on_spine ? std::max(log_prob, above.raw_log_prob + static_cast<double>(raw)) : log_prob;
    push({score, log_prob, static_cast<int32_t>(depth_below(parent)), parent, static_cast<int32_t>(index),
          is_bound || given->places == nullptr ? 0 : given->places[index], is_bound ? 0 : given->token_ids[index],
          is_bound ? Proposal::bound : Proposal::ranked});
}

// Pushes what the other sources guess below a row, each with what the drafter gives the same token and its share of what is left over.
void TreeGrower::propose_extras(int32_t row) {
    const Row& above = rows_[static_cast<size_t>(row)];
    const uint32_t first = static_cast<uint32_t>(extras_.size());
    collect_extras(row, above);
    hear_noise(first, static_cast<size_t>(tree_.depths[row]));
    const uint32_t count = static_cast<uint32_t>(extras_.size()) - first;
    rows_[static_cast<size_t>(row)].first_extra = first;
    rows_[static_cast<size_t>(row)].num_extras = count;
    if (count == 0) return;
    const Ranks* given = fetched_below(row);
    const size_t depth = depth_below(row);
    double left_over = 1.0;
    for (size_t rank = 0; given != nullptr && rank < std::min(num_best, given->count); ++rank)
        left_over -= std::exp(calibrated(given->log_probs[rank], depth, above.on_spine));
    for (uint32_t place = 0; place < count; ++place) {
        const Extra& extra = extras_[first + place];
        double probability = std::max(left_over, 0.0) * extra.share;
        double raw_score = impossible;
        int32_t rank = first_extra_rank + static_cast<int32_t>(place), candidate = given == nullptr || given->places != nullptr ? -1 : 0;
        for (size_t index = 0; given != nullptr && index < given->count; ++index)
            if (given->token_ids[index] == extra.token_id) {
                probability += std::exp(calibrated(given->log_probs[index], depth, above.on_spine));
                if (given->places != nullptr) candidate = given->places[index];
                if (index == 0 && above.on_spine) {
                    rank = 0;  // it stays the spine, though its siblings are proposed apart from it
                    raw_score = above.raw_log_prob + static_cast<double>(given->log_probs[0]);
                }
            }
        if (probability <= 0.0) continue;
        const double log_prob = above.log_prob + std::log(std::min(probability, 1.0));
        push({std::max(log_prob, raw_score), log_prob, static_cast<int32_t>(depth), row, rank, candidate, extra.token_id, Proposal::extra});
    }
}

void TreeGrower::collect_extras(int32_t row, const Row& above) {
    const size_t depth = static_cast<size_t>(tree_.depths[row]);
    if (depth >= given_.max_depth) return;
    const size_t first = extras_.size();
    if (above.on_path && depth < path_.size())
        extras_.push_back({path_[depth], static_cast<double>(given_.shares->paths.at(given_.repetition->longest_match().length + depth))});
    const int64_t token_id = tree_.token_ids[row];
    if (!given_.table->has(token_id)) return;
    const int32_t* successors = given_.table->token_ids_after(token_id);
    const uint8_t* grades = given_.table->grades_after(token_id);
    for (size_t rank = 0; rank < given_.table->width() && successors[rank] >= 0; ++rank) {
        const int64_t next = successors[rank];
        const double share = static_cast<double>(given_.shares->successors.at(grades[rank]));
        const auto same = std::find_if(extras_.begin() + static_cast<std::ptrdiff_t>(first), extras_.end(),
                                       [next](const Extra& extra) { return extra.token_id == next; });
        if (same == extras_.end())
            extras_.push_back({next, share});
        else
            same->share = std::min(1.0, same->share + share);
    }
}

// Weighs the guesses of other sources below a row of `depth`, from number `first` on, by the noise they will meet.
void TreeGrower::hear_noise(size_t first, size_t depth) {
    if (!given_.has_noise || first == extras_.size()) return;
    const uint64_t stream = noise_stream(given_.seed, given_.first_position + depth);
    for (size_t place = first; place < extras_.size(); ++place) {
        float noise;
        gumbel_noise(stream, &extras_[place].token_id, 1, InstructionSet::plain, &noise);
        extras_[place].share = share_given(extras_[place].share, noise);
    }
}

bool TreeGrower::is_extra(int32_t row, int64_t token_id) const {
    const Row& above = rows_[static_cast<size_t>(row)];
    for (uint32_t place = 0; place < above.num_extras; ++place)
        if (extras_[above.first_extra + place].token_id == token_id) return true;
    return false;
}

bool TreeGrower::is_next_of_path(const Proposal& node) const {
    const size_t place = static_cast<size_t>(node.depth) - 1;
    return place < path_.size() && path_[place] == node.token_id;
}

void TreeGrower::push(const Proposal& proposal) {
    heap_.push_back(proposal);
    std::push_heap(heap_.begin(), heap_.end());
}

void TreeGrower::add_row(const Proposal& node) {
    const size_t row = rows_.size();
    const Row* parent = node.parent < 0 ? nullptr : &rows_[static_cast<size_t>(node.parent)];
    const bool on_spine = parent == nullptr || (parent->on_spine && node.rank == 0);
    const bool on_path = parent == nullptr || (parent->on_path && is_next_of_path(node));
    double raw_log_prob = node.log_prob;
    if (on_spine && parent != nullptr)
        raw_log_prob = parent->raw_log_prob + static_cast<double>(ranks_below(node.parent).log_probs[0]);
    tree_.token_ids[row] = node.token_id;
    tree_.parents[row] = node.parent;
    tree_.depths[row] = node.depth;
    tree_.log_probs[row] = static_cast<float>(node.log_prob);
    uint64_t* ancestors = tree_.ancestors + row * tree_.num_words;
    if (node.parent < 0)
        std::fill_n(ancestors, tree_.num_words, uint64_t{0});
    else
        std::copy_n(tree_.ancestors + static_cast<size_t>(node.parent) * tree_.num_words, tree_.num_words, ancestors);
    ancestors[row / 64] |= uint64_t{1} << row % 64;
    rows_.push_back({node.score, node.log_prob, raw_log_prob, node.candidate, on_spine, on_path, 0, 0});
    last_ = node;
    is_proposed_ = false;
}

size_t max_tree_rows(size_t budget, size_t horizon, size_t width) {
    size_t num_nodes = 0, num_at_depth = 1;
    for (size_t depth = 0; depth < horizon && num_nodes < budget; ++depth) {
        num_at_depth = std::min(width, budget) * num_at_depth;
        num_nodes = std::min(num_nodes + num_at_depth, budget);
        num_at_depth = std::min(num_at_depth, budget);
    }
    return num_nodes + 1;
}

}  // namespace hoarfrost
