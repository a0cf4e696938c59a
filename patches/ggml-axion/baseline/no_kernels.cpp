// The hooks of axion.h without any kernel behind them: the baseline library, which runs on every CPU of its
// architecture.

#include "axion.h"

extern "C" {

bool axion_compute_forward(const ggml_compute_params *, ggml_tensor *) {
    return false;
}

bool axion_takes(const ggml_tensor *) {
    return false;
}

size_t axion_work_size(const ggml_cgraph *, int, int) {
    return 0;
}

int axion_try_fuse(const ggml_cgraph *, int, const ggml_compute_params *) {
    return 0;
}

void axion_graph_optimize(ggml_backend *, ggml_cgraph *, ggml_backend_graph_optimize_params *) {
}

void axion_count_barrier(void) {
}

double axion_measure_peak(uint32_t, double) {
    return 0;
}

const axion_api * axion_info(void) {
    static const axion_api api = [] {
        axion_api a{};
        a.abi          = AXION_ABI;
        a.build_id     = AXION_BUILD_ID;
        a.isa          = "baseline";
        a.get_enabled  = [] { return (uint64_t) 0; };
        a.set_enabled  = [](uint64_t) {};
        a.get_calls    = [](uint32_t) { return (uint64_t) 0; };
        a.get_barriers = [] { return (uint64_t) 0; };
        a.measure_peak = axion_measure_peak;
        return a;
    }();
    return &api;
}
}
