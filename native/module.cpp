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
#include "instruction_set.hpp"
#include "noise.hpp"
#include "page_attention_bindings.hpp"
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
          ancestors_({num_trees, max_rows, num_words_}),
          num_rows_(num_trees),
          needs_more_(num_trees) {}

    void build(size_t index, Candidates& candidates, int64_t bonus_token_id) {
        const size_t row = index * max_rows_;
        const TreeRows rows{token_ids_.data.get() + row, parents_.data.get() + row, depths_.data.get() + row,
                            ancestors_.data.get() + row * num_words_, max_rows_, num_words_};
        const TreeOutcome outcome = build_tree(candidates, bonus_token_id, rows);
        num_rows_[index] = outcome.num_rows;
        needs_more_[index] = outcome.needs_more;
    }

    nb::tuple to_python() {
        return nb::make_tuple(token_ids_.to_numpy(), parents_.to_numpy(), depths_.to_numpy(), ancestors_.to_numpy(), num_rows_,
                              needs_more_);
    }

private:
    size_t max_rows_, num_words_;
    Buffer<int64_t> token_ids_;
    Buffer<int32_t> parents_, depths_;
    Buffer<uint64_t> ancestors_;
    std::vector<size_t> num_rows_;
    std::vector<bool> needs_more_;
};

void check_one_root_each(const std::vector<int64_t>& bonus_token_ids, size_t num_trees) {
    if (bonus_token_ids.size() != num_trees) throw std::invalid_argument("There must be one bonus token per tree.");
}

void check_best_first(const Input<float, 3>& log_probs) {
    const size_t num_ranks = log_probs.shape(2);
    for (size_t i = 0; i < log_probs.size(); ++i) {
        const float value = log_probs.data()[i];
        if (std::isnan(value) || (i % num_ranks != 0 && value > log_probs.data()[i - 1]))
            throw std::invalid_argument("Every row of log_probs must fall from the first entry on and hold no NaN.");
    }
}

nb::tuple build_trees_face(const Input<float, 3>& log_probs, const Input<int64_t, 3>& token_ids,
                           const std::vector<int64_t>& bonus_token_ids, size_t budget, bool has_more) {
    const size_t num_trees = log_probs.shape(0), horizon = log_probs.shape(1), num_ranks = log_probs.shape(2);
    for (size_t axis = 0; axis < 3; ++axis)
        if (token_ids.shape(axis) != log_probs.shape(axis)) throw std::invalid_argument("log_probs and token_ids must be of one shape.");
    if (num_ranks == 0) throw std::invalid_argument("Every depth needs at least one candidate.");
    check_one_root_each(bonus_token_ids, num_trees);
    check_best_first(log_probs);
    TreeArrays trees(num_trees, max_tree_rows(budget, horizon, has_more ? budget : num_ranks));
    {
        nb::gil_scoped_release unlocked;
        for (size_t i = 0; i < num_trees; ++i) {
            const size_t place = i * horizon * num_ranks;
            GivenCandidates candidates(log_probs.data() + place, token_ids.data() + place, horizon, num_ranks, has_more);
            trees.build(i, candidates, bonus_token_ids[i]);
        }
    }
    return trees.to_python();
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
            trees.build(i, candidates, bonus_token_ids[i]);
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
    module.def("top_log_probs", &top_face<float, float>, "logits"_a.noconvert(), "k"_a, "instruction_set"_a = nb::none());
    module.def("top_log_probs_bfloat16", &top_face<BFloat16, uint16_t>, "bits"_a.noconvert(), "k"_a, "instruction_set"_a = nb::none());
    module.def("build_trees", &build_trees_face, "log_probs"_a.noconvert(), "token_ids"_a.noconvert(), "bonus_token_ids"_a,
               "budget"_a, "has_more"_a);
    module.def("build_trees_from_logits", &build_from_logits_face<float, float>, "logits"_a.noconvert(), "bonus_token_ids"_a, "budget"_a,
               "max_width"_a, "instruction_set"_a = nb::none());
    module.def("build_trees_from_bfloat16", &build_from_logits_face<BFloat16, uint16_t>, "bits"_a.noconvert(), "bonus_token_ids"_a,
               "budget"_a, "max_width"_a, "instruction_set"_a = nb::none());
    bind_page_attention(module);
}
