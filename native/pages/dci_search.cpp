// The search along the DCI-tree, one query: cell by cell, the best nodes of a level lead to the cells of the next.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#include "pages/dci.hpp"
#include "base/lanes.hpp"
#include "base/prefetch.hpp"

namespace hoarfrost {

namespace {

constexpr size_t width = 8;
using Eight = Lanes<width>;
constexpr size_t children_at_once = 4, children_ahead = 16;

// Scores of a few keys at once: their sums do not wait for each other.
template <size_t num_keys, class Key>
HOARFROST_INLINE void score(const Key* const* keys, const float* query, size_t head_dim, float* scores) {
    Eight sums[num_keys];
    for (size_t i = 0; i < num_keys; ++i) sums[i] = Eight::all(0.0f);
    const size_t whole = head_dim / width * width;
    for (size_t d = 0; d < whole; d += width) {
        const Eight entries = Eight::load(query + d);
        for (size_t i = 0; i < num_keys; ++i) sums[i] = sums[i] + Eight::load(keys[i] + d) * entries;
    }
    for (size_t i = 0; i < num_keys; ++i) {
        scores[i] = sum_of(sums[i]);
        for (size_t d = whole; d < head_dim; ++d) scores[i] += to_float(keys[i][d]) * query[d];
    }
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
    const auto key_of = [&](const Child& child) {
        const Key* page = keys.pool + static_cast<size_t>(slots[child.page]) * keys.slot_stride;
        return page + static_cast<size_t>(child.slot) * keys.head_dim;
    };
    const size_t count = children.size();
    for (size_t i = 0; i < std::min(count, children_ahead); ++i) prefetch_key(key_of(children[i]), keys.head_dim);
    for (size_t first = 0; first < count; first += children_at_once) {
        const size_t num_scored = std::min(children_at_once, count - first);
        const Key* rows[children_at_once];
        float scores[children_at_once];
        for (size_t i = 0; i < num_scored; ++i) {
            rows[i] = key_of(children[first + i]);
            if (first + i + children_ahead < count) prefetch_key(key_of(children[first + i + children_ahead]), keys.head_dim);
        }
        if (num_scored == children_at_once)
            score<children_at_once>(rows, query, keys.head_dim, scores);
        else
            for (size_t i = 0; i < num_scored; ++i) score<1>(rows + i, query, keys.head_dim, scores + i);
        for (size_t i = 0; i < num_scored; ++i) {
            const Child& child = children[first + i];
            page_scores[child.page] = std::max(page_scores[child.page], scores[i]);
            if (tree.child_cells[child.row] >= 0) nodes.push_back({scores[i], child.row});
        }
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
