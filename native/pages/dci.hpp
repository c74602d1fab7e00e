// The kernels of the DCI-tree: keys lifted to one length in 16-bit fixed point, nearest pivots, the search along the tree.
//
// Everything but the scores of the search is whole-number arithmetic, the same on every machine. The plain twins, with the formulas, are
// in src/hoarfrost/cache/index/{lift,dci_search}.py. Each function works on one KV head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/instruction_set.hpp"
#include "pages/page_index.hpp"

namespace hoarfrost {

// Lifted keys: `width` entries each, an even number: the key, its lift, and zeros.
struct LiftedRows {
    const int16_t* data;
    size_t num_rows, width;
};

// In eight lanes.
template <class Key>
HOARFROST_INLINE float squared_length(const Key* key, size_t head_dim) {
    constexpr size_t num_lanes = 8;
    float lanes[num_lanes] = {};
    size_t d = 0;
    for (; d + num_lanes <= head_dim; d += num_lanes)
        for (size_t i = 0; i < num_lanes; ++i) lanes[i] += to_float(key[d + i]) * to_float(key[d + i]);
    for (size_t i = 0; d + i < head_dim; ++i) lanes[i] += to_float(key[d + i]) * to_float(key[d + i]);
    for (size_t half = num_lanes / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

// The largest squared length of a key; NaN where one is not finite.
template <class Key>
float largest_squared_length(const KeyRows<Key>& keys, InstructionSet instruction_set);

// The lifted keys, `width` entries each, and their products with `direction [width]`, whose entries are within -127..127.
template <class Key>
void lift_keys(const KeyRows<Key>& keys, float squared_radius, size_t width, const int16_t* direction, InstructionSet instruction_set,
               int16_t* lifted, int32_t* projections);

class PivotScreen;

// For every point the pivot with the largest product, the first among equals; there must be a pivot.
class PivotFinder {
public:
    // `pivots` must outlive the finder; `num_points` tells what preparation pays.
    PivotFinder(const LiftedRows& pivots, size_t num_points, InstructionSet instruction_set);
    ~PivotFinder();
    void find(const LiftedRows& points, int32_t* nearest) const;  // by any number of threads

private:
    LiftedRows pivots_;
    InstructionSet instruction_set_;
    std::unique_ptr<PivotScreen> screen_;
};

// Pages of the rows of each cell, sorted along their projections and cut into parts of nearly equal size, cells in order. Writes
// [num_pages, page_size] rows, -1 behind, and the cell of each page; returns the number of pages, at most num_rows / page_size + num_cells.
size_t cut_cells(const int32_t* rows, const int32_t* cells, size_t num_rows, size_t num_cells, const int32_t* projections,
                 size_t page_size, int32_t* pages, int32_t* owners);

// A tree by its cells: the children of cell c lie in pages cell_pages[cell_starts[c] .. cell_starts[c + 1]); cell 0 is the root's.
struct DciTree {
    const int32_t* cell_starts;
    const int32_t* cell_pages;
    size_t num_cells;
    const int32_t* child_cells;  // per row: the cell of its children, or -1
    const int32_t* projections;  // per row
    size_t num_rows;
    const int32_t* page_rows;    // [num_pages, page_size]
    const int32_t* counts;       // [num_pages]
    size_t num_pages;
};

// How far a search goes: nodes kept per level, and of a cell of more than `batch` children the share that is scored, nearest projections
// first, in whole batches.
struct DciBreadth {
    size_t field_of_view;
    double share;
    size_t batch;
};

// The best score seen in each page, [num_pages], -inf where none was seen. Throws where a page names a row, or a row a cell, that is not
// there. `query_projection` is on the scale of the projections.
template <class Key>
void search_tree(const DciTree& tree, const KeySlots<Key>& keys, const int64_t* slots, const float* query, int32_t query_projection,
                 const DciBreadth& breadth, InstructionSet instruction_set, float* page_scores);

// The best pages of the lists `scores [num_queries, num_pages]` in turn, repeats and empty pages left out; -1 behind.
void merge_by_rank(const float* scores, size_t num_queries, const int32_t* counts, size_t num_pages, size_t num_wanted, int32_t* chosen);

}  // namespace hoarfrost
