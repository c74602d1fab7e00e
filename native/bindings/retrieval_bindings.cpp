#include "bindings/retrieval_bindings.hpp"

#include <algorithm>

#include "bindings/bindings.hpp"
#include "tree/retrieval.hpp"

namespace hoarfrost {

namespace {

void require_token(const SuccessorTable& table, int64_t token_id) {
    require(table.has(token_id), "A token lies outside the table of successors.");
}

Output<int64_t> path_face(const Repetition& repetition) {
    const std::span<const int64_t> path = repetition.path();
    Buffer<int64_t> tokens({path.size()});
    std::copy(path.begin(), path.end(), tokens.data.get());
    return tokens.to_numpy();
}

void remember_face(SuccessorTable& table, const Input<int64_t, 1>& token_ids, const Input<int64_t, 2>& best, const Input<float, 2>& log_probs) {
    const size_t num_best = best.shape(1);
    require(best.shape(0) == token_ids.size() && has_shape(log_probs, {token_ids.size(), num_best}) && num_best <= table.width(),
            "Every token needs as many successors as the table has, or fewer, each with a log-probability.");
    for (size_t row = 0; row < token_ids.size(); ++row) require_token(table, token_ids.data()[row]);
    for (size_t row = 0; row < token_ids.size(); ++row)
        table.remember(token_ids.data()[row], best.data() + row * num_best, log_probs.data() + row * num_best, num_best);
}

void observe_face(SourceShares& shares, const SuccessorTable& table, const Repetition& repetition, int64_t root,
                  const std::vector<int64_t>& chosen, const std::optional<Input<double, 1>>& left_over,
                  const std::optional<Input<bool, 1>>& is_open) {
    require(!left_over || left_over->size() == chosen.size(), "Every row of the walk needs what was left over.");
    require(!is_open || is_open->size() == chosen.size(), "Every row of the walk is open or is not.");
    std::vector<int64_t> row_tokens{root};
    row_tokens.insert(row_tokens.end(), chosen.begin(), chosen.end());
    for (size_t row = 0; row < chosen.size(); ++row) require_token(table, row_tokens[row]);
    shares.observe(table, repetition, {row_tokens.data(), chosen.data(), left_over ? left_over->data() : nullptr,
                                       is_open ? is_open->data() : nullptr, chosen.size()});
}

// Memory of a native object as an array that keeps it alive.
template <class Owner, class Scalar>
nb::ndarray<nb::numpy, Scalar> view(const Owner& owner, Scalar* data, std::initializer_list<size_t> shape) {
    return nb::ndarray<nb::numpy, Scalar>(data, shape, nb::find(&owner));
}

}  // namespace

void bind_retrieval(nb::module_& module) {
    nb::class_<Repetition>(module, "Repetition", "The tokens so far, and where their end occurred before.")
        .def(nb::init<>())
        .def_ro_static("MAX_PATH", &Repetition::max_path, "The most tokens that `path` gives.")
        .def("extend", [](Repetition& self, const std::vector<int64_t>& token_ids) { self.extend(token_ids.data(), token_ids.size()); },
             "token_ids"_a, "Appends tokens.")
        .def("longest_match", [](const Repetition& self) { return std::pair(self.longest_match().length, self.longest_match().end); },
             "The length of the longest end that occurred before, and where that ended.")
        .def("path", &path_face, "The tokens that followed it there.")
        .def("__len__", &Repetition::size);
    nb::class_<SuccessorTable>(module, "SuccessorTable",
                               "For every token, the best tokens behind it as they were last seen, with a grade for how likely they were.")
        .def(nb::init<size_t, size_t, std::vector<float>>(), "vocab_size"_a, "width"_a, "bounds"_a)
        .def("remember", &remember_face, "token_ids"_a.noconvert(), "best"_a.noconvert(), "log_probs"_a.noconvert(),
             "Takes in the best successors of tokens, with their log-probabilities.")
        .def_prop_ro("token_ids", [](SuccessorTable& self) { return view(self, self.token_ids().data(), {self.vocab_size(), self.width()}); })
        .def_prop_ro("grades", [](SuccessorTable& self) { return view(self, self.grades().data(), {self.vocab_size(), self.width()}); });
    nb::class_<SourceShares>(module, "SourceShares", "How often guesses from the table and from repetition came true, by grade and by length.")
        .def("__init__", [](SourceShares* self, std::vector<float> successors, std::vector<float> paths, double prior_weight) {
            require(!successors.empty() && !paths.empty(), "There must be a bucket.");
            new (self) SourceShares{Shares(std::move(successors), prior_weight), Shares(std::move(paths), prior_weight)};
        }, "successors"_a, "paths"_a, "prior_weight"_a)
        .def("observe", &observe_face, "table"_a, "repetition"_a, "root"_a, "chosen"_a, "left_over"_a = nb::none(), "is_open"_a = nb::none(),
             "Takes in a walk: from `root` over the tokens chosen.")
        .def_prop_ro("successors", [](const SourceShares& self) {
            return view(self, self.successors.values().data(), {self.successors.values().size()});
        })
        .def_prop_ro("paths", [](const SourceShares& self) { return view(self, self.paths.values().data(), {self.paths.values().size()}); });
}

}  // namespace hoarfrost
