#include "bindings/learning_bindings.hpp"

#include "tree/learning.hpp"

namespace hoarfrost {

namespace {

// drafted, believed, hits, off_spine, left_over, is_open
using Judged = std::tuple<Output<double>, Output<double>, Output<bool>, Output<int64_t>, Output<double>, Output<bool>>;

Judged judge_walk_face(const Input<float, 3>& log_probs, const Input<int64_t, 3>& token_ids, const std::optional<Input<int32_t, 3>>& places,
                          const Input<int64_t, 1>& chosen, size_t width, const std::optional<InPlace<float, 3>>& parameters,
                          const std::optional<InPlace<double, 4>>& information) {
    const GuessTable guesses{log_probs.data(),   token_ids.data(),   places ? places->data() : nullptr,
                             log_probs.shape(0), log_probs.shape(1), log_probs.shape(2)};
    for (size_t axis = 0; axis < 3; ++axis)
        if (token_ids.shape(axis) != log_probs.shape(axis) || (places && places->shape(axis) != log_probs.shape(axis)))
            throw std::invalid_argument("log_probs, token_ids and places must be of one shape.");
    if (guesses.num_predecessors == 0 || guesses.num_ranks == 0) throw std::invalid_argument("Every depth needs at least one candidate.");
    if (places)
        for (size_t i = 0; i < places->size(); ++i)
            if (places->data()[i] < 0 || static_cast<size_t>(places->data()[i]) >= guesses.num_predecessors)
                throw std::invalid_argument("Every place must name a predecessor of the next depth.");
    Regressions regressions{nullptr, nullptr, 0};
    if (parameters) {
        const size_t num_depths = parameters->shape(2);
        if (!information || parameters->shape(0) != 2 || parameters->shape(1) != 2 || information->size() != 8 * num_depths ||
            num_depths < guesses.horizon)
            throw std::invalid_argument("The parameters must be [2, 2, depths] and the information [2, 2, 2, depths], of every depth guessed at.");
        regressions = {parameters->data(), information->data(), num_depths};
    }
    const size_t length = chosen.size(), num_rows = std::min(guesses.horizon, length);
    width = std::min(width, guesses.num_ranks);
    Buffer<double> drafted({num_rows, width}), believed({num_rows, width}), left_over({length});
    Buffer<bool> hits({num_rows, width}), is_open({length});
    Buffer<int64_t> off_spine({num_rows});
    const size_t reached = judge_walk(guesses, chosen.data(), length, width, regressions,
                                      {drafted.data.get(), believed.data.get(), hits.data.get(), off_spine.data.get(), left_over.data.get(),
                                       is_open.data.get()});
    for (auto* shape : {&drafted.shape, &believed.shape, &hits.shape, &off_spine.shape}) shape->front() = reached;
    return {drafted.to_numpy(), believed.to_numpy(), hits.to_numpy(), off_spine.to_numpy(), left_over.to_numpy(), is_open.to_numpy()};
}

}  // namespace

void bind_learning(nb::module_& module) {
    module.def("judge_walk", &judge_walk_face, "log_probs"_a, "token_ids"_a, "places"_a.none(), "chosen"_a, "width"_a,
               "parameters"_a.noconvert().none(), "information"_a.noconvert().none(),
               "What a walk says about the guesses on it: (drafted, believed, hits, off_spine, left_over, is_open), row by row.");
}

}  // namespace hoarfrost
