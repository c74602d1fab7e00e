// Python bindings of the page indexes. Results go into arrays that the caller made; shapes, row numbers and slots are checked here, since a
// wrong one would read or write astray. Heads are shared out among threads.
#include "index_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "dci.hpp"
#include "page_index.hpp"
#include "team.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace hoarfrost {

namespace {

template <class Scalar, size_t num_dimensions>
using In = nb::ndarray<const Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

template <class Scalar, size_t num_dimensions>
using Out = nb::ndarray<Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

// The entries of a row side by side, other axes any distance apart.
template <class Stored>
using Strided = nb::ndarray<const Stored, nb::ndim<3>, nb::device::cpu>;

using OptionalName = std::optional<std::string>;

InstructionSet variant_of(const OptionalName& name) { return name ? instruction_set_named(*name) : best_instruction_set(); }

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

template <class Array>
bool has_shape(const Array& array, std::initializer_list<size_t> shape) {
    size_t axis = 0;
    for (const size_t extent : shape)
        if (array.shape(axis++) != extent) return false;
    return true;
}

template <class Key, class Stored>
void sketch_keys_face(const Strided<Stored>& keys, const In<float, 2>& centre, const In<float, 1>& flips,
                      const In<float, 1>& coordinate_scale, Out<uint8_t, 3> codes, Out<uint16_t, 2> factors, Out<int8_t, 3> coordinates,
                      size_t num_threads, const OptionalName& instruction_set) {
    const size_t num_heads = keys.shape(0), num_rows = keys.shape(1), head_dim = keys.shape(2), padded = flips.shape(0);
    const size_t num_coordinates = coordinates.shape(2);
    require(num_rows == 0 || head_dim <= 1 || keys.stride(2) == 1, "The entries of a key must lie side by side.");
    require(padded >= 16 && (padded & (padded - 1)) == 0 && padded >= head_dim, "flips must be a power of two of signs, 16 or more.");
    require(num_coordinates == std::min<size_t>(64, padded), "There must be 64 coordinates, or as many as flips.");
    require(has_shape(centre, {num_heads, head_dim}) && has_shape(coordinate_scale, {num_heads}) &&
                has_shape(codes, {num_heads, num_rows, padded / 8}) && has_shape(factors, {num_heads, num_rows}) &&
                has_shape(coordinates, {num_heads, num_rows, num_coordinates}),
            "Keys, centre and sketches must fit each other.");
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        const Key* data = reinterpret_cast<const Key*>(keys.data()) + static_cast<std::ptrdiff_t>(head) * keys.stride(0);
        const KeyRows<Key> rows{data, num_rows, static_cast<size_t>(keys.stride(1)), head_dim};
        const size_t first = head * num_rows;
        const SketchRows sketches{codes.data() + first * (padded / 8), factors.data() + first,
                                  coordinates.data() + first * num_coordinates, num_coordinates};
        sketch_keys(rows, centre.data() + head * head_dim, Rotation{flips.data(), padded}, coordinate_scale.data()[head], variant,
                    sketches);
    });
}

void group_similar_face(const Strided<int8_t>& coordinates, size_t page_size, Out<int32_t, 2> rows, size_t num_threads,
                        const OptionalName& instruction_set) {
    const size_t num_heads = coordinates.shape(0), num_rows = coordinates.shape(1), width = coordinates.shape(2);
    require(page_size > 0 && num_rows % page_size == 0, "The number of rows must be a multiple of the page size.");
    require(width <= 64 && has_shape(rows, {num_heads, num_rows}), "Coordinates and rows must fit each other.");
    require(num_rows <= 1 || (coordinates.stride(2) == 1 && coordinates.stride(1) == static_cast<int64_t>(width)),
            "The rows of a head must lie one after the other.");
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        group_similar(coordinates.data() + static_cast<std::ptrdiff_t>(head) * coordinates.stride(0), num_rows, width, page_size, variant,
                      rows.data() + head * num_rows);
    });
}

void lay_out_sketches_face(const In<uint8_t, 3>& codes, const In<uint16_t, 2>& factors, const In<int32_t, 3>& rows, Out<uint8_t, 5> blocks,
                           Out<uint16_t, 4> placed, size_t num_threads) {
    const size_t num_heads = codes.shape(0), num_rows = codes.shape(1), num_bytes = codes.shape(2);
    const size_t num_pages = rows.shape(1), page_size = rows.shape(2), num_units = (page_size + unit_rows - 1) / unit_rows;
    require(has_shape(factors, {num_heads, num_rows}) && rows.shape(0) == num_heads &&
                has_shape(blocks, {num_heads, num_pages, num_units, num_bytes, unit_rows}) &&
                has_shape(placed, {num_heads, num_pages, num_units, unit_rows}),
            "Sketches, rows and blocks must fit each other.");
    for (size_t i = 0; i < rows.size(); ++i)
        require(rows.data()[i] < 0 || static_cast<size_t>(rows.data()[i]) < num_rows, "A page names a row that has no sketch.");
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        const size_t first = head * num_pages * num_units * unit_rows;
        lay_out_sketches(codes.data() + head * num_rows * num_bytes, factors.data() + head * num_rows,
                         rows.data() + head * num_pages * page_size, num_pages, page_size, num_bytes, blocks.data() + first * num_bytes,
                         placed.data() + first);
    });
}

void check_counts(const int32_t* counts, size_t size, size_t page_size) {
    for (size_t i = 0; i < size; ++i)
        require(counts[i] >= 0 && static_cast<size_t>(counts[i]) <= page_size, "A page has more rows than fit.");
}

void estimate_log_masses_face(const In<uint8_t, 5>& blocks, const In<uint16_t, 4>& factors, const In<int32_t, 2>& counts,
                              const In<float, 3>& queries, const In<float, 1>& flips, float weight, Out<float, 3> log_masses,
                              size_t num_threads, const OptionalName& instruction_set) {
    const size_t num_heads = blocks.shape(0), capacity = blocks.shape(1), num_units = blocks.shape(2), num_bytes = blocks.shape(3);
    const size_t num_pages = counts.shape(1), num_queries = queries.shape(1), head_dim = queries.shape(2), padded = flips.shape(0);
    require(padded == num_bytes * 8 && num_bytes % 2 == 0 && head_dim <= padded && blocks.shape(4) == unit_rows && num_pages <= capacity,
            "Blocks, flips and queries must fit each other.");
    require(has_shape(factors, {num_heads, capacity, num_units, unit_rows}) && counts.shape(0) == num_heads &&
                queries.shape(0) == num_heads && has_shape(log_masses, {num_heads, num_queries, num_pages}),
            "Blocks, counts, queries and masses must fit each other.");
    check_counts(counts.data(), counts.size(), num_units * unit_rows);
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        const size_t first = head * capacity * num_units * unit_rows;
        const SketchPages pages{blocks.data() + first * num_bytes, factors.data() + first, num_units, num_bytes};
        estimate_log_masses(pages, counts.data() + head * num_pages, num_pages, queries.data() + head * num_queries * head_dim, num_queries,
                            head_dim, Rotation{flips.data(), padded}, weight, variant, log_masses.data() + head * num_queries * num_pages);
    });
}

template <class Key, class Stored>
KeySlots<Key> slots_of(const Strided<Stored>& pool) {
    const size_t page_size = pool.shape(1), head_dim = pool.shape(2);
    require(pool.size() == 0 || ((head_dim == 1 || pool.stride(2) == 1) &&
                                 (page_size == 1 || pool.stride(1) == static_cast<int64_t>(head_dim)) && pool.stride(0) >= 0),
            "The keys of a page must lie side by side.");
    return {reinterpret_cast<const Key*>(pool.data()), pool.shape(0), static_cast<size_t>(pool.stride(0)), page_size, head_dim};
}

void check_slots(const int64_t* slots, const int32_t* counts, size_t num_pages, size_t num_slots) {
    for (size_t page = 0; page < num_pages; ++page)
        require(counts[page] == 0 || static_cast<uint64_t>(slots[page]) < num_slots, "A page lies outside the pool.");
}

// Several sets of queries per head, each of which searches for itself: queries [heads, sets, queries, entries].
template <class Key, class Stored>
void search_pages_face(const In<uint8_t, 5>& blocks, const In<uint16_t, 4>& factors, const In<float, 1>& flips,
                       const In<int32_t, 2>& counts, const Strided<Stored>& pool, const In<int64_t, 2>& slots, const In<float, 4>& queries,
                       const std::optional<In<float, 3>>& resident, float scale, size_t num_candidates, Out<int32_t, 3> chosen,
                       size_t num_threads, const OptionalName& instruction_set) {
    const size_t num_heads = blocks.shape(0), capacity = blocks.shape(1), num_units = blocks.shape(2), num_bytes = blocks.shape(3);
    const size_t num_pages = counts.shape(1), num_sets = queries.shape(1), num_queries = queries.shape(2), padded = flips.shape(0);
    const KeySlots<Key> keys = slots_of<Key>(pool);
    require(blocks.shape(4) == unit_rows && padded == num_bytes * 8 && num_bytes % 2 == 0 && keys.head_dim <= padded &&
                keys.page_size <= num_units * unit_rows && num_pages <= capacity,
            "Blocks, flips, counts and keys must fit each other.");
    require(has_shape(factors, {num_heads, capacity, num_units, unit_rows}) && counts.shape(0) == num_heads &&
                slots.shape(0) == num_heads && slots.shape(1) >= num_pages &&
                has_shape(queries, {num_heads, num_sets, num_queries, keys.head_dim}) &&
                (!resident || has_shape(*resident, {num_heads, num_sets, num_queries})) && chosen.shape(0) == num_heads &&
                chosen.shape(1) == num_sets,
            "Blocks, pages, queries and results must fit each other.");
    check_counts(counts.data(), counts.size(), keys.page_size);
    for (size_t head = 0; head < num_heads; ++head)
        check_slots(slots.data() + head * slots.shape(1), counts.data() + head * num_pages, num_pages, keys.num_slots);
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads * num_sets, num_threads, [&](size_t set) {
        const size_t head = set / num_sets, first = head * capacity * num_units * unit_rows;
        const SketchedKeys<Key> held{{blocks.data() + first * num_bytes, factors.data() + first, num_units, num_bytes},
                                     {flips.data(), padded},
                                     counts.data() + head * num_pages,
                                     num_pages,
                                     keys,
                                     slots.data() + head * slots.shape(1)};
        search_pages(held, queries.data() + set * num_queries * keys.head_dim, num_queries, scale,
                     resident ? resident->data() + set * num_queries : nullptr, num_candidates, chosen.shape(2), variant,
                     chosen.data() + set * chosen.shape(2));
    });
}

template <class Key, class Stored>
void page_log_masses_face(const Strided<Stored>& pool, const In<int64_t, 2>& slots, const In<int32_t, 2>& counts,
                          const In<int32_t, 2>& pages, const In<float, 3>& queries, Out<float, 3> log_masses, size_t num_threads,
                          const OptionalName& instruction_set) {
    const size_t num_heads = counts.shape(0), num_pages = counts.shape(1), num_chosen = pages.shape(1), num_queries = queries.shape(1);
    const KeySlots<Key> keys = slots_of<Key>(pool);
    const size_t page_size = keys.page_size, head_dim = keys.head_dim;
    require(slots.shape(0) == num_heads && slots.shape(1) >= num_pages && pages.shape(0) == num_heads &&
                has_shape(queries, {num_heads, num_queries, head_dim}) && has_shape(log_masses, {num_heads, num_queries, num_chosen}),
            "Slots, pages, queries and masses must fit each other.");
    check_counts(counts.data(), counts.size(), page_size);
    std::vector<ScoredPage> scored(num_heads * num_chosen, ScoredPage{0, 0});
    for (size_t i = 0; i < scored.size(); ++i) {
        const int32_t page = pages.data()[i];
        if (page < 0) continue;
        require(static_cast<size_t>(page) < num_pages, "A page lies outside the table.");
        const size_t head = i / num_chosen;
        const int32_t count = counts.data()[head * num_pages + static_cast<size_t>(page)];
        const int64_t slot = slots.data()[head * slots.shape(1) + static_cast<size_t>(page)];
        if (count == 0) continue;
        require(slot >= 0 && static_cast<size_t>(slot) < pool.shape(0), "A page lies outside the pool.");
        scored[i] = {slot, count};
    }
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        exact_log_masses(keys, scored.data() + head * num_chosen, num_chosen, queries.data() + head * num_queries * head_dim, num_queries,
                         variant, log_masses.data() + head * num_queries * num_chosen);
    });
}

void total_log_masses_face(const In<float, 3>& log_masses, Out<float, 2> totals, const OptionalName& instruction_set) {
    require(has_shape(totals, {log_masses.shape(0), log_masses.shape(1)}), "Masses and totals must fit each other.");
    nb::gil_scoped_release unlocked;
    total_log_masses(log_masses.data(), totals.size(), log_masses.shape(2), variant_of(instruction_set), totals.data());
}

void rank_pages_face(const In<float, 3>& log_masses, const In<float, 2>& totals, Out<int32_t, 2> places, size_t num_threads,
                     const OptionalName& instruction_set) {
    const size_t num_heads = log_masses.shape(0), num_queries = log_masses.shape(1), num_pages = log_masses.shape(2);
    require(has_shape(totals, {num_heads, num_queries}) && places.shape(0) == num_heads, "Masses and totals must fit each other.");
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        rank_pages(log_masses.data() + head * num_queries * num_pages, totals.data() + head * num_queries, num_queries, num_pages,
                   places.shape(1), variant, places.data() + head * places.shape(1));
    });
}

template <class Key, class Stored>
KeyRows<Key> rows_of_head(const Strided<Stored>& keys, size_t head) {
    require(keys.shape(1) == 0 || keys.shape(2) <= 1 || keys.stride(2) == 1, "The entries of a key must lie side by side.");
    const Key* data = reinterpret_cast<const Key*>(keys.data()) + static_cast<std::ptrdiff_t>(head) * keys.stride(0);
    return {data, keys.shape(1), static_cast<size_t>(keys.stride(1)), keys.shape(2)};
}

template <class Key, class Stored>
void largest_squared_lengths_face(const Strided<Stored>& keys, Out<float, 1> lengths, size_t num_threads,
                                  const OptionalName& instruction_set) {
    require(has_shape(lengths, {keys.shape(0)}), "Keys and lengths must fit each other.");
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(keys.shape(0), num_threads,
                 [&](size_t head) { lengths.data()[head] = largest_squared_length(rows_of_head<Key>(keys, head), variant); });
}

template <class Key, class Stored>
void lift_keys_face(const Strided<Stored>& keys, const In<float, 1>& squared_radii, Out<int16_t, 3> lifted, size_t num_threads,
                    const OptionalName& instruction_set) {
    const size_t width = lifted.shape(2);
    require(has_shape(squared_radii, {keys.shape(0)}) && has_shape(lifted, {keys.shape(0), keys.shape(1), width}) &&
                width % 2 == 0 && width > keys.shape(2),
            "Keys, radii and lifted keys must fit each other.");
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(keys.shape(0), num_threads, [&](size_t head) {
        lift_keys(rows_of_head<Key>(keys, head), squared_radii.data()[head], width, variant, lifted.data() + head * keys.shape(1) * width);
    });
}

void nearest_pivots_face(const In<int16_t, 2>& points, const In<int16_t, 2>& pivots, Out<int32_t, 1> nearest, size_t num_threads,
                         const OptionalName& instruction_set) {
    const size_t num_points = points.shape(0), width = points.shape(1);
    require(pivots.shape(0) > 0 && pivots.shape(1) == width && width % 2 == 0 && has_shape(nearest, {num_points}),
            "There must be a pivot, and points and pivots must be of one even width.");
    const InstructionSet variant = variant_of(instruction_set);
    constexpr size_t points_per_task = 4096;
    nb::gil_scoped_release unlocked;
    parallel_for((num_points + points_per_task - 1) / points_per_task, num_threads, [&](size_t task) {
        const size_t first = task * points_per_task, count = std::min(points_per_task, num_points - first);
        nearest_pivots({points.data() + first * width, count, width}, {pivots.data(), pivots.shape(0), width}, variant,
                       nearest.data() + first);
    });
}

void project_rows_face(const In<int16_t, 2>& rows, const In<int16_t, 1>& direction, Out<int32_t, 1> projections,
                       const OptionalName& instruction_set) {
    require(has_shape(direction, {rows.shape(1)}) && has_shape(projections, {rows.shape(0)}), "Rows and direction must fit each other.");
    nb::gil_scoped_release unlocked;
    project_rows({rows.data(), rows.shape(0), rows.shape(1)}, direction.data(), variant_of(instruction_set), projections.data());
}

size_t cut_cells_face(const In<int32_t, 1>& rows, const In<int32_t, 1>& cells, size_t num_cells, const In<int32_t, 1>& projections,
                      Out<int32_t, 2> pages, Out<int32_t, 1> owners) {
    const size_t num_rows = rows.shape(0), page_size = pages.shape(1);
    require(has_shape(cells, {num_rows}) && page_size > 0 && has_shape(owners, {pages.shape(0)}) &&
                pages.shape(0) >= num_rows / page_size + std::min(num_cells, num_rows),
            "Rows, cells and pages must fit each other.");
    for (size_t i = 0; i < num_rows; ++i)
        require(static_cast<uint32_t>(rows.data()[i]) < projections.shape(0) && static_cast<uint32_t>(cells.data()[i]) < num_cells,
                "A row has no projection, or a cell is not there.");
    return cut_cells(rows.data(), cells.data(), num_rows, num_cells, projections.data(), page_size, pages.data(), owners.data());
}

void merge_by_rank_face(const In<float, 4>& scores, const In<int32_t, 2>& counts, Out<int32_t, 3> chosen) {
    const size_t num_heads = scores.shape(0), num_sets = scores.shape(1), num_queries = scores.shape(2), num_pages = scores.shape(3);
    require(has_shape(counts, {num_heads, num_pages}) && chosen.shape(0) == num_heads && chosen.shape(1) == num_sets,
            "Scores, counts and results must fit each other.");
    for (size_t set = 0; set < num_heads * num_sets; ++set)
        merge_by_rank(scores.data() + set * num_queries * num_pages, num_queries, counts.data() + set / num_sets * num_pages, num_pages,
                      chosen.shape(2), chosen.data() + set * chosen.shape(2));
}

// All but the rows and the cells they name, which the search checks as it meets them.
void check_tree(const In<int32_t, 1>& starts, const In<int32_t, 1>& cell_pages, const In<int32_t, 1>& counts, size_t page_size,
                const In<int64_t, 1>& slots, size_t num_slots) {
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
void search_tree_face(const In<int32_t, 1>& cell_starts, const In<int32_t, 1>& cell_pages, const In<int32_t, 1>& child_cells,
                      const In<int32_t, 1>& projections, const In<int32_t, 2>& page_rows, const In<int32_t, 1>& counts,
                      const Strided<Stored>& pool, const In<int64_t, 1>& slots, const In<float, 2>& queries,
                      const In<int32_t, 1>& projected, size_t field_of_view, double scored_share, size_t batch, Out<float, 2> scores,
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
    const InstructionSet variant = variant_of(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_queries, num_threads, [&](size_t query) {
        search_tree(tree, keys, slots.data(), queries.data() + query * head_dim, projected.data()[query],
                    DciBreadth{field_of_view, scored_share, batch}, variant, scores.data() + query * num_pages);
    });
}

template <class Key, class Stored>
void bind_key_kernels(nb::module_& module, const std::string& suffix) {
    module.def(("index_sketch_keys" + suffix).c_str(), &sketch_keys_face<Key, Stored>, "keys"_a.noconvert(), "centre"_a.noconvert(),
               "flips"_a.noconvert(), "coordinate_scale"_a.noconvert(), "codes"_a.noconvert(), "factors"_a.noconvert(),
               "coordinates"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none());
    module.def(("index_page_log_masses" + suffix).c_str(), &page_log_masses_face<Key, Stored>, "pool"_a.noconvert(), "slots"_a.noconvert(),
               "counts"_a.noconvert(), "pages"_a.noconvert(), "queries"_a.noconvert(), "log_masses"_a.noconvert(), "num_threads"_a,
               "instruction_set"_a = nb::none());
    module.def(("index_largest_squared_lengths" + suffix).c_str(), &largest_squared_lengths_face<Key, Stored>, "keys"_a.noconvert(),
               "lengths"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none());
    module.def(("index_lift_keys" + suffix).c_str(), &lift_keys_face<Key, Stored>, "keys"_a.noconvert(), "squared_radii"_a.noconvert(),
               "lifted"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none());
    module.def(("index_search_pages" + suffix).c_str(), &search_pages_face<Key, Stored>, "blocks"_a.noconvert(), "factors"_a.noconvert(),
               "flips"_a.noconvert(), "counts"_a.noconvert(), "pool"_a.noconvert(), "slots"_a.noconvert(), "queries"_a.noconvert(),
               "resident"_a.none(), "scale"_a, "num_candidates"_a, "chosen"_a.noconvert(), "num_threads"_a,
               "instruction_set"_a = nb::none());
    module.def(("index_search_tree" + suffix).c_str(), &search_tree_face<Key, Stored>, "cell_starts"_a.noconvert(),
               "cell_pages"_a.noconvert(), "child_cells"_a.noconvert(), "projections"_a.noconvert(), "page_rows"_a.noconvert(),
               "counts"_a.noconvert(), "pool"_a.noconvert(), "slots"_a.noconvert(), "queries"_a.noconvert(), "projected"_a.noconvert(),
               "field_of_view"_a, "scored_share"_a, "batch"_a, "scores"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none());
}

}  // namespace

void bind_index(nb::module_& module) {
    bind_key_kernels<float, float>(module, "");
    bind_key_kernels<BFloat16, uint16_t>(module, "_bfloat16");
    module.def("index_group_similar", &group_similar_face, "coordinates"_a.noconvert(), "page_size"_a, "rows"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none());
    module.def("index_lay_out_sketches", &lay_out_sketches_face, "codes"_a.noconvert(), "factors"_a.noconvert(), "rows"_a.noconvert(),
               "blocks"_a.noconvert(), "placed"_a.noconvert(), "num_threads"_a);
    module.def("index_estimate_log_masses", &estimate_log_masses_face, "blocks"_a.noconvert(), "factors"_a.noconvert(),
               "counts"_a.noconvert(), "queries"_a.noconvert(), "flips"_a.noconvert(), "weight"_a, "log_masses"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none());
    module.def("index_nearest_pivots", &nearest_pivots_face, "points"_a.noconvert(), "pivots"_a.noconvert(), "nearest"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none());
    module.def("index_project_rows", &project_rows_face, "rows"_a.noconvert(), "direction"_a.noconvert(), "projections"_a.noconvert(),
               "instruction_set"_a = nb::none());
    module.def("index_cut_cells", &cut_cells_face, "rows"_a.noconvert(), "cells"_a.noconvert(), "num_cells"_a, "projections"_a.noconvert(),
               "pages"_a.noconvert(), "owners"_a.noconvert());
    module.def("index_merge_by_rank", &merge_by_rank_face, "scores"_a.noconvert(), "counts"_a.noconvert(), "chosen"_a.noconvert());
    module.def("index_total_log_masses", &total_log_masses_face, "log_masses"_a.noconvert(), "totals"_a.noconvert(),
               "instruction_set"_a = nb::none());
    module.def("index_rank_pages", &rank_pages_face, "log_masses"_a.noconvert(), "totals"_a.noconvert(), "places"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none());
}

}  // namespace hoarfrost
