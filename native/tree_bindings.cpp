#include "tree_bindings.hpp"

#include <algorithm>
#include <cmath>

#include "allocation.hpp"
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

    TreeRows rows_of(size_t index) {
        const size_t row = index * max_rows_;
        return {token_ids_.data.get() + row, parents_.data.get() + row,   depths_.data.get() + row,
                log_probs_.data.get() + row, ancestors_.data.get() + row * num_words_, max_rows_, num_words_};
    }

    void build(size_t index, Candidates& candidates, const Calibration& calibration, const Extras& extras, int64_t bonus_token_id) {
        TreeGrower grower(candidates, calibration, extras, bonus_token_id, rows_of(index));
        grower.grow();
        num_rows_[index] = grower.num_rows();
        needs_more_[index] = grower.needs_more();
    }

    void keep(const std::vector<size_t>& num_rows) { num_rows_ = num_rows; }

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

// What the search for one tree may use beside the candidates, as it comes from Python.
struct Hints {
    std::optional<Input<float, 3>> calibration_values;  // [slopes and intercepts, on the spine and off, depths]
    std::optional<Input<int64_t, 1>> path;
    std::optional<Input<float, 1>> path_shares;
    std::optional<Input<int32_t, 2>> successors;
    std::optional<Input<uint8_t, 2>> grades;  // as the successors
    std::optional<Input<float, 1>> grade_shares;
    std::optional<size_t> max_depth;
    std::optional<std::pair<uint64_t, uint64_t>> noise;  // seed and position of depth 1

    bool has_extras() const { return path || successors; }

    void check(size_t horizon) const {
        require(!calibration_values || (has_shape(*calibration_values, {2, 2}) && calibration_values->shape(2) >= horizon),
                "The calibration must be [2, 2, depths], with every depth of the candidates.");
        require(path.has_value() == path_shares.has_value() && (!path || path->size() == path_shares->size()),
                "Every token of a path needs a share.");
        require(successors.has_value() == grades.has_value() && successors.has_value() == grade_shares.has_value() &&
                    (!successors || (has_shape(*grades, {successors->shape(0), successors->shape(1)}) && grade_shares->size() > 0)),
                "Every successor needs a grade, and the grades need shares.");
        require(!has_extras() || max_depth, "Guesses beside the candidates need a greatest depth.");
    }

    Calibration calibration() const {
        if (!calibration_values) return {};
        const size_t num_depths = calibration_values->shape(2);
        return {calibration_values->data(), calibration_values->data() + 2 * num_depths, num_depths};
    }

    Extras extras() const {
        Extras extras;
        if (!has_extras()) return extras;
        extras.max_depth = *max_depth;
        if (noise) {
            extras.has_noise = true;
            std::tie(extras.seed, extras.first_position) = *noise;
        }
        if (path) {
            extras.path = path->data();
            extras.path_shares = path_shares->data();
            extras.path_length = path->size();
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

const Hints no_hints{};

// Sorted candidates of several sequences, each with hints or none, checked.
class GivenGuesses {
public:
    GivenGuesses(const Input<float, 4>& log_probs, const Input<int64_t, 4>& token_ids, const std::optional<Input<int32_t, 4>>& places,
                 const std::vector<int64_t>& bonus_token_ids, bool has_more, const std::vector<const Hints*>& hints)
        : num_ranks_(log_probs.shape(3)), hints_(hints) {
        const size_t num_trees = log_probs.shape(0), horizon = log_probs.shape(1), num_predecessors = log_probs.shape(2);
        for (size_t axis = 0; axis < 4; ++axis)
            if (token_ids.shape(axis) != log_probs.shape(axis) || (places && places->shape(axis) != log_probs.shape(axis)))
                throw std::invalid_argument("log_probs, token_ids and places must be of one shape.");
        if (num_ranks_ == 0 || num_predecessors == 0) throw std::invalid_argument("Every depth needs at least one candidate.");
        if (places)
            for (size_t i = 0; i < places->size(); ++i)
                if (places->data()[i] < 0 || static_cast<size_t>(places->data()[i]) >= num_predecessors)
                    throw std::invalid_argument("Every place must name a predecessor of the next depth.");
        check_one_root_each(bonus_token_ids, num_trees);
        check_best_first(log_probs);
        if (!hints.empty() && hints.size() != num_trees) throw std::invalid_argument("Every tree needs its hints, or none does.");
        for (const Hints* one : hints) one->check(horizon);
        for (size_t i = 0; i < num_trees; ++i) {
            const size_t start = i * horizon * num_predecessors * num_ranks_;
            candidates_.emplace_back(log_probs.data() + start, token_ids.data() + start, places ? places->data() + start : nullptr, horizon,
                                     num_predecessors, num_ranks_, has_more);
        }
    }

    size_t size() const { return candidates_.size(); }
    size_t num_ranks() const { return num_ranks_; }
    Candidates& candidates(size_t index) { return candidates_[index]; }
    const Hints& hints(size_t index) const { return hints_.empty() ? no_hints : *hints_[index]; }
    bool has_extras() const { return std::any_of(hints_.begin(), hints_.end(), [](const Hints* one) { return one->has_extras(); }); }

private:
    size_t num_ranks_;
    const std::vector<const Hints*>& hints_;
    std::vector<GivenCandidates> candidates_;
};

nb::tuple build_trees_face(const Input<float, 4>& log_probs, const Input<int64_t, 4>& token_ids,
                           const std::optional<Input<int32_t, 4>>& places, const std::vector<int64_t>& bonus_token_ids, size_t budget,
                           bool has_more, const std::vector<const Hints*>& hints) {
    GivenGuesses guesses(log_probs, token_ids, places, bonus_token_ids, has_more, hints);
    const size_t width = has_more || places ? budget : guesses.num_ranks();
    TreeArrays trees(guesses.size(), guesses.has_extras() ? budget + 1 : max_tree_rows(budget, log_probs.shape(1), width));
    {
        nb::gil_scoped_release unlocked;
        for (size_t i = 0; i < guesses.size(); ++i)
            trees.build(i, guesses.candidates(i), guesses.hints(i).calibration(), guesses.hints(i).extras(), bonus_token_ids[i]);
    }
    return trees.to_python();
}

nb::tuple grow_worthwhile_face(const Input<float, 4>& log_probs, const Input<int64_t, 4>& token_ids,
                               const std::optional<Input<int32_t, 4>>& places, const std::vector<int64_t>& bonus_token_ids,
                               const Input<double, 1>& row_ms, double fixed_ms, const std::vector<const Hints*>& hints) {
    GivenGuesses guesses(log_probs, token_ids, places, bonus_token_ids, false, hints);
    require(guesses.size() > 0 && row_ms.size() >= guesses.size(),
            "There must be a tree, and the time of a pass over as many rows as there are trees.");
    TreeArrays trees(guesses.size(), row_ms.size() - guesses.size() + 1);
    std::vector<TreeGrower> growers;
    for (size_t i = 0; i < guesses.size(); ++i)
        growers.emplace_back(guesses.candidates(i), guesses.hints(i).calibration(), guesses.hints(i).extras(), bonus_token_ids[i],
                             trees.rows_of(i));
    Allocation worth;
    {
        nb::gil_scoped_release unlocked;
        worth = grow_worthwhile(growers, row_ms.data(), row_ms.size(), fixed_ms);
    }
    trees.keep(worth.num_rows);
    return nb::make_tuple(trees.to_python(), worth.expected, worth.milliseconds);
}

template <class Logit, class Stored>
nb::tuple build_from_logits_face(const std::vector<LogitArray<Stored>>& logits, const std::vector<int64_t>& bonus_token_ids, size_t budget,
                                 size_t max_width, const OptionalName& instruction_set) {
    check_one_root_each(bonus_token_ids, logits.size());
    const InstructionSet variant = chosen(instruction_set);
    std::vector<LogitRows<Logit>> rows;
    size_t max_rows = 1;
    for (const auto& one : logits) {
        rows.push_back(rows_of<Logit, Stored>(one));
        max_rows = std::max(max_rows, max_tree_rows(budget, rows.back().num_rows, std::min(max_width, rows.back().vocab_size)));
    }
    TreeArrays trees(logits.size(), max_rows);
    {
        nb::gil_scoped_release unlocked;
        for (size_t i = 0; i < rows.size(); ++i) {
            LogitCandidates<Logit> candidates(rows[i], max_width, variant);
            trees.build(i, candidates, {}, {}, bonus_token_ids[i]);
        }
    }
    return trees.to_python();
}

}  // namespace

void bind_trees(nb::module_& module) {
    nb::class_<Hints>(module, "TreeHints")
        .def("__init__", [](Hints* self, std::optional<Input<float, 3>> calibration, std::optional<Input<int64_t, 1>> path,
                            std::optional<Input<float, 1>> path_shares, std::optional<Input<int32_t, 2>> successors,
                            std::optional<Input<uint8_t, 2>> grades, std::optional<Input<float, 1>> grade_shares, std::optional<size_t> max_depth,
                            std::optional<std::pair<uint64_t, uint64_t>> noise) {
            new (self) Hints{std::move(calibration), std::move(path), std::move(path_shares), std::move(successors),
                             std::move(grades), std::move(grade_shares), max_depth, noise};
        }, "calibration"_a = nb::none(), "path"_a = nb::none(), "path_shares"_a = nb::none(), "successors"_a = nb::none(),
           "grades"_a = nb::none(), "grade_shares"_a = nb::none(), "max_depth"_a = nb::none(), "noise"_a = nb::none());
    module.def("build_trees", &build_trees_face, "log_probs"_a.noconvert(), "token_ids"_a.noconvert(), "places"_a.noconvert().none(),
               "bonus_token_ids"_a, "budget"_a, "has_more"_a, "hints"_a);
    module.def("grow_worthwhile", &grow_worthwhile_face, "log_probs"_a.noconvert(), "token_ids"_a.noconvert(), "places"_a.noconvert().none(),
               "bonus_token_ids"_a, "row_ms"_a.noconvert(), "fixed_ms"_a, "hints"_a);
    module.def("build_trees_from_logits", &build_from_logits_face<float, float>, "logits"_a.noconvert(), "bonus_token_ids"_a, "budget"_a,
               "max_width"_a, "instruction_set"_a = nb::none());
    module.def("build_trees_from_bfloat16", &build_from_logits_face<BFloat16, uint16_t>, "bits"_a.noconvert(), "bonus_token_ids"_a,
               "budget"_a, "max_width"_a, "instruction_set"_a = nb::none());
}

}  // namespace hoarfrost
