// The best of many keys (rank_key.hpp) without sorting them all.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "base/rank_key.hpp"

namespace hoarfrost {

// The k largest of the keys offered so far: appends, and drops all but the best k when twice as many have gathered.
class BestKeys {
public:
    explicit BestKeys(size_t k) : k_(k) { keys_.reserve(2 * k); }

    void clear() {
        keys_.clear();
        bound_ = std::numeric_limits<float>::lowest();
    }

    // No logit below this one can be among the best k.
    float bound() const { return bound_; }

    void offer(float logit, size_t index) {
        keys_.push_back(rank_key(logit, index));
        if (keys_.size() == 2 * k_) prune();
    }

    void prune() {
        if (keys_.size() < k_) return;
        std::nth_element(keys_.begin(), keys_.begin() + static_cast<std::ptrdiff_t>(k_) - 1, keys_.end(), std::greater<>());
        keys_.resize(k_);
        bound_ = score_of(keys_.back());
    }

    const std::vector<uint64_t>& sorted() {
        prune();
        std::sort(keys_.begin(), keys_.end(), std::greater<>());
        return keys_;
    }

private:
    size_t k_;
    float bound_ = std::numeric_limits<float>::lowest();
    std::vector<uint64_t> keys_;
};

}  // namespace hoarfrost
