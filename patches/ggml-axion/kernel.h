// What each kernel file offers to the dispatch: how a kernel is described. Internal to ggml-axion.
#pragma once

#include "amx.h"
#include "axion.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "ggml.h"

namespace axion {

struct Kernel {
    const char * name;
    // True when this kernel computes the node: shapes, types, strides, parameters. Null for one that only fuses.
    bool (*accepts)(const ggml_tensor * node);
    void (*compute)(const ggml_compute_params * params, ggml_tensor * node);
    // Scratch bytes for an accepted node, for any node where `accepts` is null; may be null.
    size_t (*work_size)(const ggml_tensor * node, int n_threads);
    // Nodes after node i that the kernel computes along with it, 0 for none; may be null.
    int (*can_fuse)(const ggml_cgraph * graph, int i);
    void (*compute_fused)(const ggml_compute_params * params, const ggml_cgraph * graph, int i);
    // The two in one: computes node i and those behind it where it can, returns how many those are; may be null.
    int (*fuse)(const ggml_compute_params * params, const ggml_cgraph * graph, int i) = nullptr;
};

// Whether AXION_KERNELS has the kernel on; counts a call that no table entry was chosen for.
bool is_on(const Kernel & kernel);
void count_call(const ggml_compute_params * params, const Kernel & kernel, bool is_used);

extern const Kernel flash_attn_kernel;
extern const Kernel glu_kernel;
extern const Kernel hadamard_kernel;
extern const Kernel mul_mat_kernel;
extern const Kernel mul_mat_float_kernel;
extern const Kernel mul_mat_id_kernel;
extern const Kernel rms_norm_kernel;
extern const Kernel rope_kernel;
extern const Kernel soft_max_kernel;
#if defined(AXION_AMX)
extern const Kernel amx_kernel;  // takes no node by itself: a product asks whether it may use AMX' tiles
#endif

// The part [begin, end) of n items, in units of `grain`, that thread ith of nth does.
struct Range {
    int64_t begin;
    int64_t end;
};

inline Range split(int64_t n, int64_t grain, int ith, int nth) {
    const int64_t units = (n + grain - 1) / grain;
    const int64_t first = units * ith / nth;
    const int64_t last  = units * (ith + 1) / nth;
    const int64_t begin = first * grain;
    const int64_t end   = last * grain;
    return { begin < n ? begin : n, end < n ? end : n };
}

}  // namespace axion
