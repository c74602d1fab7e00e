#include "decoder/dense_matrix.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/lanes.hpp"
#include "base/prefetch.hpp"

namespace hoarfrost {

namespace {

constexpr size_t block_rows = 48;      // rows that pass a panel while it is in the nearest cache
constexpr size_t least_work = 1 << 15;  // multiply-adds that are worth waking another thread
constexpr size_t stream_ahead = 4096;   // bytes: one stream of plain loads leaves half of what the memory could give unused

// How rows meet a panel: step by step, `inputs_together` of the inputs at a time. An entry is what a step takes of a row; a tile has at most
// `tile_rows` rows, or `most_together` where there are no more.
//
// One input at a time, in float32.
template <class WeightType, size_t num_lanes>
struct Singles {
    using Weight = WeightType;
    using Entry = float;
    using Register = Lanes<num_lanes>;
    static constexpr size_t lanes = num_lanes, inputs_together = 1;
    // 5 x 2 sums, 2 weights and 1 input leave a few of the 16 registers of AVX2, 10 x 2 sums of the 32 of AVX-512; compilers need some.
    static constexpr size_t tile_rows = lanes == 16 ? 10 : 5, most_together = lanes == 16 ? 10 : 6;

    static HOARFROST_INLINE Entry entry(const float* row, size_t step, size_t) { return row[step]; }
    static HOARFROST_INLINE void load_two(const Weight* weights, Register& first, Register& second) { Register::load_two(weights, first, second); }
    static HOARFROST_INLINE Register all(Entry entry) { return Register::all(entry); }
    static HOARFROST_INLINE void add_product(Register& total, Register input, Register weight) { total = input * weight + total; }

    static size_t place(size_t within, size_t input) {
        return input * 2 * lanes + (sizeof(Weight) == 2 ? within % lanes * 2 + within / lanes : within);
    }
};

#if HOARFROST_X86
// Two inputs at a time, rows too in bfloat16: their products are exact and are added to the sum in float32, one after the other.
struct Pairs {
    using Weight = BFloat16;
    using Entry = uint32_t;
    using Register = Lanes<16>;
    static constexpr size_t lanes = 16, inputs_together = 2, tile_rows = 10, most_together = 10;

    static HOARFROST_INLINE Entry entry(const float* row, size_t step, size_t num_inputs) {
        BFloat16 first, second{};
        assign(first, row[2 * step]);
        if (2 * step + 1 < num_inputs) assign(second, row[2 * step + 1]);
        return static_cast<uint32_t>(first) | static_cast<uint32_t>(second) << 16;
    }
    static HOARFROST_INLINE void load_two(const Weight* weights, Register& first, Register& second) {
        std::memcpy(&first.v, weights, sizeof(first.v));
        std::memcpy(&second.v, weights + 2 * lanes, sizeof(second.v));
    }
    static HOARFROST_INLINE Register all(Entry entry) { return {(Register::Floats)(entry - Register::Words{})}; }
    // As an instruction: the compilers' own names for it are not for functions that are compiled for several sets.
    static HOARFROST_INLINE void add_product(Register& total, Register input, Register weight) {
        auto sum = total.v;
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(weight.v), "v"(input.v));
        total.v = sum;
    }

    static size_t place(size_t within, size_t input) { return input / 2 * 4 * lanes + within * 2 + input % 2; }
};
#endif

// A few rows' product with some of the panels.
struct Block {
    Rows rows;
    size_t num_inputs, num_outputs;
    const float* bias;  // null: none
    Products products;
};

template <class Steps>
constexpr size_t num_steps(size_t num_inputs) {
    return (num_inputs + Steps::inputs_together - 1) / Steps::inputs_together;
}

// Weights of a panel: two registers a step.
template <class Steps>
constexpr size_t panel_size(size_t num_inputs) {
    return num_steps<Steps>(num_inputs) * Steps::inputs_together * 2 * Steps::lanes;
}

// The height of the next tile of a block: heights are nearly equal, so that no tile is left with a row or two.
template <class Steps>
size_t next_height(size_t num_rows, size_t num_rows_left) {
    if (num_rows <= Steps::most_together) return num_rows;
    const size_t num_tiles = (num_rows_left + Steps::tile_rows - 1) / Steps::tile_rows;
    return (num_rows_left + num_tiles - 1) / num_tiles;
}

// The block's rows as tiles, one behind the other; each holds its rows step by step: entry (row, step) at `step * height + row`. So a tile reads
// its rows, too, from front to back.
template <class Steps>
HOARFROST_INLINE void lay_out(const Block& block, float* place, typename Steps::Entry* tile) {
    const size_t steps = num_steps<Steps>(block.num_inputs);
    for (size_t done = 0; done < block.rows.count;) {
        const size_t height = next_height<Steps>(block.rows.count, block.rows.count - done);
        for (size_t r = 0; r < height; ++r) {
            const float* row = float_row(block.rows, done + r, block.num_inputs, place);
            for (size_t step = 0; step < steps; ++step) tile[step * height + r] = Steps::entry(row, step, block.num_inputs);
        }
        done += height;
        tile += height * steps;
    }
}

// sums [num_rows][num_panels * 2 registers] of `num_rows` interleaved rows times `num_panels` panels side by side. Meanwhile as many weights are
// fetched from `ahead` on (null: none).
template <class Steps, size_t num_rows, size_t num_panels>
HOARFROST_INLINE void multiply_tile(const typename Steps::Entry* tile, const typename Steps::Weight* panels, size_t steps,
                                    const typename Steps::Weight* ahead, float* sums) {
    using Register = typename Steps::Register;
    constexpr size_t lanes = Steps::lanes, step_size = 2 * lanes * Steps::inputs_together, step_bytes = step_size * sizeof(*panels);
    constexpr size_t steps_per_line = step_bytes < 64 ? 64 / step_bytes : 1;
    Register totals[num_rows][2 * num_panels];
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c] = Register::all(0.0f);
    for (size_t step = 0; step < steps; ++step) {
        if (ahead != nullptr && step % steps_per_line == 0)
            for (size_t line = 0; line < step_bytes * steps_per_line; line += 64)
                prefetch_line(reinterpret_cast<const char*>(ahead + step * step_size) + line);
        Register weights[2 * num_panels];
        for (size_t p = 0; p < num_panels; ++p) Steps::load_two(panels + (p * steps + step) * step_size, weights[2 * p], weights[2 * p + 1]);
        for (size_t r = 0; r < num_rows; ++r) {
            const Register input = Steps::all(tile[step * num_rows + r]);
            for (size_t c = 0; c < 2 * num_panels; ++c) Steps::add_product(totals[r][c], input, weights[c]);
        }
    }
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c].store(sums + (r * 2 * num_panels + c) * lanes);
}

// `weights` are those of panel `panel` and the ones behind it.
template <class Steps, size_t num_rows, size_t num_panels>
HOARFROST_INLINE void run_tile(const Block& block, const typename Steps::Entry* tile, const typename Steps::Weight* weights,
                               const typename Steps::Weight* ahead, size_t first_row, size_t panel) {
    constexpr size_t width = 2 * Steps::lanes;
    alignas(64) float sums[num_rows * num_panels * width];
    multiply_tile<Steps, num_rows, num_panels>(tile, weights, num_steps<Steps>(block.num_inputs), ahead, sums);
    deliver(block.products, block.bias, block.num_outputs, first_row, num_rows, panel * width, num_panels * width, sums);
}

// The tile of that height, which is at most `num_rows`.
template <class Steps, size_t num_rows>
HOARFROST_INLINE void run_height(size_t height, const Block& block, const typename Steps::Entry* tile, const typename Steps::Weight* weights,
                                 const typename Steps::Weight* ahead, size_t first_row, size_t panel) {
    if constexpr (num_rows > 1)
        if (height < num_rows) return run_height<Steps, num_rows - 1>(height, block, tile, weights, ahead, first_row, panel);
    run_tile<Steps, num_rows, 1>(block, tile, weights, ahead, first_row, panel);
}

// One panel for all tiles. The first tile reads the panel from memory, the others find it in the nearest cache and leave the memory idle: the
// last one fetches the next panel.
template <class Steps>
HOARFROST_INLINE void run_panel(const Block& block, const typename Steps::Entry* tile, const typename Steps::Weight* weights, size_t panel) {
    for (size_t row = 0; row < block.rows.count;) {
        const size_t height = next_height<Steps>(block.rows.count, block.rows.count - row);
        const auto* ahead = row == 0 ? weights + stream_ahead / sizeof(*weights) : nullptr;
        if (row > 0 && row + height == block.rows.count) ahead = weights + panel_size<Steps>(block.num_inputs);
        run_height<Steps, Steps::most_together>(height, block, tile, weights, ahead, row, panel);
        row += height;
        tile += height * num_steps<Steps>(block.num_inputs);
    }
}

// One row or two leave too few sums to hide the latency of an addition: they take several panels at once, as long as there are so many.
template <class Steps, size_t num_rows, size_t num_together>
HOARFROST_INLINE void run_together(const Block& block, const typename Steps::Entry* tile, const typename Steps::Weight* panels, size_t& panel,
                                   size_t last_panel) {
    for (; panel + num_together <= last_panel; panel += num_together) {
        const auto* weights = panels + panel * panel_size<Steps>(block.num_inputs);
        run_tile<Steps, num_rows, num_together>(block, tile, weights, weights + stream_ahead / sizeof(*weights), 0, panel);
    }
}

template <class Steps>
HOARFROST_INLINE void run_block(const Block& block, const typename Steps::Weight* panels, size_t panel, size_t last_panel) {
    using Entry = typename Steps::Entry;
    auto* tiles = kept_memory<Steps, Entry>(block.rows.count * num_steps<Steps>(block.num_inputs));
    lay_out<Steps>(block, kept_memory<Block, float>(block.num_inputs), tiles);
    if (block.rows.count == 1) run_together<Steps, 1, 4>(block, tiles, panels, panel, last_panel);
    if constexpr (Steps::lanes < 16)
        if (block.rows.count == 2) run_together<Steps, 2, 2>(block, tiles, panels, panel, last_panel);
    for (; panel < last_panel; ++panel) run_panel<Steps>(block, tiles, panels + panel * panel_size<Steps>(block.num_inputs), panel);
}

// Spelled out, not `run_with`: each instruction set has its own number of lanes, and these bodies are too large to compile in vain.
#if HOARFROST_X86
template <class Weight>
HOARFROST_AVX2 void run_block_avx2(const Block& block, const Weight* panels, size_t first_panel, size_t last_panel) {
    run_block<Singles<Weight, 8>>(block, panels, first_panel, last_panel);
}

template <class Weight>
HOARFROST_AVX512 void run_block_avx512(const Block& block, const Weight* panels, size_t first_panel, size_t last_panel) {
    run_block<Singles<Weight, 16>>(block, panels, first_panel, last_panel);
}

HOARFROST_AVX512_BF16 void run_block_avx512_bf16(const Block& block, const BFloat16* panels, size_t first_panel, size_t last_panel) {
    run_block<Pairs>(block, panels, first_panel, last_panel);
}
#endif

// A kind of steps as a matrix sees it.
template <class Weight>
struct Kernel {
    size_t lanes, inputs_together;
    size_t (*place)(size_t within, size_t input);  // of the weight of an output and an input in their panel
    void (*run_block)(const Block& block, const Weight* panels, size_t first_panel, size_t last_panel);
};

template <class Steps>
constexpr Kernel<typename Steps::Weight> kernel_with(decltype(Kernel<typename Steps::Weight>::run_block) run) {
    return {Steps::lanes, Steps::inputs_together, Steps::place, run};
}

template <class Weight>
Kernel<Weight> kernel_of(InstructionSet instruction_set) {
#if HOARFROST_X86
    if constexpr (std::is_same_v<Weight, BFloat16>)
        if (instruction_set == InstructionSet::avx512_bf16) return kernel_with<Pairs>(run_block_avx512_bf16);
    if (has_avx512(instruction_set)) return kernel_with<Singles<Weight, 16>>(run_block_avx512<Weight>);
    if (has_avx2(instruction_set)) return kernel_with<Singles<Weight, 8>>(run_block_avx2<Weight>);
#endif
    (void)instruction_set;
    return kernel_with<Singles<Weight, 8>>(run_block<Singles<Weight, 8>>);
}

}  // namespace

template <class Weight>
size_t DenseMatrix<Weight>::panel_width() const {
    return 2 * kernel_of<Weight>(instruction_set_).lanes;
}

// Where the weight of an output and an input lies.
template <class Weight>
size_t DenseMatrix<Weight>::place(size_t output, size_t input) const {
    return output / panel_width() * panel_size_ + kernel_of<Weight>(instruction_set_).place(output % panel_width(), input);
}

template <class Weight>
DenseMatrix<Weight>::DenseMatrix(const Weight* weight, size_t num_outputs, size_t num_inputs, std::vector<float> bias,
                                 InstructionSet instruction_set)
    : Matrix(num_outputs, num_inputs),
      instruction_set_(instruction_set),
      num_panels_((num_outputs + panel_width() - 1) / panel_width()),
      panel_size_((num_inputs + kernel_of<Weight>(instruction_set).inputs_together - 1) / kernel_of<Weight>(instruction_set).inputs_together *
                  kernel_of<Weight>(instruction_set).inputs_together * panel_width()),
      bias_(std::move(bias)),
      panels_(aligned_zeros<Weight>(num_panels_ * panel_size_)) {
    for (size_t output = 0; output < num_outputs; ++output)
        for (size_t input = 0; input < num_inputs; ++input) panels_[place(output, input)] = weight[output * num_inputs + input];
}

template <class Weight>
size_t DenseMatrix<Weight>::num_bytes() const {
    return num_panels_ * panel_size_ * sizeof(Weight) + bias_.size() * sizeof(float);
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
    for (size_t input = 0; input < num_inputs(); ++input) weights[input] = to_float(panels_[place(output, input)]);
}

// Rows in blocks, so that a block's rows stay in the cache while all panels pass.
template <class Weight>
void DenseMatrix<Weight>::multiply(const Member& member, const Rows& rows, const Products& products) const {
    member.share(num_panels_, panels_per_share(rows.count), [&](size_t first_panel, size_t last_panel) {
        for (size_t row = 0; row < rows.count; row += block_rows) {
            const Block block{rows.from(row, std::min(block_rows, rows.count - row)), num_inputs(), num_outputs(),
                              bias_.empty() ? nullptr : bias_.data(), products.at(row, 0)};
            kernel_of<Weight>(instruction_set_).run_block(block, panels_.get(), first_panel, last_panel);
        }
    });
}

template class DenseMatrix<float>;
template class DenseMatrix<BFloat16>;

}  // namespace hoarfrost
