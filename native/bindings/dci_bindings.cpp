// Python bindings of the DCI index's kernels. As in index_bindings.cpp, results go into arrays that the caller made.
#include "bindings/dci_bindings.hpp"

#include "pages/dci.hpp"
#include "bindings/index_arrays.hpp"
#include "base/team.hpp"

namespace hoarfrost {

namespace {

template <class Key, class Stored>
KeyRows<Key> rows_of_head(const Strided<Stored>& keys, size_t head) {
    require(keys.shape(1) == 0 || keys.shape(2) <= 1 || keys.stride(2) == 1, "The entries of a key must lie side by side.");
    const Key* data = reinterpret_cast<const Key*>(keys.data()) + static_cast<std::ptrdiff_t>(head) * keys.stride(0);
    return {data, keys.shape(1), static_cast<size_t>(keys.stride(1)), keys.shape(2)};
}

template <class Key, class Stored>
void largest_squared_lengths_face(const Strided<Stored>& keys, InPlace<float, 1> lengths, size_t num_threads,
                                  const OptionalName& instruction_set) {
    require(has_shape(lengths, {keys.shape(0)}), "Keys and lengths must fit each other.");
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(keys.shape(0), num_threads,
                 [&](size_t head) { lengths.data()[head] = largest_squared_length(rows_of_head<Key>(keys, head), variant); });
}

template <class Key, class Stored>
void lift_keys_face(const Strided<Stored>& keys, const Input<float, 1>& squared_radii, const Input<int16_t, 1>& direction,
                    InPlace<int16_t, 3> lifted, InPlace<int32_t, 2> projections, size_t num_threads, const OptionalName& instruction_set) {
    const size_t num_heads = keys.shape(0), num_rows = keys.shape(1), width = lifted.shape(2);
    require(has_shape(squared_radii, {num_heads}) && has_shape(direction, {width}) && has_shape(lifted, {num_heads, num_rows, width}) &&
                has_shape(projections, {num_heads, num_rows}) && width % 2 == 0 && width > keys.shape(2),
            "Keys, radii, direction, lifted keys and projections must fit each other.");
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        lift_keys(rows_of_head<Key>(keys, head), squared_radii.data()[head], width, direction.data(), variant,
                  lifted.data() + head * num_rows * width, projections.data() + head * num_rows);
    });
}

void nearest_pivots_face(const Input<int16_t, 2>& points, const Input<int16_t, 2>& pivots, InPlace<int32_t, 1> nearest, size_t num_threads,
                         const OptionalName& instruction_set) {
    const size_t num_points = points.shape(0), width = points.shape(1);
    require(pivots.shape(0) > 0 && pivots.shape(1) == width && width % 2 == 0 && has_shape(nearest, {num_points}),
            "There must be a pivot, and points and pivots must be of one even width.");
    const InstructionSet variant = chosen(instruction_set);
    constexpr size_t points_per_task = 4096;
    nb::gil_scoped_release unlocked;
    const PivotFinder finder({pivots.data(), pivots.shape(0), width}, num_points, variant);
    parallel_for((num_points + points_per_task - 1) / points_per_task, num_threads, [&](size_t task) {
        const size_t first = task * points_per_task, count = std::min(points_per_task, num_points - first);
        finder.find({points.data() + first * width, count, width}, nearest.data() + first);
    });
}

size_t cut_cells_face(const Input<int32_t, 1>& rows, const Input<int32_t, 1>& cells, size_t num_cells, const Input<int32_t, 1>& projections,
                      InPlace<int32_t, 2> pages, InPlace<int32_t, 1> owners) {
    const size_t num_rows = rows.shape(0), page_size = pages.shape(1);
    require(has_shape(cells, {num_rows}) && page_size > 0 && has_shape(owners, {pages.shape(0)}) &&
                pages.shape(0) >= num_rows / page_size + std::min(num_cells, num_rows),
            "Rows, cells and pages must fit each other.");
    for (size_t i = 0; i < num_rows; ++i)
        require(static_cast<uint32_t>(rows.data()[i]) < projections.shape(0) && static_cast<uint32_t>(cells.data()[i]) < num_cells,
                "A row has no projection, or a cell is not there.");
    return cut_cells(rows.data(), cells.data(), num_rows, num_cells, projections.data(), page_size, pages.data(), owners.data());
}

void merge_by_rank_face(const Input<float, 4>& scores, const Input<int32_t, 2>& counts, InPlace<int32_t, 3> chosen) {
    const size_t num_heads = scores.shape(0), num_sets = scores.shape(1), num_queries = scores.shape(2), num_pages = scores.shape(3);
    require(has_shape(counts, {num_heads, num_pages}) && chosen.shape(0) == num_heads && chosen.shape(1) == num_sets,
            "Scores, counts and results must fit each other.");
    for (size_t set = 0; set < num_heads * num_sets; ++set)
        merge_by_rank(scores.data() + set * num_queries * num_pages, num_queries, counts.data() + set / num_sets * num_pages, num_pages,
                      chosen.shape(2), chosen.data() + set * chosen.shape(2));
}

// All but the rows and the cells they name, which the search checks as it meets them.
void check_tree(const Input<int32_t, 1>& starts, const Input<int32_t, 1>& cell_pages, const Input<int32_t, 1>& counts, size_t page_size,
                const Input<int64_t, 1>& slots, size_t num_slots) {
    const int32_t num_cells = static_cast<int32_t>(starts.shape(0)) - 1, num_pages = static_cast<int32_t>(counts.shape(0));
    require(num_cells >= 1 && starts.data()[0] == 0 && starts.data()[num_cells] == static_cast<int32_t>(cell_pages.shape(0)),
            "The cells must start at 0 and end with their pages.");
    for (int32_t cell = 0; cell < num_cells; ++cell)
        require(starts.data()[cell] <= starts.data()[cell + 1], "Cells must follow each other.");
    for (size_t i = 0; i < cell_pages.size(); ++i)
        require(cell_pages.data()[i] >= 0 && cell_pages.data()[i] < num_pages, "A cell names a page outside the table.");
    check_counts(counts.data(), counts.size(), page_size);
    check_slots(slots.data(), counts.data(), counts.size(), num_slots);
}

template <class Key, class Stored>
void search_tree_face(const Input<int32_t, 1>& cell_starts, const Input<int32_t, 1>& cell_pages, const Input<int32_t, 1>& child_cells,
                      const Input<int32_t, 1>& projections, const Input<int32_t, 2>& page_rows, const Input<int32_t, 1>& counts,
                      const Strided<Stored>& pool, const Input<int64_t, 1>& slots, const Input<float, 2>& queries,
                      const Input<int32_t, 1>& projected, size_t field_of_view, double scored_share, size_t batch, InPlace<float, 2> scores,
                      size_t num_threads, const OptionalName& instruction_set) {
    const KeySlots<Key> keys = slots_of<Key>(pool);
    const size_t num_pages = counts.shape(0), num_queries = queries.shape(0), page_size = keys.page_size, head_dim = keys.head_dim;
    require(has_shape(projections, {child_cells.shape(0)}) && has_shape(page_rows, {num_pages, page_size}) && slots.shape(0) >= num_pages &&
                queries.shape(1) == head_dim && has_shape(projected, {num_queries}) && has_shape(scores, {num_queries, num_pages}),
            "Tree, pages, queries and scores must fit each other.");
    require(field_of_view > 0 && batch > 0 && scored_share > 0.0 && scored_share <= 1.0, "A search needs some breadth.");
    check_tree(cell_starts, cell_pages, counts, page_size, slots, pool.shape(0));
    const DciTree tree{cell_starts.data(), cell_pages.data(), cell_starts.shape(0) - 1, child_cells.data(), projections.data(),
                       child_cells.shape(0), page_rows.data(), counts.data(), num_pages};
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_queries, num_threads, [&](size_t query) {
        search_tree(tree, keys, slots.data(), queries.data() + query * head_dim, projected.data()[query],
                    DciBreadth{field_of_view, scored_share, batch}, variant, scores.data() + query * num_pages);
    });
}

template <class Key, class Stored>
void bind_dci_key_kernels(nb::module_& module, const std::string& suffix) {
    module.def(("index_largest_squared_lengths" + suffix).c_str(), &largest_squared_lengths_face<Key, Stored>, "keys"_a.noconvert(),
               "lengths"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none(),
               "The largest squared length of each head's keys.");
    module.def(("index_lift_keys" + suffix).c_str(), &lift_keys_face<Key, Stored>, "keys"_a.noconvert(), "squared_radii"_a.noconvert(),
               "direction"_a.noconvert(), "lifted"_a.noconvert(), "projections"_a.noconvert(), "num_threads"_a,
               "instruction_set"_a = nb::none(), "Keys in 16 bits with one coordinate more that makes them equally long, and their projections.");
    module.def(("index_search_tree" + suffix).c_str(), &search_tree_face<Key, Stored>, "cell_starts"_a.noconvert(),
               "cell_pages"_a.noconvert(), "child_cells"_a.noconvert(), "projections"_a.noconvert(), "page_rows"_a.noconvert(),
               "counts"_a.noconvert(), "pool"_a.noconvert(), "slots"_a.noconvert(), "queries"_a.noconvert(), "projected"_a.noconvert(),
               "field_of_view"_a, "scored_share"_a, "batch"_a, "scores"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none(),
               "Scores of the pages that a search of one head's tree comes by.");
}

}  // namespace

void bind_dci(nb::module_& module) {
    bind_dci_key_kernels<float, float>(module, "");
    bind_dci_key_kernels<BFloat16, uint16_t>(module, "_bfloat16");
    module.def("index_nearest_pivots", &nearest_pivots_face, "points"_a.noconvert(), "pivots"_a.noconvert(), "nearest"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none(), "The nearest pivot of each point.");
    module.def("index_cut_cells", &cut_cells_face, "rows"_a.noconvert(), "cells"_a.noconvert(), "num_cells"_a, "projections"_a.noconvert(),
               "pages"_a.noconvert(), "owners"_a.noconvert(), "Cuts cells of rows into pages along their projections; returns how many.");
    module.def("index_merge_by_rank", &merge_by_rank_face, "scores"_a.noconvert(), "counts"_a.noconvert(), "chosen"_a.noconvert(),
               "The pages that rank best over the queries of a set.");
}

}  // namespace hoarfrost
