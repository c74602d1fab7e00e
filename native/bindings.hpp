// What the bindings share: arrays in, arrays out, and which instruction set a call asks for.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "instruction_set.hpp"
#include "require.hpp"
#include "top_k.hpp"

namespace hoarfrost {

namespace nb = nanobind;
using namespace nb::literals;

template <class Scalar, size_t num_dimensions>
using Input = nb::ndarray<const Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

// The entries of a row side by side, other axes any distance apart.
template <class Stored>
using Strided = nb::ndarray<const Stored, nb::ndim<3>, nb::device::cpu>;

// An array that the caller made, to be written to.
template <class Scalar, size_t num_dimensions>
using InPlace = nb::ndarray<Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

template <class Scalar>
using Output = nb::ndarray<nb::numpy, Scalar>;

// A tensor that a face of the package has checked, in calls where handing over an array would cost as much as the call.
using Address = uintptr_t;

template <class Scalar>
Scalar* at(Address address) {
    return reinterpret_cast<Scalar*>(address);
}

template <class Array>
bool has_shape(const Array& array, std::initializer_list<size_t> shape) {
    size_t axis = 0;
    for (const size_t extent : shape)
        if (array.shape(axis++) != extent) return false;
    return true;
}

using OptionalName = std::optional<std::string>;

inline InstructionSet chosen(const OptionalName& name) { return name ? instruction_set_named(*name) : best_instruction_set(); }

// Fresh memory that becomes the numpy array that owns it; filled while the interpreter lock is released.
template <class Scalar>
struct Buffer {
    explicit Buffer(std::vector<size_t> shape) : shape(std::move(shape)) {
        size_t count = 1;
        for (const size_t extent : this->shape) count *= extent;
        data = std::make_unique_for_overwrite<Scalar[]>(count);
    }

    // An array of `shape`, whose entries lie side by side unless `strides` say otherwise.
    Output<Scalar> to_numpy(const std::vector<int64_t>& strides = {}) {
        Scalar* pointer = data.release();
        nb::capsule owner(pointer, [](void* memory) noexcept { delete[] static_cast<Scalar*>(memory); });
        return Output<Scalar>(pointer, shape.size(), shape.data(), owner, strides.empty() ? nullptr : strides.data());
    }

    std::vector<size_t> shape;
    std::unique_ptr<Scalar[]> data;
};

template <class Stored>
using LogitArray = nb::ndarray<const Stored, nb::ndim<2>, nb::device::cpu>;

template <class Logit, class Stored>
LogitRows<Logit> rows_of(const LogitArray<Stored>& logits) {
    if (logits.shape(1) == 0) throw std::invalid_argument("The logits have no columns.");
    if (logits.size() > 0 && logits.shape(1) > 1 && logits.stride(1) != 1)
        throw std::invalid_argument("The entries of a row of logits must lie side by side.");
    return {reinterpret_cast<const Logit*>(logits.data()), logits.shape(0), static_cast<size_t>(logits.stride(0)), logits.shape(1)};
}

}  // namespace hoarfrost
