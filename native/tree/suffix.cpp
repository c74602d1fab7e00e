#include "tree/suffix.hpp"

namespace hoarfrost {

namespace {

// How many suffixes learn of a new occurrence. Highly repetitive text has as many as tokens; the short ones among them matter little.
constexpr int max_updates = 16;

}  // namespace

SuffixIndex::SuffixIndex() : states_{{0, -1, 0}}, labels_(1) {}

void SuffixIndex::extend(const int64_t* token_ids, size_t count) {
    for (size_t i = 0; i < count; ++i) append(token_ids[i]);
}

int64_t SuffixIndex::next(int64_t state, int64_t token_id) const {
    const auto found = transitions_.find(key(state, token_id));
    return found == transitions_.end() ? -1 : found->second;
}

int64_t SuffixIndex::clone(int64_t state, int64_t parent, int64_t token_id) {
    const int64_t copy = static_cast<int64_t>(states_.size());
    const size_t from = static_cast<size_t>(state);
    states_.push_back({states_[static_cast<size_t>(parent)].length + 1, states_[from].link, states_[from].latest_end});
    labels_.push_back(labels_[from]);
    for (const int64_t label : labels_[from]) set_next(copy, label, next(state, label));
    states_[from].link = copy;
    for (; parent >= 0 && next(parent, token_id) == state; parent = states_[static_cast<size_t>(parent)].link) set_next(parent, token_id, copy);
    return copy;
}

void SuffixIndex::append(int64_t token_id) {
    const int64_t added = static_cast<int64_t>(states_.size());
    ++size_;
    states_.push_back({states_[static_cast<size_t>(last_)].length + 1, 0, size_});
    labels_.emplace_back();
    int64_t state = last_;
    for (; state >= 0 && next(state, token_id) < 0; state = states_[static_cast<size_t>(state)].link) {
        set_next(state, token_id, added);
        labels_[static_cast<size_t>(state)].push_back(token_id);
    }
    if (state >= 0) {
        const int64_t target = next(state, token_id);
        const bool fits = states_[static_cast<size_t>(target)].length == states_[static_cast<size_t>(state)].length + 1;
        const int64_t link = fits ? target : clone(target, state, token_id);
        states_[static_cast<size_t>(added)].link = link;
    }
    last_ = added;
    int64_t suffix = states_[static_cast<size_t>(added)].link;
    match_ = {states_[static_cast<size_t>(suffix)].length, states_[static_cast<size_t>(suffix)].latest_end};
    for (int step = 0; suffix > 0 && step < max_updates; ++step, suffix = states_[static_cast<size_t>(suffix)].link)
        states_[static_cast<size_t>(suffix)].latest_end = size_;
}

}  // namespace hoarfrost
