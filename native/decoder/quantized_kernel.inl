// The products of quantized_matrix.cpp, included once per instruction set inside a namespace of its own, after `Set`: the set's registers and
// what it does with them (quantized_sets.hpp says what is asked of one), and HOARFROST_KERNEL, the attribute of functions compiled for it.

// `tile` has one record per group (`lay_out`); sums [num_rows, num_panels * lanes] of the panels from `panel` on.
template <size_t num_rows, size_t num_panels, size_t group_size, size_t code_bits>
HOARFROST_KERNEL void multiply_tile(const int32_t* tile, const Panels& panels, size_t panel, float* sums) {
    using Floats = typename Set::Floats;
    using Ints = typename Set::Ints;
    constexpr size_t lanes = Set::lanes, num_steps = group_size / Set::inputs_together(code_bits), record = num_rows * (num_steps + row_words);
    constexpr size_t code_bytes = lanes * group_size * code_bits / 8;
    const size_t panel_bytes = panels.num_groups * panels.group_bytes, scale_bytes = lanes * panels.scale_bytes;
    Floats totals[num_rows][num_panels];
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < num_panels; ++c) totals[r][c] = Set::all(0.0f);
    const uint8_t* codes = panels.groups + panel * panel_bytes;
    for (size_t group = 0; group < panels.num_groups; ++group, tile += record, codes += panels.group_bytes) {
        for (size_t c = 0; c < num_panels; ++c)  // a group's codes, and its scales as far as one line goes
            for (size_t line = 0; line < code_bytes + 64; line += 64) prefetch_farther(codes + c * panel_bytes + stream_ahead + line);
        Ints dots[num_rows][num_panels];
        Set::template dots<num_rows, num_panels, group_size, code_bits>(tile, codes, panel_bytes, dots);
        const auto* row_scales = reinterpret_cast<const float*>(tile + num_rows * num_steps);
        const float* row_sums = row_scales + num_rows;
        for (size_t c = 0; c < num_panels; ++c) {
            const Floats scale = Set::load_scales(codes + c * panel_bytes + code_bytes, panels.scale_bytes == 2);
            for (size_t r = 0; r < num_rows; ++r)
                totals[r][c] = Set::add_product(Set::multiply(Set::to_float(dots[r][c]), scale), Set::all(row_scales[r]), totals[r][c]);
        }
        if (!panels.has_offsets) continue;
        for (size_t c = 0; c < num_panels; ++c) {
            const Floats offset = Set::load_scales(codes + c * panel_bytes + code_bytes + scale_bytes, panels.scale_bytes == 2);
            for (size_t r = 0; r < num_rows; ++r) totals[r][c] = Set::add_product(offset, Set::all(row_sums[r]), totals[r][c]);
        }
    }
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < num_panels; ++c) Set::store(sums + (r * num_panels + c) * lanes, totals[r][c]);
}

// The tile of that height, which is at most `num_rows`.
template <size_t num_rows, size_t num_panels, size_t group_size, size_t code_bits>
HOARFROST_KERNEL void multiply_height(size_t height, const int32_t* tile, const Panels& panels, size_t panel, float* sums) {
    if constexpr (num_rows > 1)
        if (height < num_rows) return multiply_height<num_rows - 1, num_panels, group_size, code_bits>(height, tile, panels, panel, sums);
    multiply_tile<num_rows, num_panels, group_size, code_bits>(tile, panels, panel, sums);
}

// All tiles of a block, as long as `num_panels` panels are left side by side.
template <size_t num_panels, size_t group_size, size_t code_bits>
HOARFROST_KERNEL void run_together(const Block& block, const Panels& panels, size_t& panel, size_t last_panel) {
    constexpr size_t lanes = Set::lanes, words = group_size / Set::inputs_together(code_bits) + row_words;
    alignas(64) float sums[max_tile_rows * num_panels * lanes];
    for (; panel + num_panels <= last_panel; panel += num_panels) {
        const int32_t* tile = block.tiles;
        for (size_t row = 0; row < block.num_rows;) {
            const size_t height = next_height(block.num_rows - row);
            multiply_height<Set::rows_with(num_panels).most, num_panels, group_size, code_bits>(height, tile, panels, panel, sums);
            deliver(block.products, block.bias, block.num_outputs, row, height, panel * lanes, num_panels * lanes, sums);
            row += height;
            tile += height * panels.num_groups * words;
        }
    }
}

template <size_t group_size, size_t code_bits>
HOARFROST_KERNEL void run_format(const Block& block, const Panels& panels, size_t panel, size_t last_panel) {
    const size_t height = std::min(block.num_rows, max_tile_rows);
    if constexpr (Set::rows_with(4).most > 0)
        if (Set::rows_with(4).hold(height)) run_together<4, group_size, code_bits>(block, panels, panel, last_panel);
    if constexpr (Set::rows_with(2).most > 0)
        if (Set::rows_with(2).hold(height)) run_together<2, group_size, code_bits>(block, panels, panel, last_panel);
    run_together<1, group_size, code_bits>(block, panels, panel, last_panel);
}

HOARFROST_KERNEL void run_panels(const Block& block, const Panels& panels, size_t first_panel, size_t last_panel) {
    if (panels.code_bits == 4) return run_format<32, 4>(block, panels, first_panel, last_panel);
    if (panels.group_size == 32) return run_format<32, 8>(block, panels, first_panel, last_panel);
    run_format<16, 8>(block, panels, first_panel, last_panel);
}
