#include "decoder/dense_matrix.hpp"

#include <algorithm>
#include <utility>

#include "base/lanes.hpp"
#include "base/prefetch.hpp"

namespace hoarfrost {

namespace {

constexpr size_t max_tile_rows = 5;    // 5 x 2 sums, 2 weights and 1 input leave registers for addresses among the 16 of AVX2
constexpr size_t most_together = 6;    // rows that are one tile if there are no more
constexpr size_t block_rows = 48;      // rows that pass a panel while it is in the nearest cache
constexpr size_t least_work = 1 << 15;  // multiply-adds that are worth waking another thread
constexpr size_t stream_ahead = 4096;     // bytes: one stream of plain loads leaves half of what the memory could give unused

size_t lanes_of(InstructionSet instruction_set) { return has_avx512(instruction_set) ? 16 : 8; }

// A few rows' product. `tiles` holds the rows as `lay_out` leaves them.
struct Block {
    const float* tiles;
    size_t num_rows, num_inputs, num_outputs;
    const float* bias;  // null: none
    Products products;
};

// The height of the next tile of a block. Up to most_together rows are one tile; else heights are nearly equal, so that no tile is left with a
// row or two.
size_t next_height(size_t num_rows, size_t num_rows_left) {
    if (num_rows <= most_together) return num_rows;
    const size_t num_tiles = (num_rows_left + max_tile_rows - 1) / max_tile_rows;
    return (num_rows_left + num_tiles - 1) / num_tiles;
}

// The rows from `first` on as tiles, one behind the other; each holds its rows input by input: entry (row, input) at `input * height + row`. So a
// tile reads its rows, too, from front to back.
HOARFROST_INLINE void lay_out(const Rows& rows, size_t first, size_t num_rows, size_t num_inputs, float* place, float* tile) {
    for (size_t done = 0; done < num_rows;) {
        const size_t height = next_height(num_rows, num_rows - done);
        for (size_t r = 0; r < height; ++r) {
            const float* row = float_row(rows, first + done + r, num_inputs, place);
            for (size_t i = 0; i < num_inputs; ++i) tile[i * height + r] = row[i];
        }
        done += height;
        tile += height * num_inputs;
    }
}

// sums [num_rows][num_panels * 2 registers] of `num_rows` interleaved rows times `num_panels` panels side by side. Meanwhile as many weights are
// fetched from `ahead` on (null: none).
template <size_t num_rows, size_t num_panels, size_t lanes, class Weight>
HOARFROST_INLINE void multiply_tile(const float* tile, const Weight* panels, size_t num_inputs, const Weight* ahead, float* sums) {
    constexpr size_t inputs_per_line = 64 / (2 * lanes * sizeof(Weight)) > 0 ? 64 / (2 * lanes * sizeof(Weight)) : 1;
    using L = Lanes<lanes>;
    L totals[num_rows][2 * num_panels];
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c] = L::all(0.0f);
    for (size_t i = 0; i < num_inputs; ++i) {
        if (ahead != nullptr && i % inputs_per_line == 0)
            for (size_t line = 0; line < 2 * lanes * sizeof(Weight) * inputs_per_line; line += 64)
                prefetch_line(reinterpret_cast<const char*>(ahead + i * 2 * lanes) + line);
        L weights[2 * num_panels];
        for (size_t p = 0; p < num_panels; ++p)
            L::load_two(panels + (p * num_inputs + i) * 2 * lanes, weights[2 * p], weights[2 * p + 1]);
        for (size_t r = 0; r < num_rows; ++r) {
            const L input = L::all(tile[i * num_rows + r]);
            for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c] = input * weights[c] + totals[r][c];
        }
    }
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c].store(sums + (r * 2 * num_panels + c) * lanes);
}

// `weights` are those of panel `panel` and the ones behind it.
template <size_t num_rows, size_t num_panels, size_t lanes, class Weight>
HOARFROST_INLINE void run_tile(const Block& block, const float* tile, const Weight* weights, const Weight* ahead, size_t first_row,
                               size_t panel) {
    constexpr size_t width = 2 * lanes;
    alignas(64) float sums[num_rows * num_panels * width];
    multiply_tile<num_rows, num_panels, lanes>(tile, weights, block.num_inputs, ahead, sums);
    deliver(block.products, block.bias, block.num_outputs, first_row, num_rows, panel * width, num_panels * width, sums);
}

// One panel for all tiles. The first tile reads the panel from memory, the others find it in the nearest cache and leave the memory idle: the
// last one fetches the next panel.
template <size_t lanes, class Weight>
HOARFROST_INLINE void run_panel(const Block& block, const Weight* weights, size_t panel) {
    const float* tile = block.tiles;
    for (size_t row = 0; row < block.num_rows;) {
        const size_t height = next_height(block.num_rows, block.num_rows - row);
        const Weight* ahead = row == 0 ? weights + stream_ahead / sizeof(Weight) : nullptr;
        if (row > 0 && row + height == block.num_rows) ahead = weights + block.num_inputs * 2 * lanes;
        switch (height) {
            case 1: run_tile<1, 1, lanes>(block, tile, weights, ahead, row, panel); break;
            case 2: run_tile<2, 1, lanes>(block, tile, weights, ahead, row, panel); break;
            case 3: run_tile<3, 1, lanes>(block, tile, weights, ahead, row, panel); break;
            case 4: run_tile<4, 1, lanes>(block, tile, weights, ahead, row, panel); break;
            default: run_tile<max_tile_rows, 1, lanes>(block, tile, weights, ahead, row, panel); break;
        }
        row += height;
        tile += height * block.num_inputs;
    }
}

// One tile in all. One row or two leave too few sums to hide the latency of an addition: they take several panels at once. (Three rows and
// two panels would need more than the 16 registers of AVX2.)
template <size_t num_rows, size_t num_together, size_t lanes, class Weight>
HOARFROST_INLINE void run_few_rows(const Block& block, const Weight* panels, size_t panel, size_t last_panel) {
    const size_t panel_size = block.num_inputs * 2 * lanes;
    for (; panel + num_together <= last_panel; panel += num_together) {
        const Weight* weights = panels + panel * panel_size;
        run_tile<num_rows, num_together, lanes>(block, block.tiles, weights, weights + stream_ahead / sizeof(Weight), 0, panel);
    }
    for (; panel < last_panel; ++panel) {
        const Weight* weights = panels + panel * panel_size;
        run_tile<num_rows, 1, lanes>(block, block.tiles, weights, weights + stream_ahead / sizeof(Weight), 0, panel);
    }
}

template <size_t lanes, class Weight>
HOARFROST_INLINE void run_panels(const Block& block, const Weight* panels, size_t first_panel, size_t last_panel) {
    switch (block.num_rows) {
        case 1: return run_few_rows<1, 4, lanes>(block, panels, first_panel, last_panel);
        case 2: return run_few_rows<2, 2, lanes>(block, panels, first_panel, last_panel);
        case 3: return run_few_rows<3, 1, lanes>(block, panels, first_panel, last_panel);
        case 4: return run_few_rows<4, 1, lanes>(block, panels, first_panel, last_panel);
        case 5: return run_few_rows<5, 1, lanes>(block, panels, first_panel, last_panel);
        case most_together: return run_few_rows<most_together, 1, lanes>(block, panels, first_panel, last_panel);
        default:
            for (size_t panel = first_panel; panel < last_panel; ++panel)
                run_panel<lanes>(block, panels + panel * block.num_inputs * 2 * lanes, panel);
    }
}

// Spelled out, not `run_with`: each instruction set has its own number of lanes, and these bodies are too large to compile in vain.
#if HOARFROST_X86
template <class Weight>
HOARFROST_AVX2 void run_panels_avx2(const Block& block, const Weight* panels, size_t first_panel, size_t last_panel) {
    run_panels<8>(block, panels, first_panel, last_panel);
}

template <class Weight>
HOARFROST_AVX512 void run_panels_avx512(const Block& block, const Weight* panels, size_t first_panel, size_t last_panel) {
    run_panels<16>(block, panels, first_panel, last_panel);
}
#endif

template <class Weight>
void run_panels_with(InstructionSet instruction_set, const Block& block, const Weight* panels, size_t first_panel, size_t last_panel) {
#if HOARFROST_X86
    if (has_avx512(instruction_set)) return run_panels_avx512(block, panels, first_panel, last_panel);
    if (has_avx2(instruction_set)) return run_panels_avx2(block, panels, first_panel, last_panel);
#endif
    (void)instruction_set;
    run_panels<8>(block, panels, first_panel, last_panel);
}

// Where entry (output, input) of a matrix lies in its panels: bfloat16 alternates between the two registers.
template <class Weight>
size_t place_in_panels(size_t output, size_t input, size_t num_inputs, size_t lanes) {
    const size_t panel = output / (2 * lanes), within = output % (2 * lanes);
    const size_t lane = sizeof(Weight) == 2 ? within % lanes * 2 + within / lanes : within;
    return (panel * num_inputs + input) * 2 * lanes + lane;
}

}  // namespace

template <class Weight>
size_t DenseMatrix<Weight>::panel_width() const {
    return 2 * lanes_of(instruction_set_);
}

template <class Weight>
DenseMatrix<Weight>::DenseMatrix(const Weight* weight, size_t num_outputs, size_t num_inputs, std::vector<float> bias,
                                 InstructionSet instruction_set)
    : Matrix(num_outputs, num_inputs),
      num_panels_((num_outputs + 2 * lanes_of(instruction_set) - 1) / (2 * lanes_of(instruction_set))),
      instruction_set_(instruction_set),
      bias_(std::move(bias)),
      panels_(aligned_zeros<Weight>(num_panels_ * num_inputs * panel_width())) {
    for (size_t output = 0; output < num_outputs; ++output)
        for (size_t input = 0; input < num_inputs; ++input)
            panels_[place_in_panels<Weight>(output, input, num_inputs, panel_width() / 2)] = weight[output * num_inputs + input];
}

template <class Weight>
size_t DenseMatrix<Weight>::num_bytes() const {
    return num_panels_ * num_inputs() * panel_width() * sizeof(Weight) + bias_.size() * sizeof(float);
}

template <class Weight>
size_t DenseMatrix<Weight>::panels_per_share(size_t num_rows) const {
    const size_t work_per_panel = std::max<size_t>(1, num_rows * num_inputs() * panel_width());
    return (least_work + work_per_panel - 1) / work_per_panel;
}

template <class Weight>
size_t DenseMatrix<Weight>::num_shares(size_t num_rows) const {
    const size_t num_panels = panels_per_share(num_rows);
    return (num_panels_ + num_panels - 1) / num_panels;
}

template <class Weight>
void DenseMatrix<Weight>::read_row(size_t output, float* weights) const {
    for (size_t input = 0; input < num_inputs(); ++input)
        weights[input] = to_float(panels_[place_in_panels<Weight>(output, input, num_inputs(), panel_width() / 2)]);
}

// Rows in blocks, so that a block's rows stay in the cache while all panels pass.
template <class Weight>
void DenseMatrix<Weight>::multiply(const Member& member, const Rows& rows, const Products& products) const {
    member.share(num_panels_, panels_per_share(rows.count), [&](size_t first_panel, size_t last_panel) {
        float* place = kept_memory<DenseMatrix, float>((std::min(block_rows, rows.count) + 1) * num_inputs());
        float* tiles = place + num_inputs();
        for (size_t row = 0; row < rows.count; row += block_rows) {
            const size_t num_rows = std::min(block_rows, rows.count - row);
            run_with(instruction_set_, [&]() HOARFROST_INLINE_LAMBDA { lay_out(rows, row, num_rows, num_inputs(), place, tiles); });
            const Block block{tiles, num_rows, num_inputs(), num_outputs(), bias_.empty() ? nullptr : bias_.data(), products.at(row, 0)};
            run_panels_with(instruction_set_, block, panels_.get(), first_panel, last_panel);
        }
    });
}

template class DenseMatrix<float>;
template class DenseMatrix<BFloat16>;

}  // namespace hoarfrost
