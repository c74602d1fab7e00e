#include "tree/retrieval.hpp"

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

std::span<const int64_t> Repetition::path() const {
    const SuffixMatch match = longest_match();
    return match.length == 0 ? std::span<const int64_t>() : std::span(text_).subspan(match.end, std::min(max_path, text_.size() - match.end));
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
    bucket = std::min(bucket, values_.size() - 1);
    hits_[bucket] += is_hit ? weight_ : 0.0;
    chances_[bucket] += weight_ * chance;
    values_[bucket] = static_cast<float>(std::min(hits_[bucket] / std::max(chances_[bucket], least_chance * weight_), max_share));
}

SuccessorTable::SuccessorTable(size_t vocab_size, size_t width, std::vector<float> bounds)
    : vocab_size_(vocab_size), width_(width), bounds_(std::move(bounds)), token_ids_(vocab_size * width, -1), grades_(vocab_size * width) {}

void SuccessorTable::remember(int64_t token_id, const int64_t* best, const float* log_probs, size_t num_best) {
    const size_t start = static_cast<size_t>(token_id) * width_;
    for (size_t rank = 0; rank < num_best; ++rank) {
        const auto grade = std::lower_bound(bounds_.begin(), bounds_.end(), log_probs[rank]) - bounds_.begin();
        token_ids_[start + rank] = static_cast<int32_t>(best[rank]);
        grades_[start + rank] = static_cast<uint8_t>(static_cast<size_t>(grade) + (rank == 0 ? bounds_.size() + 1 : 0));
    }
}

void SourceShares::observe(const SuccessorTable& table, const Repetition& repetition, const WalkedRows& rows) {
    successors.forget();
    paths.forget();
    const std::span<const int64_t> path = repetition.path();
    bool on_path = true;
    for (size_t row = 0; row < rows.count; ++row) {
        const double chance = rows.left_over == nullptr ? 1.0 : rows.left_over[row];
        const bool is_open = rows.is_open == nullptr || rows.is_open[row];
        const int32_t* guesses = table.token_ids_after(rows.row_tokens[row]);
        const uint8_t* grades = table.grades_after(rows.row_tokens[row]);
        for (size_t rank = 0; rank < table.width(); ++rank)
            if (guesses[rank] >= 0) successors.observe(grades[rank], is_open && guesses[rank] == rows.chosen[row], chance);
        if (!on_path || row >= path.size()) continue;
        on_path = path[row] == rows.chosen[row];
        paths.observe(repetition.longest_match().length + row, is_open && on_path, chance);
    }
}

}  // namespace hoarfrost
