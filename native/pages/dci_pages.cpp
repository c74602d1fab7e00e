// Cells cut into pages, and lists of pages merged. The plain twins are in src/hoarfrost/cache/index/dci_plain.py.
#include <algorithm>
#include <limits>
#include <utility>

#include "pages/dci.hpp"
#include "base/rank_key.hpp"

namespace hoarfrost {

namespace {

// The best `count` pages of one query, those without a score last, in order; empty pages left out.
void best_pages(const float* scores, const int32_t* counts, size_t num_pages, size_t count, std::vector<uint64_t>& keys,
                std::vector<int32_t>& best) {
    keys.clear();
    for (size_t page = 0; page < num_pages; ++page)
        if (counts[page] > 0 && scores[page] > -std::numeric_limits<float>::infinity()) keys.push_back(rank_key(scores[page], page));
    const size_t found = std::min(count, keys.size());
    std::partial_sort(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(found), keys.end(), std::greater<>());
    best.clear();
    for (size_t i = 0; i < found; ++i) best.push_back(static_cast<int32_t>(place_of(keys[i])));
    for (size_t page = 0; page < num_pages && best.size() < count; ++page)
        if (counts[page] > 0 && !(scores[page] > -std::numeric_limits<float>::infinity())) best.push_back(static_cast<int32_t>(page));
}

struct CellMember {
    uint32_t projection;
    int32_t row;
    uint32_t cell;
};

// Members in the order of their keys below `num_keys`, those of one key as they come. Leaves in `ends` where each key's end.
template <class Key>
void sort_stably(const std::vector<CellMember>& members, std::vector<CellMember>& sorted, std::vector<uint32_t>& ends, size_t num_keys,
                 Key key) {
    std::fill_n(ends.begin(), num_keys + 1, 0u);
    for (const CellMember& one : members) ++ends[key(one) + 1];
    for (size_t i = 0; i < num_keys; ++i) ends[i + 1] += ends[i];
    for (const CellMember& one : members) sorted[ends[key(one)]++] = one;
}

}  // namespace

size_t cut_cells(const int32_t* rows, const int32_t* cells, size_t num_rows, size_t num_cells, const int32_t* projections,
                 size_t page_size, int32_t* pages, int32_t* owners) {
    std::vector<CellMember> members(num_rows), others(num_rows);  // along the projection, then as they come
    for (size_t i = 0; i < num_rows; ++i)
        members[i] = {static_cast<uint32_t>(projections[rows[i]]) ^ 0x80000000u, rows[i], static_cast<uint32_t>(cells[i])};
    constexpr uint32_t digit_bits = 11, num_digits = 1u << digit_bits;
    std::vector<uint32_t> ends(std::max<size_t>(num_cells, num_digits) + 1);
    for (uint32_t shift = 0; shift < 32; shift += digit_bits) {
        sort_stably(members, others, ends, num_digits, [&](const CellMember& one) { return one.projection >> shift & (num_digits - 1); });
        members.swap(others);
    }
    sort_stably(members, others, ends, num_cells, [](const CellMember& one) { return one.cell; });
    size_t num_pages = 0;
    for (size_t cell = 0, end = 0; cell < num_cells; ++cell) {
        const size_t start = std::exchange(end, ends[cell]), size = end - start, num_cuts = (size + page_size - 1) / page_size;
        for (size_t cut = 0; cut < num_cuts; ++cut, ++num_pages) {
            const size_t first = (cut * size + num_cuts - 1) / num_cuts, last = ((cut + 1) * size + num_cuts - 1) / num_cuts;
            int32_t* page = pages + num_pages * page_size;
            std::fill_n(page, page_size, -1);
            for (size_t i = first; i < last; ++i) page[i - first] = others[start + i].row;
            owners[num_pages] = static_cast<int32_t>(cell);
        }
    }
    return num_pages;
}

void merge_by_rank(const float* scores, size_t num_queries, const int32_t* counts, size_t num_pages, size_t num_wanted, int32_t* chosen) {
    std::vector<std::vector<int32_t>> lists(num_queries);
    std::vector<uint64_t> keys;
    for (size_t q = 0; q < num_queries; ++q) best_pages(scores + q * num_pages, counts, num_pages, num_wanted, keys, lists[q]);
    std::vector<bool> is_chosen(num_pages);
    size_t num_chosen = 0;
    for (size_t rank = 0; rank < num_wanted; ++rank)
        for (size_t q = 0; q < num_queries && num_chosen < num_wanted; ++q) {
            if (rank >= lists[q].size() || is_chosen[static_cast<size_t>(lists[q][rank])]) continue;
            is_chosen[static_cast<size_t>(lists[q][rank])] = true;
            chosen[num_chosen++] = lists[q][rank];
        }
    std::fill(chosen + num_chosen, chosen + num_wanted, -1);
}

}  // namespace hoarfrost
