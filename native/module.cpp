// Python bindings. The faces in src/hoarfrost/native check what users can get wrong; here is checked what would make a kernel read astray.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "candidates.hpp"
#include "decoder_bindings.hpp"
#include "index_bindings.hpp"
#include "instruction_set.hpp"
#include "noise.hpp"
#include "page_attention_bindings.hpp"
#include "suffix.hpp"
#include "top_k.hpp"
#include "tree.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace hoarfrost {

namespace {

template <class Scalar, size_t num_dimensions>
using Input = nb::ndarray<const Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

template <class Scalar>
using Output = nb::ndarray<nb::numpy, Scalar>;

using OptionalName = std::optional<std::string>;

InstructionSet chosen(const OptionalName& name) { return name ? instruction_set_named(*name) : best_instruction_set(); }

// Fresh memory that becomes the numpy array that owns it; filled while the interpreter lock is released.
template <class Scalar>
struct Buffer {
    explicit Buffer(std::vector<size_t> shape) : shape(std::move(shape)) {
        size_t count = 1;
        for (const size_t extent : this->shape) count *= extent;
        data = std::make_unique_for_overwrite<Scalar[]>(count);
    }

    Output<Scalar> to_numpy() {
        Scalar* pointer = data.release();
        nb::capsule owner(pointer, [](void* memory) noexcept { delete[] static_cast<Scalar*>(memory); });
        return Output<Scalar>(pointer, shape.size(), shape.data(), owner);
    }

    std::vector<size_t> shape;
    std::unique_ptr<Scalar[]> data;
};

Output<uint64_t> noise_bits_face(uint64_t seed, uint64_t position, const Input<int64_t, 1>& token_ids,
                                 const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    Buffer<uint64_t> bits({token_ids.size()});
    {
        nb::gil_scoped_release unlocked;
        noise_bits(noise_stream(seed, position), token_ids.data(), token_ids.size(), variant, bits.data.get());
    }
    return bits.to_numpy();
}

Output<float> gumbel_face(uint64_t seed, uint64_t position, const int64_t* token_ids, size_t count, const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    Buffer<float> values({count});
    {
        nb::gil_scoped_release unlocked;
        gumbel_noise(noise_stream(seed, position), token_ids, count, variant, values.data.get());
    }
    return values.to_numpy();
}

Output<float> gumbel_rows_face(uint64_t seed, uint64_t first_position, const Input<int64_t, 2>& token_ids,
                               const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    const size_t num_rows = token_ids.shape(0), count = token_ids.shape(1);
    Buffer<float> values({num_rows, count});
    {
        nb::gil_scoped_release unlocked;
        for (size_t row = 0; row < num_rows; ++row)
            gumbel_noise(noise_stream(seed, first_position + row), token_ids.data() + row * count, count, variant, values.data.get() + row * count);
    }
    return values.to_numpy();
}

template <class Stored>
using LogitArray = nb::ndarray<const Stored, nb::ndim<2>, nb::device::cpu>;

template <class Logit, class Stored>
LogitRows<Logit> rows_of(const LogitArray<Stored>& logits) {
    if (logits.shape(1) == 0) throw std::invalid_argument("The logits have no columns.");
    if (logits.size() > 0 && logits.shape(1) > 1 && logits.stride(1) != 1)
        throw std::invalid_argument("The entries of a row of logits must lie side by side.");
    return {reinterpret_cast<const Logit*>(logits.data()), logits.shape(0), static_cast<size_t>(logits.stride(0)), logits.shape(1)};
}

template <class Logit, class Stored>
nb::tuple top_face(const LogitArray<Stored>& logits, size_t k, const OptionalName& instruction_set) {
    const LogitRows<Logit> rows = rows_of<Logit, Stored>(logits);
    if (k < 1 || k > rows.vocab_size)
        throw std::invalid_argument("k is " + std::to_string(k) + "; it must lie in 1.." + std::to_string(rows.vocab_size) + ".");
    const InstructionSet variant = chosen(instruction_set);
    Buffer<float> log_probs({rows.num_rows, k});
    Buffer<int64_t> token_ids({rows.num_rows, k});
    {
        nb::gil_scoped_release unlocked;
        top_log_probs(rows, k, variant, log_probs.data.get(), token_ids.data.get());
    }
    return nb::make_tuple(log_probs.to_numpy(), token_ids.to_numpy());
}

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
    std::optional<Input<float, 1>> successor_shares;
    std::vector<size_t> max_depths;  // one per tree

    bool has_extras() const { return !paths.empty() || successors; }

    void check(size_t num_trees, size_t horizon) const {
        if (calibration && (calibration->shape(0) != 2 || calibration->shape(1) != 2 || calibration->shape(2) < horizon))
            throw std::invalid_argument("The calibration must be [2, 2, depths], with every depth of the candidates.");
        if (paths.size() != path_shares.size() || (!paths.empty() && paths.size() != num_trees))
            throw std::invalid_argument("There must be one path per tree, each with its shares.");
        for (size_t i = 0; i < paths.size(); ++i)
            if (paths[i].size() != path_shares[i].size()) throw std::invalid_argument("Every token of a path needs a share.");
        if (successors.has_value() != successor_shares.has_value() || (successors && successors->shape(1) != successor_shares->size()))
            throw std::invalid_argument("Every rank of the successors needs a share.");
        if (has_extras() && max_depths.size() != num_trees) throw std::invalid_argument("Every tree needs a greatest depth.");
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
        if (!paths.empty()) {
            extras.path = paths[tree].data();
            extras.path_shares = path_shares[tree].data();
            extras.path_length = paths[tree].size();
        }
        if (successors) {
            extras.successors = successors->data();
            extras.successor_shares = successor_shares->data();
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

}  // namespace hoarfrost

NB_MODULE(_native, module) {
    using namespace hoarfrost;
    module.def("instruction_sets", &instruction_set_names);
    module.def("noise_bits", &noise_bits_face, "seed"_a, "position"_a, "token_ids"_a.noconvert(), "instruction_set"_a = nb::none());
    module.def(
        "gumbel_noise",
        [](uint64_t seed, uint64_t position, const Input<int64_t, 1>& token_ids, const OptionalName& instruction_set) {
            return gumbel_face(seed, position, token_ids.data(), token_ids.size(), instruction_set);
        },
        "seed"_a, "position"_a, "token_ids"_a.noconvert(), "instruction_set"_a = nb::none());
    module.def(
        "gumbel_noise_range",
        [](uint64_t seed, uint64_t position, size_t vocab_size, const OptionalName& instruction_set) {
            return gumbel_face(seed, position, nullptr, vocab_size, instruction_set);
        },
        "seed"_a, "position"_a, "vocab_size"_a, "instruction_set"_a = nb::none());
    module.def("gumbel_noise_rows", &gumbel_rows_face, "seed"_a, "first_position"_a, "token_ids"_a.noconvert(),
               "instruction_set"_a = nb::none());
    nb::class_<SuffixIndex>(module, "SuffixIndex")
        .def(nb::init<>())
        .def("extend", [](SuffixIndex& index, const Input<int64_t, 1>& token_ids) { index.extend(token_ids.data(), token_ids.size()); },
             "token_ids"_a)
        .def("longest_match", [](const SuffixIndex& index) {
            const SuffixMatch match = index.longest_match();
            return nb::make_tuple(match.length, match.end);
        })
        .def("__len__", &SuffixIndex::size);
    module.def("top_log_probs", &top_face<float, float>, "logits"_a.noconvert(), "k"_a, "instruction_set"_a = nb::none());
    module.def("top_log_probs_bfloat16", &top_face<BFloat16, uint16_t>, "bits"_a.noconvert(), "k"_a, "instruction_set"_a = nb::none());
    nb::class_<Hints>(module, "TreeHints")
        .def("__init__", [](Hints* self, std::optional<Input<float, 3>> calibration, std::vector<Input<int64_t, 1>> paths,
                            std::vector<Input<float, 1>> path_shares, std::optional<Input<int32_t, 2>> successors,
                            std::optional<Input<float, 1>> successor_shares, std::vector<size_t> max_depths) {
            new (self) Hints{std::move(calibration), std::move(paths), std::move(path_shares), std::move(successors),
                             std::move(successor_shares), std::move(max_depths)};
        }, "calibration"_a = nb::none(), "paths"_a = nb::list(), "path_shares"_a = nb::list(), "successors"_a = nb::none(),
           "successor_shares"_a = nb::none(), "max_depths"_a = nb::list());
    module.def("build_trees", &build_trees_face, "log_probs"_a.noconvert(), "token_ids"_a.noconvert(), "places"_a.noconvert().none(),
               "bonus_token_ids"_a, "budget"_a, "has_more"_a, "hints"_a);
    module.def("build_trees_from_logits", &build_from_logits_face<float, float>, "logits"_a.noconvert(), "bonus_token_ids"_a, "budget"_a,
               "max_width"_a, "hints"_a, "instruction_set"_a = nb::none());
    module.def("build_trees_from_bfloat16", &build_from_logits_face<BFloat16, uint16_t>, "bits"_a.noconvert(), "bonus_token_ids"_a,
               "budget"_a, "max_width"_a, "hints"_a, "instruction_set"_a = nb::none());
    bind_page_attention(module);
    bind_decoder(module);
    bind_index(module);
}
