#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_index(nanobind::module_& module);

}  // namespace hoarfrost
