// The interface between llama.cpp's CPU backend and our kernels: what patches/0001-axion-hooks.patch calls.
//
// Every thread of the pool calls these with the same node, so every decision (take it or not) must depend only on the
// node and on the process-wide switch, never on the thread.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_backend;
struct ggml_backend_graph_optimize_params;
struct ggml_cgraph;
struct ggml_compute_params;
struct ggml_tensor;

// Computes `node` when one of our kernels takes it; false: upstream's code has to.
bool axion_compute_forward(const struct ggml_compute_params * params, struct ggml_tensor * node);

// Whether axion_compute_forward would take `node`, whose data need not be there yet: weights of such a product stay as
// they lie in the file, upstream does not repack them at load.
bool axion_takes(const struct ggml_tensor * node);

// Scratch bytes that node i of the graph may need in params->wdata, alone or as the first node of a fusion. Asked
// before anybody knows whether the node will run by us, so it is an upper bound.
size_t axion_work_size(const struct ggml_cgraph * graph, int i, int n_threads);

// Computes node i together with nodes that follow it; returns how many of those, 0 for no fusion.
int axion_try_fuse(const struct ggml_cgraph * graph, int i, const struct ggml_compute_params * params);

// Brings nodes that can be computed together into one row; called before the graph's memory is assigned.
void axion_graph_optimize(struct ggml_backend * backend, struct ggml_cgraph * graph,
                          struct ggml_backend_graph_optimize_params * params);

// The calling thread waits at a barrier of the thread pool.
void axion_count_barrier(void);

// What a program may ask of the loaded library; reached by ggml_backend_reg_get_proc_address(cpu, "axion_info").
struct axion_api {
    uint32_t             abi;           // AXION_ABI
    const char *         build_id;      // lock + patches + sources this library was built from
    const char *         isa;           // instruction set the kernels were compiled for
    uint32_t             num_kernels;   // at most 64
    const char * const * kernel_names;  // bit i of the masks is kernel_names[i]
    uint64_t (*get_enabled)(void);
    void (*set_enabled)(uint64_t mask);      // between two graphs only
    uint64_t (*get_calls)(uint32_t kernel);  // nodes this kernel has taken since the start
    uint64_t (*get_barriers)(void);          // barriers the calling thread has passed: those of every graph it computed
    double (*measure_peak)(uint32_t kind, double seconds);  // peak.h, scalar.h
};

#define AXION_ABI 3

// The best this core does, measured for `seconds`: operations per second of 0 float32 multiply-adds, 1 int8 dots,
// 2 bfloat16 dots (0 where there is no such instruction); 3 bytes read per second from memory. Not peaks but what they
// are seen against: values per second of 4 softmax, 5 RMSNorm, 6 SwiGLU in scalar code with the C library's functions.
// Peaks again, of whole AMX tiles: 7 int8 (TDPBUSD), 8 bfloat16 (TDPBF16PS).
double axion_measure_peak(uint32_t kind, double seconds);

const struct axion_api * axion_info(void);

#ifdef __cplusplus
}
#endif
