#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_walks(nanobind::module_& module);

}  // namespace hoarfrost
