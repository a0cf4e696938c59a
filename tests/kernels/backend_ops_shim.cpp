// Preloaded under upstream's test-backend-ops: how many threads it computes with, and whether it met our kernels.
//
// The program takes half of hardware_concurrency() for the backend under test: here that is AXION_TEST_THREADS. On its
// way out it prints how many nodes each of our kernels took; a pass with none taken tested upstream against itself.
#include "axion.h"
#include "ggml-backend.h"

#include <cstdio>
#include <cstdlib>
#include <thread>

static const axion_api * api;

__attribute__((constructor)) static void find_api() {
    const ggml_backend_reg_t cpu = ggml_backend_reg_by_name("CPU");
    const auto               ask = (decltype(&axion_info)) ggml_backend_reg_get_proc_address(cpu, "axion_info");
    api                          = ask != nullptr ? ask() : nullptr;
}

unsigned std::thread::hardware_concurrency() noexcept {
    const char * threads = getenv("AXION_TEST_THREADS");
    return 2 * (threads != nullptr ? atoi(threads) : 2);
}

__attribute__((destructor)) static void report() {
    for (uint32_t k = 0; api != nullptr && k < api->num_kernels; k++) {
        printf("axion %s took %llu nodes\n", api->kernel_names[k], (unsigned long long) api->get_calls(k));
    }
    fflush(stdout);
}
