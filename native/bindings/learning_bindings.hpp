#pragma once

#include "bindings/bindings.hpp"

namespace hoarfrost {

void bind_learning(nb::module_& module);

}  // namespace hoarfrost
