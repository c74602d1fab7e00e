#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_dci(nanobind::module_& module);

}  // namespace hoarfrost
