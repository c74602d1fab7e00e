#include "bindings/tree_bindings.hpp"

#include <cmath>
#include <tuple>

#include "tree/allocation.hpp"
#include "bindings/bindings.hpp"
#include "tree/candidates.hpp"
#include "tree/tree.hpp"

namespace hoarfrost {

namespace {

// token_ids, parents, depths, ancestors and log_probs of one tree
using Tree = std::tuple<Output<int64_t>, Output<int32_t>, Output<int32_t>, Output<uint64_t>, Output<float>>;

// The arrays of one tree in the making, with room for `max_rows` rows.
class TreeArrays {
public:
    explicit TreeArrays(size_t max_rows)
        : max_rows_(max_rows),
          num_words_((max_rows + 63) / 64),
          token_ids_({max_rows}),
          parents_({max_rows}),
          depths_({max_rows}),
          log_probs_({max_rows}),
          ancestors_({max_rows, num_words_}) {}

    TreeRows rows() {
        return {token_ids_.data.get(), parents_.data.get(),   depths_.data.get(), log_probs_.data.get(),
                ancestors_.data.get(), max_rows_, num_words_};
    }

    // The first `num_rows` rows.
    Tree to_python(size_t num_rows) {
        for (auto* shape : {&token_ids_.shape, &parents_.shape, &depths_.shape, &log_probs_.shape, &ancestors_.shape}) shape->front() = num_rows;
        ancestors_.shape.back() = (num_rows + 63) / 64;
        return {token_ids_.to_numpy(), parents_.to_numpy(), depths_.to_numpy(), ancestors_.to_numpy({static_cast<int64_t>(num_words_), 1}),
                log_probs_.to_numpy()};
    }

private:
    size_t max_rows_, num_words_;
    Buffer<int64_t> token_ids_;
    Buffer<int32_t> parents_, depths_;
    Buffer<float> log_probs_;
    Buffer<uint64_t> ancestors_;
};

// What the search for one tree may use beside the candidates, as it comes from Python.
struct Hints {
    std::optional<Input<float, 3>> calibration_values;  // [slopes and intercepts, on the spine and off, depths]
    const SuccessorTable* table;
    const Repetition* repetition;
    const SourceShares* shares;
    size_t max_depth;
    std::optional<std::pair<uint64_t, uint64_t>> noise;  // seed and position of depth 1

    void check(size_t horizon) const {
        require(!calibration_values || (has_shape(*calibration_values, {2, 2}) && calibration_values->shape(2) >= horizon),
                "The calibration must be [2, 2, depths], with every depth of the candidates.");
    }

    Calibration calibration() const {
        if (!calibration_values) return {};
        const size_t num_depths = calibration_values->shape(2);
        return {calibration_values->data(), calibration_values->data() + 2 * num_depths, num_depths};
    }

    Extras extras() const {
        Extras extras{table, repetition, shares, max_depth};
        if (noise) {
            extras.has_noise = true;
            std::tie(extras.seed, extras.first_position) = *noise;
        }
        return extras;
    }
};

const Hints no_hints{};

// Candidates of one sequence, best first in every row: log_probs, token_ids and places [horizon, num_predecessors, num_ranks].
using CandidateArrays = std::tuple<Strided<float>, Strided<int64_t>, std::optional<Strided<int32_t>>>;

template <class Scalar>
GivenCandidates::Rows<Scalar> candidate_rows(const Strided<Scalar>& array) {
    require(array.shape(2) == 1 || array.size() == 0 || array.stride(2) == 1, "The candidates of a row must lie side by side.");
    return {array.data(), array.stride(0), array.stride(1)};
}

GivenCandidates checked_candidates(const CandidateArrays& arrays, bool has_more) {
    const auto& [log_probs, token_ids, places] = arrays;
    const size_t horizon = log_probs.shape(0), num_predecessors = log_probs.shape(1), num_ranks = log_probs.shape(2);
    require(has_shape(token_ids, {horizon, num_predecessors, num_ranks}) && (!places || has_shape(*places, {horizon, num_predecessors, num_ranks})),
            "log_probs, token_ids and places must be of one shape.");
    require(num_ranks > 0 && num_predecessors > 0, "Every depth needs at least one candidate.");
    const auto scores = candidate_rows(log_probs);
    const auto following = places ? candidate_rows(*places) : GivenCandidates::Rows<int32_t>{};
    for (size_t depth = 0; depth < horizon; ++depth)
        for (size_t predecessor = 0; predecessor < num_predecessors; ++predecessor) {
            const float* row = scores.at(depth, predecessor);
            const int32_t* next = following.at(depth, predecessor);
            for (size_t rank = 0; rank < num_ranks; ++rank) {
                require(!std::isnan(row[rank]) && (rank == 0 || row[rank] <= row[rank - 1]),
                        "Every row of log_probs must fall from the first entry on and hold no NaN.");
                require(next == nullptr || (next[rank] >= 0 && static_cast<size_t>(next[rank]) < num_predecessors),
                        "Every place must name a predecessor of the next depth.");
            }
        }
    return GivenCandidates(scores, candidate_rows(token_ids), following, horizon, num_predecessors, num_ranks, has_more);
}

// One tree per sequence in the making, from sorted candidates.
class Forest {
public:
    Forest(const std::vector<CandidateArrays>& candidates, const std::vector<int64_t>& bonus_token_ids, size_t budget, bool has_more,
           const std::vector<const Hints*>& hints) {
        const size_t num_trees = candidates.size();
        require(bonus_token_ids.size() == num_trees, "There must be one bonus token per tree.");
        require(hints.empty() || hints.size() == num_trees, "Every tree needs its hints, or none does.");
        candidates_.reserve(num_trees);  // growers refer to them
        for (size_t i = 0; i < num_trees; ++i) {
            const Hints& own = hints.empty() ? no_hints : *hints[i];
            const Extras extras = own.extras();
            const auto& [log_probs, token_ids, places] = candidates[i];
            own.check(log_probs.shape(0));
            candidates_.push_back(checked_candidates(candidates[i], has_more));
            const size_t width = has_more || places ? budget : log_probs.shape(2);
            arrays_.emplace_back(extras.empty() ? max_tree_rows(budget, log_probs.shape(0), width) : budget + 1);
            growers_.emplace_back(candidates_[i], own.calibration(), extras, bonus_token_ids[i], arrays_[i].rows());
        }
    }

    std::vector<TreeGrower>& growers() { return growers_; }

    std::vector<Tree> to_python(const std::vector<size_t>& num_rows) {
        std::vector<Tree> trees;
        for (size_t i = 0; i < arrays_.size(); ++i) trees.push_back(arrays_[i].to_python(num_rows[i]));
        return trees;
    }

private:
    std::vector<GivenCandidates> candidates_;
    std::vector<TreeArrays> arrays_;
    std::vector<TreeGrower> growers_;
};

std::pair<std::vector<Tree>, std::vector<bool>> build_trees_face(const std::vector<CandidateArrays>& candidates, const std::vector<int64_t>& bonus_token_ids, size_t budget,
                           bool has_more, const std::vector<const Hints*>& hints) {
    Forest forest(candidates, bonus_token_ids, budget, has_more, hints);
    std::vector<size_t> num_rows;
    std::vector<bool> needs_more;
    {
        nb::gil_scoped_release unlocked;
        for (TreeGrower& grower : forest.growers()) {
            grower.grow();
            num_rows.push_back(grower.num_rows());
            needs_more.push_back(grower.needs_more());
        }
    }
    return {forest.to_python(num_rows), std::move(needs_more)};
}

std::tuple<std::vector<Tree>, double, double> grow_worthwhile_face(const std::vector<CandidateArrays>& candidates, const std::vector<int64_t>& bonus_token_ids,
                               const Input<double, 1>& row_ms, double fixed_ms, const std::vector<const Hints*>& hints) {
    require(!candidates.empty() && row_ms.size() >= candidates.size(),
            "There must be a tree, and the time of a pass over as many rows as there are trees.");
    Forest forest(candidates, bonus_token_ids, row_ms.size() - candidates.size(), false, hints);
    Allocation worth;
    {
        nb::gil_scoped_release unlocked;
        worth = grow_worthwhile(forest.growers(), row_ms.data(), row_ms.size(), fixed_ms);
    }
    return {forest.to_python(worth.num_rows), worth.expected, worth.milliseconds};
}

std::vector<Tree> build_from_logits_face(const std::vector<LogitSource>& logits, const std::vector<int64_t>& bonus_token_ids, size_t budget,
                                size_t max_width, const OptionalName& instruction_set) {
    require(bonus_token_ids.size() == logits.size(), "There must be one bonus token per tree.");
    const InstructionSet variant = chosen(instruction_set);
    std::vector<Tree> grown;
    for (size_t i = 0; i < logits.size(); ++i)
        with_rows(logits[i], [&]<class Logit>(const LogitRows<Logit>& rows) {
            TreeArrays arrays(max_tree_rows(budget, rows.num_rows, std::min(max_width, rows.vocab_size)));
            size_t num_rows;
            {
                nb::gil_scoped_release unlocked;
                LogitCandidates<Logit> candidates(rows, max_width, variant);
                TreeGrower grower(candidates, {}, {}, bonus_token_ids[i], arrays.rows());
                grower.grow();
                num_rows = grower.num_rows();
            }
            grown.push_back(arrays.to_python(num_rows));
        });
    return grown;
}

}  // namespace

void bind_trees(nb::module_& module) {
    nb::class_<Hints>(module, "TreeHints", "What growing one tree may use beside its candidates.")
        .def("__init__", [](Hints* self, std::optional<Input<float, 3>> calibration, const SuccessorTable* table, const Repetition* repetition,
                            const SourceShares* shares, size_t max_depth, std::optional<std::pair<uint64_t, uint64_t>> noise) {
            require((table == nullptr) == (shares == nullptr) && (repetition == nullptr) == (shares == nullptr),
                    "The sources of guesses come together with what they are worth: a table, a repetition and shares, or none of them.");
            new (self) Hints{std::move(calibration), table, repetition, shares, max_depth, noise};
        }, "calibration"_a = nb::none(), "table"_a = nb::none(), "repetition"_a = nb::none(), "shares"_a = nb::none(), "max_depth"_a = 0,
           "noise"_a = nb::none(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>());
    module.def("build_trees", &build_trees_face, "candidates"_a, "bonus_token_ids"_a, "budget"_a, "has_more"_a, "hints"_a,
               "Likeliest trees of sorted candidates, and which of them needed candidates beyond those given. A tree: (token_ids, parents, depths, "
               "ancestors, log_probs).");
    module.def("grow_worthwhile", &grow_worthwhile_face, "candidates"_a, "bonus_token_ids"_a, "row_ms"_a.noconvert(), "fixed_ms"_a, "hints"_a,
               "Trees grown together as long as a row is worth its time; with the tokens expected and the milliseconds of the pass.");
    module.def("build_trees_from_logits", &build_from_logits_face, "logits"_a, "bonus_token_ids"_a, "budget"_a, "max_width"_a,
               "instruction_set"_a = nb::none(), "Likeliest trees of rows of logits, read as far as the search needs them.");
}

}  // namespace hoarfrost
