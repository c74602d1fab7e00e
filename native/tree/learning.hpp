// What a round teaches of the drafter's guesses: for every round, and hence not in Python.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hoarfrost {

// A drafter's guesses for one sequence: log_probs, token_ids, places [horizon, num_predecessors, num_ranks]; places null: one predecessor.
struct GuessTable {
    const float* log_probs;
    const int64_t* token_ids;
    const int32_t* places;
    size_t horizon, num_predecessors, num_ranks;
};

// Logistic regressions in the making (hoarfrost.tree.calibration): parameters [2, 2, num_depths], slopes and intercepts, on the spine and off it;
// information [2, 2, 2, num_depths], the Fisher information of each. Null parameters: probabilities are believed as they are.
struct Regressions {
    float* parameters;
    double* information;
    size_t num_depths;
};

// Of the rows of a walk that the guesses reach: the best `width` candidates below each. drafted, believed, hits [rows, width]; off_spine [rows].
// Of all `length` rows: left_over, the probability that these candidates left over, and is_open, whether the choice was none of them.
struct Verdict {
    double* drafted;
    double* believed;
    bool* hits;
    int64_t* off_spine;
    double* left_over;
    bool* is_open;
};

// Judges the guesses below the visited rows by the tokens `chosen [length]` there, and then learns from them. Returns the rows that the guesses
// reach. `width` is at most the ranks of the table.
size_t judge_walk(const GuessTable& guesses, const int64_t* chosen, size_t length, size_t width, const Regressions& regressions,
                  const Verdict& verdict);

}  // namespace hoarfrost
