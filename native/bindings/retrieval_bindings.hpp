#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_retrieval(nanobind::module_& module);

}  // namespace hoarfrost
