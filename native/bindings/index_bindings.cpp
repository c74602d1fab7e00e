// Python bindings of the page indexes' kernels (those of DCI: dci_bindings.cpp). Results go into arrays that the caller made; shapes, row
// numbers and slots are checked here, since a wrong one would read or write astray. Heads are shared out among threads.
#include "bindings/index_bindings.hpp"

#include "bindings/index_arrays.hpp"
#include "pages/page_index.hpp"
#include "base/team.hpp"

namespace hoarfrost {

namespace {

template <class Key, class Stored>
void sketch_keys_face(const Strided<Stored>& keys, const Input<float, 2>& centre, const Input<float, 1>& flips,
                      const Input<float, 1>& coordinate_scale, InPlace<uint8_t, 3> codes, InPlace<uint16_t, 2> factors, InPlace<int8_t, 3> coordinates,
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
    const InstructionSet variant = chosen(instruction_set);
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

void group_similar_face(const Strided<int8_t>& coordinates, size_t page_size, InPlace<int32_t, 2> rows, size_t num_threads,
                        const OptionalName& instruction_set) {
    const size_t num_heads = coordinates.shape(0), num_rows = coordinates.shape(1), width = coordinates.shape(2);
    require(page_size > 0 && num_rows % page_size == 0, "The number of rows must be a multiple of the page size.");
    require(width <= 64 && has_shape(rows, {num_heads, num_rows}), "Coordinates and rows must fit each other.");
    require(num_rows <= 1 || (coordinates.stride(2) == 1 && coordinates.stride(1) == static_cast<int64_t>(width)),
            "The rows of a head must lie one after the other.");
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        group_similar(coordinates.data() + static_cast<std::ptrdiff_t>(head) * coordinates.stride(0), num_rows, width, page_size, variant,
                      rows.data() + head * num_rows);
    });
}

void lay_out_sketches_face(const Input<uint8_t, 3>& codes, const Input<uint16_t, 2>& factors, const Input<int32_t, 3>& rows, InPlace<uint8_t, 5> blocks,
                           InPlace<uint16_t, 4> placed, size_t num_threads) {
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

void estimate_log_masses_face(const Input<uint8_t, 5>& blocks, const Input<uint16_t, 4>& factors, const Input<int32_t, 2>& counts,
                              const Input<float, 3>& queries, const Input<float, 1>& flips, float weight, InPlace<float, 3> log_masses,
                              size_t num_threads, const OptionalName& instruction_set) {
    const size_t num_heads = blocks.shape(0), capacity = blocks.shape(1), num_units = blocks.shape(2), num_bytes = blocks.shape(3);
    const size_t num_pages = counts.shape(1), num_queries = queries.shape(1), head_dim = queries.shape(2), padded = flips.shape(0);
    require(padded == num_bytes * 8 && num_bytes % 2 == 0 && head_dim <= padded && blocks.shape(4) == unit_rows && num_pages <= capacity,
            "Blocks, flips and queries must fit each other.");
    require(has_shape(factors, {num_heads, capacity, num_units, unit_rows}) && counts.shape(0) == num_heads &&
                queries.shape(0) == num_heads && has_shape(log_masses, {num_heads, num_queries, num_pages}),
            "Blocks, counts, queries and masses must fit each other.");
    check_counts(counts.data(), counts.size(), num_units * unit_rows);
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        const size_t first = head * capacity * num_units * unit_rows;
        const SketchPages pages{blocks.data() + first * num_bytes, factors.data() + first, num_units, num_bytes};
        estimate_log_masses(pages, counts.data() + head * num_pages, num_pages, queries.data() + head * num_queries * head_dim, num_queries,
                            head_dim, Rotation{flips.data(), padded}, weight, variant, log_masses.data() + head * num_queries * num_pages);
    });
}

// Several sets of queries per head, each of which searches for itself: queries [heads, sets, queries, entries].
template <class Key, class Stored>
void search_pages_face(const Input<uint8_t, 5>& blocks, const Input<uint16_t, 4>& factors, const Input<float, 1>& flips,
                       const Input<int32_t, 2>& counts, const Strided<Stored>& pool, const Input<int64_t, 2>& slots, const Input<float, 4>& queries,
                       const std::optional<Input<float, 3>>& resident, float scale, size_t num_candidates, bool single_rows,
                       InPlace<int32_t, 3> chosen, size_t num_threads, const OptionalName& instruction_set) {
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
    require(!single_rows || keys.slot_stride % keys.head_dim == 0, "Slots must lie a whole number of rows apart.");
    check_counts(counts.data(), counts.size(), keys.page_size);
    for (size_t head = 0; head < num_heads; ++head)
        check_slots(slots.data() + head * slots.shape(1), counts.data() + head * num_pages, num_pages, keys.num_slots);
    const InstructionSet variant = hoarfrost::chosen(instruction_set);
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
                     resident ? resident->data() + set * num_queries : nullptr, num_candidates, chosen.shape(2), single_rows, variant,
                     chosen.data() + set * chosen.shape(2));
    });
}

template <class Key, class Stored>
void page_log_masses_face(const Strided<Stored>& pool, const Input<int64_t, 2>& slots, const Input<int32_t, 2>& counts,
                          const Input<int32_t, 2>& pages, const Input<float, 3>& queries, InPlace<float, 3> log_masses, size_t num_threads,
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
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        exact_log_masses(keys, scored.data() + head * num_chosen, num_chosen, queries.data() + head * num_queries * head_dim, num_queries,
                         variant, log_masses.data() + head * num_queries * num_chosen);
    });
}

void total_log_masses_face(const Input<float, 3>& log_masses, InPlace<float, 2> totals, const OptionalName& instruction_set) {
    require(has_shape(totals, {log_masses.shape(0), log_masses.shape(1)}), "Masses and totals must fit each other.");
    nb::gil_scoped_release unlocked;
    total_log_masses(log_masses.data(), totals.size(), log_masses.shape(2), chosen(instruction_set), totals.data());
}

void rank_pages_face(const Input<float, 3>& log_masses, const Input<float, 2>& totals, InPlace<int32_t, 2> places, size_t num_threads,
                     const OptionalName& instruction_set) {
    const size_t num_heads = log_masses.shape(0), num_queries = log_masses.shape(1), num_pages = log_masses.shape(2);
    require(has_shape(totals, {num_heads, num_queries}) && places.shape(0) == num_heads, "Masses and totals must fit each other.");
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    parallel_for(num_heads, num_threads, [&](size_t head) {
        rank_pages(log_masses.data() + head * num_queries * num_pages, totals.data() + head * num_queries, num_queries, num_pages,
                   places.shape(1), variant, places.data() + head * places.shape(1));
    });
}

template <class Key, class Stored>
void bind_key_kernels(nb::module_& module, const std::string& suffix) {
    module.def(("index_sketch_keys" + suffix).c_str(), &sketch_keys_face<Key, Stored>, "keys"_a.noconvert(), "centre"_a.noconvert(),
               "flips"_a.noconvert(), "coordinate_scale"_a.noconvert(), "codes"_a.noconvert(), "factors"_a.noconvert(),
               "coordinates"_a.noconvert(), "num_threads"_a, "instruction_set"_a = nb::none(),
               "One-bit sketches of keys, their factors, and coordinates for grouping.");
    module.def(("index_page_log_masses" + suffix).c_str(), &page_log_masses_face<Key, Stored>, "pool"_a.noconvert(), "slots"_a.noconvert(),
               "counts"_a.noconvert(), "pages"_a.noconvert(), "queries"_a.noconvert(), "log_masses"_a.noconvert(), "num_threads"_a,
               "instruction_set"_a = nb::none(), "Exact log-masses of chosen pages, from their keys.");
    module.def(("index_search_pages" + suffix).c_str(), &search_pages_face<Key, Stored>, "blocks"_a.noconvert(), "factors"_a.noconvert(),
               "flips"_a.noconvert(), "counts"_a.noconvert(), "pool"_a.noconvert(), "slots"_a.noconvert(), "queries"_a.noconvert(),
               "resident"_a.none(), "scale"_a, "num_candidates"_a, "single_rows"_a, "chosen"_a.noconvert(), "num_threads"_a,
               "instruction_set"_a = nb::none(),
               "The best pages of each set of queries, or their best rows: estimated from sketches, the best of those scored exactly.");
}

}  // namespace

void bind_index(nb::module_& module) {
    bind_key_kernels<float, float>(module, "");
    bind_key_kernels<BFloat16, uint16_t>(module, "_bfloat16");
    module.def("index_group_similar", &group_similar_face, "coordinates"_a.noconvert(), "page_size"_a, "rows"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none(), "Rows in an order whose pages hold similar ones.");
    module.def("index_lay_out_sketches", &lay_out_sketches_face, "codes"_a.noconvert(), "factors"_a.noconvert(), "rows"_a.noconvert(),
               "blocks"_a.noconvert(), "placed"_a.noconvert(), "num_threads"_a, "Sketches in the order that scanning reads them.");
    module.def("index_estimate_log_masses", &estimate_log_masses_face, "blocks"_a.noconvert(), "factors"_a.noconvert(),
               "counts"_a.noconvert(), "queries"_a.noconvert(), "flips"_a.noconvert(), "weight"_a, "log_masses"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none(), "Log-masses of all pages, estimated from sketches.");
    module.def("index_total_log_masses", &total_log_masses_face, "log_masses"_a.noconvert(), "totals"_a.noconvert(),
               "instruction_set"_a = nb::none(), "The log-mass of all pages together, query by query.");
    module.def("index_rank_pages", &rank_pages_face, "log_masses"_a.noconvert(), "totals"_a.noconvert(), "places"_a.noconvert(),
               "num_threads"_a, "instruction_set"_a = nb::none(), "The pages with the largest share of the mass of any query, best first.");
}

}  // namespace hoarfrost
