#include "retrieval.hpp"

#include <algorithm>
#include <utility>

namespace hoarfrost {

namespace {

constexpr double memory = 0.999;  // of an observation, a round later
constexpr double max_weight = 1e6;
constexpr double least_chance = 1e-3;  // in observations of now
constexpr double max_share = 0.95;

}  // namespace

void Repetition::extend(const int64_t* token_ids, size_t count) {
    text_.insert(text_.end(), token_ids, token_ids + count);
    index_.extend(token_ids, count);
}

Shares::Shares(std::vector<float> priors, double prior_weight) : chances_(priors.size(), prior_weight), values_(std::move(priors)) {
    for (const float prior : values_) hits_.push_back(static_cast<double>(prior) * prior_weight);
}

void Shares::forget() {
    weight_ /= memory;
    if (weight_ <= max_weight) return;
    for (std::vector<double>* sums : {&hits_, &chances_})
        for (double& sum : *sums) sum /= weight_;
    weight_ = 1.0;
}

void Shares::observe(size_t bucket, bool is_hit, double chance) {
    hits_[bucket] += is_hit ? weight_ : 0.0;
    chances_[bucket] += weight_ * chance;
    values_[bucket] = static_cast<float>(std::min(hits_[bucket] / std::max(chances_[bucket], least_chance * weight_), max_share));
}

void remember(const SuccessorTable& table, int64_t token_id, const int64_t* best, const float* log_probs, size_t num_best,
              std::span<const float> bounds) {
    const size_t start = static_cast<size_t>(token_id) * table.width;
    for (size_t rank = 0; rank < num_best; ++rank) {
        const auto grade = std::lower_bound(bounds.begin(), bounds.end(), log_probs[rank]) - bounds.begin();
        table.token_ids[start + rank] = static_cast<int32_t>(best[rank]);
        table.grades[start + rank] = static_cast<uint8_t>(static_cast<size_t>(grade) + (rank == 0 ? bounds.size() + 1 : 0));
    }
}

void judge_successors(const SuccessorTable& table, const WalkedRows& rows, Shares& shares) {
    shares.forget();
    for (size_t row = 0; row < rows.count; ++row) {
        const double chance = rows.left_over == nullptr ? 1.0 : rows.left_over[row];
        const bool is_open = rows.is_open == nullptr || rows.is_open[row];
        const size_t start = static_cast<size_t>(rows.row_tokens[row]) * table.width;
        for (size_t entry = start; entry < start + table.width; ++entry)
            if (table.token_ids[entry] >= 0)
                shares.observe(std::min<size_t>(table.grades[entry], shares.values().size() - 1),
                               is_open && table.token_ids[entry] == rows.chosen[row], chance);
    }
}

void judge_path(const int64_t* path, size_t length, size_t matched, const WalkedRows& rows, Shares& shares) {
    shares.forget();
    bool on_path = true;
    for (size_t row = 0; on_path && row < std::min(rows.count, length); ++row) {
        on_path = path[row] == rows.chosen[row];
        shares.observe(std::min(matched + row, shares.values().size() - 1), on_path && (rows.is_open == nullptr || rows.is_open[row]),
                       rows.left_over == nullptr ? 1.0 : rows.left_over[row]);
    }
}

}  // namespace hoarfrost
