#include "bindings/walk_bindings.hpp"

#include <algorithm>

#include "bindings/bindings.hpp"
#include "logits/noise.hpp"
#include "tree/walk.hpp"

namespace hoarfrost {

namespace {

TreeLinks checked_links(const Input<int32_t, 1>& parents, const Input<int64_t, 1>& token_ids, size_t num_choices) {
    require(parents.size() > 0 && token_ids.size() == parents.size() && num_choices == parents.size(),
            "Every row of the tree needs a parent, a token and a choice.");
    return {parents.data(), token_ids.data(), parents.size()};
}

Walked walk_along_face(const Input<int32_t, 1>& parents, const Input<int64_t, 1>& token_ids,
                       const nb::ndarray<const int64_t, nb::ndim<1>, nb::device::cpu>& choices) {
    return walk(checked_links(parents, token_ids, choices.size()),
                [&](size_t row, size_t) { return choices.data()[static_cast<int64_t>(row) * choices.stride(0)]; });
}

Walked walk_with_noise_face(const Input<int32_t, 1>& parents, const Input<int64_t, 1>& token_ids, const LogitSource& logits, size_t first_row,
                            float temperature, uint64_t seed, uint64_t first_position, size_t num_threads,
                            const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    return with_rows(logits, [&]<class Logit>(const LogitRows<Logit>& rows) {
        const size_t num_behind = first_row < rows.num_rows ? rows.num_rows - first_row : 0;
        const TreeLinks tree = checked_links(parents, token_ids, std::min(parents.size(), num_behind));
        nb::gil_scoped_release unlocked;
        return walk(tree, [&](size_t row, size_t depth) {
            float score;
            int64_t token_id;
            const LogitRows<Logit> one{rows.data + (first_row + row) * rows.row_stride, 1, rows.row_stride, rows.vocab_size};
            best_with_noise(one, temperature, {seed, first_position + depth}, 1, variant, num_threads, &score, &token_id);
            return token_id;
        });
    });
}

}  // namespace

void bind_walks(nb::module_& module) {
    module.def("walk_along", &walk_along_face, "parents"_a.noconvert(), "token_ids"_a.noconvert(), "choices"_a.noconvert(),
               "Follows the choices of every row from row 0 on: (rows, tokens) accepted, the last token the new bonus.");
    module.def("walk_with_noise", &walk_with_noise_face, "parents"_a.noconvert(), "token_ids"_a.noconvert(), "logits"_a, "first_row"_a,
               "temperature"_a, "seed"_a, "first_position"_a, "num_threads"_a, "instruction_set"_a = nb::none(),
               "The same, where a row's choice is its best token with the noise of its position; only rows on the walk are read.");
}

}  // namespace hoarfrost
