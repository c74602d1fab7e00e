// The kernels of the page indexes: one-bit sketches of keys, grouping by similarity, estimated and exact masses of pages.
//
// Each works on one KV head; the plain twins, with the formulas, are src/hoarfrost/cache/index/{sketch,grouping,scoring}.py. Sketches, groups
// and estimates are the same bits whatever the instruction set; exact masses differ by rounding.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bfloat16.hpp"
#include "base/instruction_set.hpp"

namespace hoarfrost {

constexpr size_t unit_rows = 16;

// Keys of one head: rows of `head_dim` entries side by side, `row_stride` entries apart.
template <class Key>
struct KeyRows {
    const Key* data;
    size_t num_rows, row_stride, head_dim;
};

// The random rotation: signs [padded_dim] before a Walsh-Hadamard transform; padded_dim is a power of two, at least 16.
struct Rotation {
    const float* flips;
    size_t padded_dim;
};

// Sketches of keys: codes [num_rows, padded_dim / 8], factors [num_rows], coordinates [num_rows, num_coordinates].
struct SketchRows {
    uint8_t* codes;
    uint16_t* factors;
    int8_t* coordinates;
    size_t num_coordinates;
};

template <class Key>
void sketch_keys(const KeyRows<Key>& keys, const float* centre, const Rotation& rotation, float coordinate_scale,
                 InstructionSet instruction_set, const SketchRows& sketches);

// Pages of similar rows: writes the row numbers page after page. num_rows must be a multiple of page_size.
void group_similar(const int8_t* coordinates, size_t num_rows, size_t num_coordinates, size_t page_size, InstructionSet instruction_set,
                   int32_t* rows);

// Sketches by page: units of 16 rows, [num_pages, num_units, num_bytes, 16] codes and [num_pages, num_units, 16] factors.
struct SketchPages {
    const uint8_t* blocks;
    const uint16_t* factors;
    size_t num_units, num_bytes;
};

void lay_out_sketches(const uint8_t* codes, const uint16_t* factors, const int32_t* rows, size_t num_pages, size_t page_size,
                      size_t num_bytes, uint8_t* blocks, uint16_t* placed_factors);

// Writes the estimated log2 masses [num_queries, num_pages] for queries [num_queries, head_dim] that are not rotated yet.
void estimate_log_masses(const SketchPages& pages, const int32_t* counts, size_t num_pages, const float* queries, size_t num_queries,
                         size_t head_dim, const Rotation& rotation, float weight, InstructionSet instruction_set, float* log_masses);

// Where the keys of pages lie: slots of page_size x head_dim entries, `slot_stride` entries apart.
template <class Key>
struct KeySlots {
    const Key* pool;
    size_t num_slots, slot_stride, page_size, head_dim;
};

// A page to be scored: its slot, and the rows in it; 0 rows: no page, its mass is 0.
struct ScoredPage {
    int64_t slot;
    int32_t num_rows;
};

// Writes the log2 masses [num_queries, num_pages] for queries [num_queries, head_dim] that are scaled already (by log2 e too).
template <class Key>
void exact_log_masses(const KeySlots<Key>& keys, const ScoredPage* pages, size_t num_pages, const float* queries, size_t num_queries,
                      InstructionSet instruction_set, float* log_masses);

// The log2 of the sum of the masses, [num_queries].
void total_log_masses(const float* log_masses, size_t num_queries, size_t num_pages, InstructionSet instruction_set, float* totals);

// The places of the `count` pages with the largest summed share of the totals, best first, the lower place first among equals; -1 behind.
void rank_pages(const float* log_masses, const float* totals, size_t num_queries, size_t num_pages, size_t count,
                InstructionSet instruction_set, int32_t* places);

// The sketches and the keys of one head: of page p, `counts[p]` rows in slot `slots[p]`.
template <class Key>
struct SketchedKeys {
    SketchPages sketches;
    Rotation rotation;
    const int32_t* counts;
    size_t num_pages;
    KeySlots<Key> keys;
    const int64_t* slots;
};

// Writes the `num_wanted` pages that matter most to the queries [num_queries, head_dim] together, best first, -1 behind: of all pages those
// `num_candidates` with the largest estimates are scored exactly. `scale` includes log2 e; `resident` are the log2 masses of what the
// queries see besides, [num_queries], or null. With `single_rows` the rows of those pages compete by themselves, and those that are chosen are
// written as page * page_size + place within the page.
template <class Key>
void search_pages(const SketchedKeys<Key>& held, const float* queries, size_t num_queries, float scale, const float* resident,
                  size_t num_candidates, size_t num_wanted, bool single_rows, InstructionSet instruction_set, int32_t* chosen);

}  // namespace hoarfrost
