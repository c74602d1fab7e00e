// Products of rows with one weight matrix that is laid out for them once: all the linear layers of a decoder, whatever their weights are kept in.
//
// A row comes out the same, bit for bit, whatever rows stand beside it and however many threads work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "base/bfloat16.hpp"
#include "base/team.hpp"

namespace hoarfrost {

// Rows of either type, `stride` scalars apart; with `norm_weight` their RMS norms are meant.
struct Rows {
    const float* floats;
    const BFloat16* rounded;  // instead
    size_t count, stride;
    const float* norm_weight = nullptr;
    float norm_eps = 0.0f;

    Rows(const float* data, size_t count, size_t stride, const float* norm_weight = nullptr, float norm_eps = 0.0f)
        : floats(data), rounded(nullptr), count(count), stride(stride), norm_weight(norm_weight), norm_eps(norm_eps) {}
    Rows(const BFloat16* data, size_t count, size_t stride) : floats(nullptr), rounded(data), count(count), stride(stride) {}

    // The rows from `first` on.
    Rows from(size_t first, size_t num_rows) const {
        Rows rest = *this;
        if (floats != nullptr) rest.floats += first * stride;
        if (rounded != nullptr) rest.rounded += first * stride;
        rest.count = num_rows;
        return rest;
    }
};

// What becomes of a product: written, or added to what is there.
enum class Onto { fresh, sum };

// Where products go: rows `stride` scalars apart.
struct Products {
    float* floats;
    BFloat16* rounded;  // instead
    size_t stride;
    Onto onto;

    Products(float* data, size_t stride, Onto onto = Onto::fresh) : floats(data), rounded(nullptr), stride(stride), onto(onto) {}
    Products(BFloat16* data, size_t stride) : floats(nullptr), rounded(data), stride(stride), onto(Onto::fresh) {}

    // The place that lies so many rows and outputs further on.
    Products at(size_t row, size_t output) const {
        Products place = *this;
        if (floats != nullptr) place.floats += row * stride + output;
        if (rounded != nullptr) place.rounded += row * stride + output;
        return place;
    }
};

class Matrix {
public:
    virtual ~Matrix() = default;

    size_t num_outputs() const { return num_outputs_; }
    size_t num_inputs() const { return num_inputs_; }
    virtual size_t num_bytes() const = 0;

    // products [rows.count, num_outputs] = or += rows [count, num_inputs] times the matrix, plus the bias: the member's share of the outputs.
    virtual void multiply(const Member& member, const Rows& rows, const Products& products) const = 0;

    // How many threads are worth waking for the product of so many rows.
    virtual size_t num_shares(size_t num_rows) const = 0;

    // The weights of one output, as they are multiplied with.
    virtual void read_row(size_t output, float* weights) const = 0;

    // The whole product, on as many threads as are worth waking.
    void multiply(const Rows& rows, const Products& products, size_t num_threads) const {
        run_team(std::min(num_threads, num_shares(rows.count)), [&](const Member& member) { multiply(member, rows, products); });
    }

protected:
    Matrix(size_t num_outputs, size_t num_inputs) : num_outputs_(num_outputs), num_inputs_(num_inputs) {}

private:
    size_t num_outputs_, num_inputs_;
};

// Matrices of the same inputs as one, their outputs one behind the other: weights that are kept in different types.
class StackedMatrix final : public Matrix {
public:
    explicit StackedMatrix(std::vector<std::shared_ptr<const Matrix>> parts);

    size_t num_bytes() const override;
    void multiply(const Member& member, const Rows& rows, const Products& products) const override;
    size_t num_shares(size_t num_rows) const override;
    void read_row(size_t output, float* weights) const override;

private:
    std::vector<std::shared_ptr<const Matrix>> parts_;
};

}  // namespace hoarfrost
