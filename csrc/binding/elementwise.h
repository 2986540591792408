// Turns tensors into the parameter block of an elementwise op.
//
// The Python layer has broadcast already: every tensor is contiguous and has the shape of the first one, or has a
// single element that serves the whole call.
#pragma once

#include <array>

#include "binding/backend.h"
#include "kernels/elementwise.h"

namespace dvae_ext::binding {

struct NamedTensor {
  const Tensor& tensor;
  const char* name;
};

kernels::Elementwise elementwise_inputs(const char* op, std::initializer_list<NamedTensor> inputs);

// An output like `like`, or an empty one that the kernel skips where nobody asked for it.
inline Tensor wanted_output(bool wanted, const Tensor& like) { return wanted ? empty_like(like) : empty({0}, like); }

inline void* output_pointer(const Tensor& tensor, bool wanted) { return wanted ? tensor.mutable_data_ptr() : nullptr; }

}  // namespace dvae_ext::binding
