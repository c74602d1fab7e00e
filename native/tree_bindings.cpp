#include "tree_bindings.hpp"

#include <algorithm>
#include <cmath>

#include "bindings.hpp"
#include "candidates.hpp"
#include "tree.hpp"

namespace hoarfrost {

namespace {

// The arrays of several trees with room for `max_rows` rows each.
class TreeArrays {
public:
    TreeArrays(size_t num_trees, size_t max_rows)
        : max_rows_(max_rows),
          num_words_((max_rows + 63) / 64),
          token_ids_({num_trees, max_rows}),
          parents_({num_trees, max_rows}),
          depths_({num_trees, max_rows}),
          log_probs_({num_trees, max_rows}),
          ancestors_({num_trees, max_rows, num_words_}),
          num_rows_(num_trees),
          needs_more_(num_trees) {}

    void build(size_t index, Candidates& candidates, const Calibration& calibration, const Extras& extras, int64_t bonus_token_id) {
        const size_t row = index * max_rows_;
        const TreeRows rows{token_ids_.data.get() + row, parents_.data.get() + row,   depths_.data.get() + row,
                            log_probs_.data.get() + row, ancestors_.data.get() + row * num_words_, max_rows_, num_words_};
        const TreeOutcome outcome = build_tree(candidates, calibration, extras, bonus_token_id, rows);
        num_rows_[index] = outcome.num_rows;
        needs_more_[index] = outcome.needs_more;
    }

    nb::tuple to_python() {
        return nb::make_tuple(token_ids_.to_numpy(), parents_.to_numpy(), depths_.to_numpy(), log_probs_.to_numpy(),
                              ancestors_.to_numpy(), num_rows_, needs_more_);
    }

private:
    size_t max_rows_, num_words_;
    Buffer<int64_t> token_ids_;
    Buffer<int32_t> parents_, depths_;
    Buffer<float> log_probs_;
    Buffer<uint64_t> ancestors_;
    std::vector<size_t> num_rows_;
    std::vector<bool> needs_more_;
};

void check_one_root_each(const std::vector<int64_t>& bonus_token_ids, size_t num_trees) {
    if (bonus_token_ids.size() != num_trees) throw std::invalid_argument("There must be one bonus token per tree.");
}

void check_best_first(const Input<float, 4>& log_probs) {
    const size_t num_ranks = log_probs.shape(3);
    for (size_t i = 0; i < log_probs.size(); ++i) {
        const float value = log_probs.data()[i];
        if (std::isnan(value) || (i % num_ranks != 0 && value > log_probs.data()[i - 1]))
            throw std::invalid_argument("Every row of log_probs must fall from the first entry on and hold no NaN.");
    }
}

// What the search may use beside the candidates, as it comes from Python.
struct Hints {
    std::optional<Input<float, 3>> calibration;  // [slopes and intercepts, on the spine and off, depths]
    std::vector<Input<int64_t, 1>> paths;        // one per tree
    std::vector<Input<float, 1>> path_shares;    // one per tree
    std::optional<Input<int32_t, 2>> successors;
    std::optional<Input<uint8_t, 2>> grades;  // as the successors
    std::optional<Input<float, 1>> grade_shares;
    std::vector<size_t> max_depths;  // one per tree
    std::vector<std::pair<uint64_t, uint64_t>> noise;  // one per tree, or none: seed and position of depth 1

    bool has_extras() const { return !paths.empty() || successors; }

    void check(size_t num_trees, size_t horizon) const {
        if (calibration && (calibration->shape(0) != 2 || calibration->shape(1) != 2 || calibration->shape(2) < horizon))
            throw std::invalid_argument("The calibration must be [2, 2, depths], with every depth of the candidates.");
        if (paths.size() != path_shares.size() || (!paths.empty() && paths.size() != num_trees))
            throw std::invalid_argument("There must be one path per tree, each with its shares.");
        for (size_t i = 0; i < paths.size(); ++i)
            if (paths[i].size() != path_shares[i].size()) throw std::invalid_argument("Every token of a path needs a share.");
        if (successors.has_value() != grades.has_value() || successors.has_value() != grade_shares.has_value() ||
            (successors && (successors->shape(0) != grades->shape(0) || successors->shape(1) != grades->shape(1) || grade_shares->size() == 0)))
            throw std::invalid_argument("Every successor needs a grade, and the grades need shares.");
        if (has_extras() && max_depths.size() != num_trees) throw std::invalid_argument("Every tree needs a greatest depth.");
        if (!noise.empty() && noise.size() != num_trees) throw std::invalid_argument("Every tree needs its noise, or none does.");
    }

    Calibration calibration_for_all() const {
        if (!calibration) return {};
        const size_t num_depths = calibration->shape(2);
        return {calibration->data(), calibration->data() + 2 * num_depths, num_depths};
    }

    Extras extras_of(size_t tree) const {
        Extras extras;
        if (!has_extras()) return extras;
        extras.max_depth = max_depths[tree];
        if (!noise.empty()) {
            extras.has_noise = true;
            std::tie(extras.seed, extras.first_position) = noise[tree];
        }
        if (!paths.empty()) {
            extras.path = paths[tree].data();
            extras.path_shares = path_shares[tree].data();
            extras.path_length = paths[tree].size();
        }
        if (successors) {
            extras.successors = successors->data();
            extras.grades = grades->data();
            extras.grade_shares = grade_shares->data();
            extras.num_grades = grade_shares->size();
            extras.vocab_size = successors->shape(0);
            extras.num_successors = successors->shape(1);
        }
        return extras;
    }
};

nb::tuple build_trees_face(const Input<float, 4>& log_probs, const Input<int64_t, 4>& token_ids,
                           const std::optional<Input<int32_t, 4>>& places, const std::vector<int64_t>& bonus_token_ids, size_t budget,
                           bool has_more, const Hints& hints) {
    const size_t num_trees = log_probs.shape(0), horizon = log_probs.shape(1);
    const size_t num_predecessors = log_probs.shape(2), num_ranks = log_probs.shape(3);
    for (size_t axis = 0; axis < 4; ++axis)
        if (token_ids.shape(axis) != log_probs.shape(axis) || (places && places->shape(axis) != log_probs.shape(axis)))
            throw std::invalid_argument("log_probs, token_ids and places must be of one shape.");
    if (num_ranks == 0 || num_predecessors == 0) throw std::invalid_argument("Every depth needs at least one candidate.");
    if (places)
        for (size_t i = 0; i < places->size(); ++i)
            if (places->data()[i] < 0 || static_cast<size_t>(places->data()[i]) >= num_predecessors)
                throw std::invalid_argument("Every place must name a predecessor of the next depth.");
    check_one_root_each(bonus_token_ids, num_trees);
    check_best_first(log_probs);
    hints.check(num_trees, horizon);
    const size_t width = has_more || places ? budget : num_ranks;
    TreeArrays trees(num_trees, hints.has_extras() ? budget + 1 : max_tree_rows(budget, horizon, width));
    {
        nb::gil_scoped_release unlocked;
        for (size_t i = 0; i < num_trees; ++i) {
            const size_t start = i * horizon * num_predecessors * num_ranks;
            GivenCandidates candidates(log_probs.data() + start, token_ids.data() + start, places ? places->data() + start : nullptr, horizon,
                                       num_predecessors, num_ranks, has_more);
            trees.build(i, candidates, hints.calibration_for_all(), hints.extras_of(i), bonus_token_ids[i]);
        }
    }
    return trees.to_python();
}

template <class Logit, class Stored>
nb::tuple build_from_logits_face(const std::vector<LogitArray<Stored>>& logits, const std::vector<int64_t>& bonus_token_ids, size_t budget,
                                 size_t max_width, const Hints& hints, const OptionalName& instruction_set) {
    check_one_root_each(bonus_token_ids, logits.size());
    const InstructionSet variant = chosen(instruction_set);
    std::vector<LogitRows<Logit>> rows;
    size_t max_rows = hints.has_extras() ? budget + 1 : 1, horizon = 0;
    for (const auto& one : logits) {
        rows.push_back(rows_of<Logit, Stored>(one));
        horizon = std::max(horizon, rows.back().num_rows);
        max_rows = std::max(max_rows, max_tree_rows(budget, rows.back().num_rows, std::min(max_width, rows.back().vocab_size)));
    }
    hints.check(logits.size(), horizon);
    TreeArrays trees(logits.size(), max_rows);
    {
        nb::gil_scoped_release unlocked;
        for (size_t i = 0; i < rows.size(); ++i) {
            LogitCandidates<Logit> candidates(rows[i], max_width, variant);
            trees.build(i, candidates, hints.calibration_for_all(), hints.extras_of(i), bonus_token_ids[i]);
        }
    }
    return trees.to_python();
}

}  // namespace

void bind_trees(nb::module_& module) {
    nb::class_<Hints>(module, "TreeHints")
        .def("__init__", [](Hints* self, std::optional<Input<float, 3>> calibration, std::vector<Input<int64_t, 1>> paths,
                            std::vector<Input<float, 1>> path_shares, std::optional<Input<int32_t, 2>> successors,
                            std::optional<Input<uint8_t, 2>> grades, std::optional<Input<float, 1>> grade_shares,
                            std::vector<size_t> max_depths,
                            std::vector<std::pair<uint64_t, uint64_t>> noise) {
            new (self) Hints{std::move(calibration), std::move(paths), std::move(path_shares), std::move(successors),
                             std::move(grades), std::move(grade_shares), std::move(max_depths), std::move(noise)};
        }, "calibration"_a = nb::none(), "paths"_a = nb::list(), "path_shares"_a = nb::list(), "successors"_a = nb::none(),
           "grades"_a = nb::none(), "grade_shares"_a = nb::none(), "max_depths"_a = nb::list(), "noise"_a = nb::list());
    module.def("build_trees", &build_trees_face, "log_probs"_a.noconvert(), "token_ids"_a.noconvert(), "places"_a.noconvert().none(),
               "bonus_token_ids"_a, "budget"_a, "has_more"_a, "hints"_a);
    module.def("build_trees_from_logits", &build_from_logits_face<float, float>, "logits"_a.noconvert(), "bonus_token_ids"_a, "budget"_a,
               "max_width"_a, "hints"_a, "instruction_set"_a = nb::none());
    module.def("build_trees_from_bfloat16", &build_from_logits_face<BFloat16, uint16_t>, "bits"_a.noconvert(), "bonus_token_ids"_a,
               "budget"_a, "max_width"_a, "hints"_a, "instruction_set"_a = nb::none());
}

}  // namespace hoarfrost
