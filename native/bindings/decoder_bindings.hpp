#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_decoder(nanobind::module_& module);

}  // namespace hoarfrost
