// Switches of the fusions, and the order that makes them possible. Internal to ggml-axion.
#pragma once

#include "kernel.h"

namespace axion {

// Entries of the kernel table that take no node by themselves: a fusion asks whether it may.
extern const Kernel fuse_norm_kernel;   // RMS_NORM and MUL in front of the products that read them
extern const Kernel fuse_qkv_kernel;    // products of the same activations together
extern const Kernel fuse_glu_kernel;    // GLU on the tiles of its two products
extern const Kernel fuse_add_kernel;    // bias and residual on the tiles of a product
extern const Kernel fuse_ahead_kernel;  // the next product's weights are fetched at the end of this one
extern const Kernel fuse_rope_kernel;   // ROPE and SET_ROWS up to the attention

}  // namespace axion
