// Python bindings of the tree builder.
#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_trees(nanobind::module_& module);

}  // namespace hoarfrost
