#include "tree/learning.hpp"

#include <algorithm>
#include <cmath>

namespace hoarfrost {

namespace {

constexpr double memory = 0.999;  // of an observation, a round later
constexpr double min_slope = 0.2, max_slope = 5.0;
constexpr double max_logit = 12.0;

double logit_of(float log_prob) {
    const double bounded = std::clamp(static_cast<double>(log_prob), -max_logit, -std::exp(-max_logit));
    return bounded - std::log(-std::expm1(bounded));
}

// One Newton step of the regression at (side, depth), from the candidates of one row; `believed` is what it said of them before.
void learn(const Regressions& regressions, size_t side, size_t depth, const float* log_probs, const double* believed, const bool* hits,
           size_t width) {
    const size_t place = side * regressions.num_depths + depth, stride = 2 * regressions.num_depths;
    double slope_gradient = 0.0, intercept_gradient = 0.0, a = 0.0, b = 0.0, d = 0.0;
    for (size_t rank = 0; rank < width; ++rank) {
        if (std::isinf(log_probs[rank])) continue;
        const double logit = logit_of(log_probs[rank]), residual = hits[rank] - believed[rank];
        const double weight = believed[rank] * (1.0 - believed[rank]);
        slope_gradient += residual * logit;
        intercept_gradient += residual;
        a += weight * logit * logit;
        b += weight * logit;
        d += weight;
    }
    double* information = regressions.information + place;
    information[0] = a += memory * information[0];
    information[stride] = information[2 * stride] = b += memory * information[stride];
    information[3 * stride] = d += memory * information[3 * stride];
    const double determinant = a * d - b * b;
    float& slope = regressions.parameters[place];
    float& intercept = regressions.parameters[stride + place];
    slope = static_cast<float>(std::clamp(slope + (d * slope_gradient - b * intercept_gradient) / determinant, min_slope, max_slope));
    intercept = static_cast<float>(intercept + (a * intercept_gradient - b * slope_gradient) / determinant);
}

}  // namespace

size_t judge_walk(const GuessTable& guesses, const int64_t* chosen, size_t length, size_t width, const Regressions& regressions,
                  const Verdict& verdict) {
    std::fill_n(verdict.left_over, length, 1.0);
    std::fill_n(verdict.is_open, length, true);
    size_t row = 0, predecessor = 0;
    bool on_spine = true;
    for (; row < std::min(guesses.horizon, length); ++row) {
        const size_t start = (row * guesses.num_predecessors + predecessor) * guesses.num_ranks;
        const float* log_probs = guesses.log_probs + start;
        const int64_t* token_ids = guesses.token_ids + start;
        const size_t side = on_spine ? 0 : 1, place = side * regressions.num_depths + row;
        double* drafted = verdict.drafted + row * width;
        double* believed = verdict.believed + row * width;
        bool* hits = verdict.hits + row * width;
        double sum = 0.0;
        for (size_t rank = 0; rank < width; ++rank) {
            drafted[rank] = believed[rank] = std::exp(static_cast<double>(log_probs[rank]));
            if (regressions.parameters != nullptr)
                believed[rank] = 1.0 / (1.0 + std::exp(-(regressions.parameters[place] * logit_of(log_probs[rank]) +
                                                         regressions.parameters[2 * regressions.num_depths + place])));
            sum += believed[rank];
            hits[rank] = token_ids[rank] == chosen[row];
            verdict.is_open[row] &= !hits[rank];
        }
        verdict.left_over[row] = 1.0 - std::min(sum, 1.0);
        verdict.off_spine[row] = static_cast<int64_t>(side);
        if (regressions.parameters != nullptr) learn(regressions, side, row, log_probs, believed, hits, width);
        on_spine &= token_ids[0] == chosen[row];
        if (guesses.places == nullptr) continue;
        const int64_t* found = std::find(token_ids, token_ids + guesses.num_ranks, chosen[row]);
        if (found == token_ids + guesses.num_ranks) return row + 1;  // below a foreign token nothing is known
        predecessor = static_cast<size_t>(guesses.places[start + static_cast<size_t>(found - token_ids)]);
    }
    return row;
}

}  // namespace hoarfrost
