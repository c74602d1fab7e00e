#include "retrieval_bindings.hpp"

#include <algorithm>

#include "bindings.hpp"
#include "retrieval.hpp"

namespace hoarfrost {

namespace {

// The table as it comes from Python, where it is kept.
struct TableArrays {
    const InPlace<int32_t, 2>& token_ids;
    const InPlace<uint8_t, 2>& grades;

    SuccessorTable checked() const {
        require(has_shape(grades, {token_ids.shape(0), token_ids.shape(1)}), "Every successor needs a grade.");
        return {token_ids.data(), grades.data(), token_ids.shape(1)};
    }

    void require_token(int64_t token_id) const {
        require(token_id >= 0 && static_cast<size_t>(token_id) < token_ids.shape(0), "A token lies outside the table of successors.");
    }
};

Output<int64_t> continuation_face(const Repetition& repetition, size_t max_length) {
    Buffer<int64_t> tokens({std::min(max_length, repetition.continuation_length())});
    std::copy_n(repetition.continuation(), tokens.shape[0], tokens.data.get());
    return tokens.to_numpy();
}

Output<float> tail_face(const Shares& shares, size_t first, size_t count) {
    Buffer<float> values({count});
    const std::vector<float>& all = shares.values();
    for (size_t i = 0; i < count; ++i) values.data[i] = all[std::min(first + i, all.size() - 1)];
    return values.to_numpy();
}

void remember_face(const InPlace<int32_t, 2>& successors, const InPlace<uint8_t, 2>& grades, const Input<int64_t, 1>& token_ids,
                   const Input<int64_t, 2>& best, const Input<float, 2>& log_probs, const Input<float, 1>& bounds) {
    const TableArrays arrays{successors, grades};
    const SuccessorTable table = arrays.checked();
    const size_t num_best = best.shape(1);
    require(best.shape(0) == token_ids.size() && has_shape(log_probs, {token_ids.size(), num_best}) && num_best <= table.width,
            "Every token needs as many successors as the table has, or fewer, each with a log-probability.");
    for (size_t row = 0; row < token_ids.size(); ++row) arrays.require_token(token_ids.data()[row]);
    for (size_t row = 0; row < token_ids.size(); ++row)
        remember(table, token_ids.data()[row], best.data() + row * num_best, log_probs.data() + row * num_best, num_best,
                 {bounds.data(), bounds.size()});
}

void judge_sources_face(const InPlace<int32_t, 2>& successors, const InPlace<uint8_t, 2>& grades, Shares& successor_shares,
                        Shares& path_shares, const Input<int64_t, 1>& path, size_t matched, int64_t root, const std::vector<int64_t>& chosen,
                        const std::optional<Input<double, 1>>& left_over, const std::optional<Input<bool, 1>>& is_open) {
    const TableArrays arrays{successors, grades};
    const SuccessorTable table = arrays.checked();
    require(!left_over || left_over->size() == chosen.size(), "Every row of the walk needs what was left over.");
    require(!is_open || is_open->size() == chosen.size(), "Every row of the walk is open or is not.");
    std::vector<int64_t> row_tokens{root};
    row_tokens.insert(row_tokens.end(), chosen.begin(), chosen.end());
    for (size_t row = 0; row < chosen.size(); ++row) arrays.require_token(row_tokens[row]);
    const WalkedRows rows{row_tokens.data(), chosen.data(), left_over ? left_over->data() : nullptr, is_open ? is_open->data() : nullptr,
                          chosen.size()};
    judge_successors(table, rows, successor_shares);
    judge_path(path.data(), path.size(), matched, rows, path_shares);
}

}  // namespace

void bind_retrieval(nb::module_& module) {
    nb::class_<Repetition>(module, "Repetition")
        .def(nb::init<>())
        .def("extend", [](Repetition& self, const std::vector<int64_t>& token_ids) { self.extend(token_ids.data(), token_ids.size()); },
             "token_ids"_a)
        .def("longest_match", [](const Repetition& self) { return std::pair(self.longest_match().length, self.longest_match().end); })
        .def("continuation", &continuation_face, "max_length"_a)
        .def("__len__", &Repetition::size);
    nb::class_<Shares>(module, "Shares")
        .def("__init__", [](Shares* self, std::vector<float> priors, double prior_weight) {
            require(!priors.empty(), "There must be a bucket.");
            new (self) Shares(std::move(priors), prior_weight);
        }, "priors"_a, "prior_weight"_a = 8.0)
        .def("forget", &Shares::forget)
        .def("observe", [](Shares& self, size_t bucket, bool is_hit, double chance) {
            require(bucket < self.values().size(), "There is no such bucket.");
            self.observe(bucket, is_hit, chance);
        }, "bucket"_a, "is_hit"_a, "chance"_a)
        .def_prop_ro("values", [](const Shares& self) {
            return nb::ndarray<nb::numpy, const float>(self.values().data(), {self.values().size()}, nb::find(&self));
        })
        .def("tail", &tail_face, "first"_a, "count"_a);
    module.def("remember", &remember_face, "successors"_a.noconvert(), "grades"_a.noconvert(), "token_ids"_a.noconvert(),
               "best"_a.noconvert(), "log_probs"_a.noconvert(), "bounds"_a.noconvert());
    module.def("judge_sources", &judge_sources_face, "successors"_a.noconvert(), "grades"_a.noconvert(), "successor_shares"_a, "path_shares"_a,
               "path"_a.noconvert(), "matched"_a, "root"_a, "chosen"_a, "left_over"_a.none(), "is_open"_a.none());
}

}  // namespace hoarfrost
