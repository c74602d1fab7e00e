// The largest entry of a row of logits, in one pass that also finds out whether the row can be ranked at all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "base/lanes.hpp"

namespace hoarfrost {

// The largest of `count` logits; NaN where one is NaN or +inf.
template <class Logit>
HOARFROST_INLINE float largest_logit(const Logit* row, size_t count) {
    using L = Lanes<8>;
    constexpr float lowest = std::numeric_limits<float>::lowest();
    L greatest = L::all(-std::numeric_limits<float>::infinity()), flaw = L::all(0.0f);
    size_t i = 0;
    for (; i + L::width <= count; i += L::width) {
        const L x = L::load(row + i);
        flaw = flaw + L::all(lowest).max(x) * L::all(0.0f);
        greatest = greatest.max(x);
    }
    float maxima[L::width], flaws = sum_of(flaw);
    greatest.store(maxima);
    float result = *std::max_element(maxima, maxima + L::width);
    for (; i < count; ++i) {
        const float x = to_float(row[i]);
        flaws += (x > lowest || std::isnan(x) ? x : lowest) * 0.0f;
        result = result > x ? result : x;
    }
    return result + flaws;
}

}  // namespace hoarfrost
