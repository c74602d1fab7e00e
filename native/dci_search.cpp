// The search along the DCI-tree, one query: cell by cell, the best nodes of a level lead to the cells of the next.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#include "dci.hpp"
#include "lanes.hpp"

namespace hoarfrost {

namespace {

constexpr size_t width = 8;
using Eight = Lanes<width>;

template <class Key>
HOARFROST_INLINE float score_of(const Key* key, const float* query, size_t head_dim) {
    Eight sums = Eight::all(0.0f);
    const size_t whole = head_dim / width * width;
    for (size_t d = 0; d < whole; d += width) sums = sums + Eight::load(key + d) * Eight::load(query + d);
    float score = sum_of(sums);
    for (size_t d = whole; d < head_dim; ++d) score += to_float(key[d]) * query[d];
    return score;
}

// A child of a cell: where it lies, and how far its projection is from the query's.
struct Child {
    int64_t distance;
    int32_t row, page, slot;

    bool operator<(const Child& other) const { return distance != other.distance ? distance < other.distance : row < other.row; }
};

struct Node {
    float score;
    int32_t row;

    // Better first; the older row first among equals.
    bool operator<(const Node& other) const { return score != other.score ? score > other.score : row < other.row; }
};

// The children of a cell that are to be scored.
void choose_children(const DciTree& tree, size_t page_size, int32_t cell, int32_t query_projection, const DciBreadth& breadth,
                     std::vector<Child>& children) {
    children.clear();
    for (int32_t i = tree.cell_starts[cell]; i < tree.cell_starts[cell + 1]; ++i) {
        const int32_t page = tree.cell_pages[i];
        const int32_t* rows = tree.page_rows + static_cast<size_t>(page) * page_size;
        for (int32_t slot = 0; slot < tree.counts[page]; ++slot) children.push_back({0, rows[slot], page, slot});
    }
    for (const Child& child : children)
        if (static_cast<size_t>(child.row) >= tree.num_rows) throw std::invalid_argument("A page names a row outside the tree.");
    if (children.size() <= breadth.batch) return;
    for (Child& child : children) child.distance = std::abs(static_cast<int64_t>(tree.projections[child.row]) - query_projection);
    const size_t wanted = static_cast<size_t>(std::ceil(breadth.share * static_cast<double>(children.size())));
    const size_t visited = std::min(children.size(), (wanted + breadth.batch - 1) / breadth.batch * breadth.batch);
    std::nth_element(children.begin(), children.begin() + static_cast<std::ptrdiff_t>(visited), children.end());
    children.resize(visited);
}

template <class Key>
HOARFROST_INLINE void score_children(const DciTree& tree, const KeySlots<Key>& keys, const int64_t* slots, const float* query,
                                     const std::vector<Child>& children, float* page_scores, std::vector<Node>& nodes) {
    for (const Child& child : children) {
        const Key* page = keys.pool + static_cast<size_t>(slots[child.page]) * keys.slot_stride;
        const float score = score_of(page + static_cast<size_t>(child.slot) * keys.head_dim, query, keys.head_dim);
        page_scores[child.page] = std::max(page_scores[child.page], score);
        if (tree.child_cells[child.row] >= 0) nodes.push_back({score, child.row});
    }
}

}  // namespace

template <class Key>
void search_tree(const DciTree& tree, const KeySlots<Key>& keys, const int64_t* slots, const float* query, int32_t query_projection,
                 const DciBreadth& breadth, InstructionSet instruction_set, float* page_scores) {
    std::fill_n(page_scores, tree.num_pages, -std::numeric_limits<float>::infinity());
    std::vector<int32_t> frontier{0};
    std::vector<Child> children;
    std::vector<Node> nodes;
    while (!frontier.empty()) {
        nodes.clear();
        for (const int32_t cell : frontier) {
            choose_children(tree, keys.page_size, cell, query_projection, breadth, children);
            run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
                score_children(tree, keys, slots, query, children, page_scores, nodes);
            });
        }
        const size_t kept = std::min(nodes.size(), breadth.field_of_view);
        std::partial_sort(nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(kept), nodes.end());
        frontier.clear();
        for (size_t i = 0; i < kept; ++i) {
            frontier.push_back(tree.child_cells[nodes[i].row]);
            if (static_cast<size_t>(frontier.back()) >= tree.num_cells) throw std::invalid_argument("A row names a cell outside the tree.");
        }
    }
}

template void search_tree(const DciTree&, const KeySlots<float>&, const int64_t*, const float*, int32_t, const DciBreadth&, InstructionSet,
                          float*);
template void search_tree(const DciTree&, const KeySlots<BFloat16>&, const int64_t*, const float*, int32_t, const DciBreadth&,
                          InstructionSet, float*);

}  // namespace hoarfrost
