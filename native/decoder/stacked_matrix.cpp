#include "decoder/matrix.hpp"

#include "base/require.hpp"

namespace hoarfrost {

namespace {

size_t sum_of_outputs(const std::vector<std::shared_ptr<const Matrix>>& parts) {
    require(!parts.empty(), "There are no matrices to stack.");
    size_t num_outputs = 0;
    for (const auto& part : parts) {
        require(part && part->num_inputs() == parts[0]->num_inputs(), "Stacked matrices must have the same inputs.");
        num_outputs += part->num_outputs();
    }
    return num_outputs;
}

}  // namespace

StackedMatrix::StackedMatrix(std::vector<std::shared_ptr<const Matrix>> parts)
    : Matrix(sum_of_outputs(parts), parts[0]->num_inputs()), parts_(std::move(parts)) {}

size_t StackedMatrix::num_bytes() const {
    size_t num_bytes = 0;
    for (const auto& part : parts_) num_bytes += part->num_bytes();
    return num_bytes;
}

void StackedMatrix::multiply(const Member& member, const Rows& rows, const Products& products) const {
    size_t first = 0;
    for (const auto& part : parts_) {
        part->multiply(member, rows, products.at(0, first));
        first += part->num_outputs();
    }
}

size_t StackedMatrix::num_shares(size_t num_rows) const {
    size_t num_shares = 0;
    for (const auto& part : parts_) num_shares += part->num_shares(num_rows);
    return num_shares;
}

void StackedMatrix::read_row(size_t output, float* weights) const {
    for (const auto& part : parts_) {
        if (output < part->num_outputs()) return part->read_row(output, weights);
        output -= part->num_outputs();
    }
}

}  // namespace hoarfrost
