// Which of our kernels takes a node: the table, the AXION_KERNELS switch, and the functions upstream's hooks call.

#include "fuse.h"
#include "kernel.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace axion {
namespace {

// Fusions are asked in this order; the switches behind them are theirs.
const Kernel * const kernels[] = {
    &flash_attn_kernel,     //
    &glu_kernel,            //
    &hadamard_kernel,       //
    &mul_mat_kernel,        //
    &mul_mat_float_kernel,  //
    &mul_mat_id_kernel,     //
    &fuse_rope_kernel,      //
    &rms_norm_kernel,       //
    &rope_kernel,           //
    &soft_max_kernel,       //
    &fuse_norm_kernel,      //
    &fuse_qkv_kernel,       //
    &fuse_glu_kernel,       //
    &fuse_add_kernel,       //
    &fuse_ahead_kernel,     //
#if defined(AXION_AMX)
    &amx_kernel,  //
#endif
};

constexpr uint32_t num_kernels = sizeof(kernels) / sizeof(kernels[0]);
static_assert(num_kernels <= 64, "the switch is a 64-bit mask");

const char *          names[num_kernels];
std::atomic<uint64_t> calls[num_kernels];
thread_local uint64_t barriers;

constexpr uint64_t all_kernels = num_kernels == 64 ? ~0ull : (1ull << num_kernels) - 1;

// The bits that one word of AXION_KERNELS names.
uint64_t bits_of(const char * word, size_t length) {
    const auto is = [&](const char * name) { return strlen(name) == length && strncmp(name, word, length) == 0; };
    if (is("all")) {
        return all_kernels;
    }
    for (uint32_t k = 0; k < num_kernels; k++) {
        if (is(kernels[k]->name)) {
            return 1ull << k;
        }
    }
    if (!is("off")) {
        fprintf(stderr, "axion: AXION_KERNELS names no kernel of ours: '%.*s'\n", (int) length, word);
    }
    return 0;
}

// "all", "off", names; a name behind a minus is taken out. A list that begins with one takes out of all.
uint64_t mask_of(const char * list) {
    if (list == nullptr || *list == 0) {
        return all_kernels;
    }
    uint64_t mask = *list == '-' ? all_kernels : 0;
    while (*list != 0) {
        const size_t length = strcspn(list, ",");
        if (*list == '-') {
            mask &= ~bits_of(list + 1, length - 1);
        } else if (length > 0) {
            mask |= bits_of(list, length);
        }
        list += length + (list[length] == ',');
    }
    return mask;
}

std::atomic<uint64_t> & enabled() {
    static std::atomic<uint64_t> mask{ mask_of(getenv("AXION_KERNELS")) };
    return mask;
}

bool is_enabled(uint32_t k) {
    return (enabled().load(std::memory_order_relaxed) >> k) & 1;
}

void count(const ggml_compute_params * params, uint32_t k) {
    if (params->ith == 0) {
        calls[k].fetch_add(1, std::memory_order_relaxed);
    }
}

uint32_t index_of(const Kernel & kernel) {
    uint32_t k = 0;
    while (kernels[k] != &kernel) {
        k++;
    }
    return k;
}

const char * compiled_isa() {
#if defined(__ARM_FEATURE_SVE2) && defined(__ARM_FEATURE_MATMUL_INT8)
    return "sve2+i8mm";
#elif defined(__ARM_FEATURE_MATMUL_INT8)
    return "neon+i8mm";
#elif defined(__ARM_FEATURE_DOTPROD)
    return "neon+dotprod";
#elif defined(__aarch64__)
    return "neon";
#elif defined(AXION_AMX)
    return amx::is_permitted_here() ? "avx512+amx" : "avx512+vnni";
#elif defined(__AVX512VNNI__)
    return "avx512+vnni";
#elif defined(__AVX512F__)
    return "avx512";
#elif defined(__AVX2__)
    return "avx2";
#else
    return "generic";
#endif
}

#if defined(AXION_BREAK)
// A build for tests, in which a kernel is bad on purpose: AXION_BREAK=wrong:NAME spoils the first number that it
// computes, kill:NAME ends the process inside it; kill:upstream does where upstream's code multiplies matrices.
bool is_broken(const char * how, const char * name) {
    static const char * const wish = getenv("AXION_BREAK");
    const size_t              n    = strlen(how);
    return wish != nullptr && strncmp(wish, how, n) == 0 && strcmp(wish + n, name) == 0;
}

void break_on_purpose(const char * name, const ggml_tensor * node) {
    if (is_broken("kill:", name)) {
        raise(SIGILL);
    }
    if (is_broken("wrong:", name)) {
        *(float *) node->data += 1;
    }
}
#else
void break_on_purpose(const char *, const ggml_tensor *) {
}
#endif

}  // namespace

bool is_on(const Kernel & kernel) {
    return is_enabled(index_of(kernel));
}

void count_call(const ggml_compute_params * params, const Kernel & kernel, bool is_used) {
    if (is_used) {
        count(params, index_of(kernel));
    }
}

}  // namespace axion

using namespace axion;

extern "C" {

bool axion_compute_forward(const ggml_compute_params * params, ggml_tensor * node) {
    for (uint32_t k = 0; k < num_kernels; k++) {
        if (is_enabled(k) && kernels[k]->accepts != nullptr && kernels[k]->accepts(node)) {
            count(params, k);
            kernels[k]->compute(params, node);
            break_on_purpose(kernels[k]->name, node);
            return true;
        }
    }
    if (node->op == GGML_OP_MUL_MAT) {
        break_on_purpose("upstream", node);
    }
    return false;
}

bool axion_takes(const ggml_tensor * node) {
    for (uint32_t k = 0; k < num_kernels; k++) {
        if (is_enabled(k) && kernels[k]->accepts != nullptr && kernels[k]->accepts(node)) {
            return true;
        }
    }
    return false;
}

int axion_try_fuse(const ggml_cgraph * graph, int i, const ggml_compute_params * params) {
    for (uint32_t k = 0; k < num_kernels; k++) {
        if (is_enabled(k) && kernels[k]->fuse != nullptr) {
            const int n = kernels[k]->fuse(params, graph, i);
            if (n > 0) {
                return n;
            }
        }
        if (is_enabled(k) && kernels[k]->can_fuse != nullptr) {
            const int n = kernels[k]->can_fuse(graph, i);
            if (n > 0) {
                count(params, k);
                kernels[k]->compute_fused(params, graph, i);
                break_on_purpose(kernels[k]->name, graph->nodes[i + n]);
                return n;
            }
        }
    }
    return 0;
}

size_t axion_work_size(const ggml_cgraph * graph, int i, int n_threads) {
    const ggml_tensor * node = graph->nodes[i];
    size_t              most = 0;
    for (const Kernel * kernel : kernels) {
        if (kernel->work_size != nullptr && (kernel->accepts == nullptr || kernel->accepts(node))) {
            const size_t size = kernel->work_size(node, n_threads);
            most              = size > most ? size : most;
        }
    }
    return most;
}

void axion_count_barrier(void) {
    barriers++;
}

const axion_api * axion_info(void) {
    static const axion_api api = [] {
        for (uint32_t k = 0; k < num_kernels; k++) {
            names[k] = kernels[k]->name;
        }
        axion_api a{};
        a.abi          = AXION_ABI;
        a.build_id     = AXION_BUILD_ID;
        a.isa          = compiled_isa();
        a.num_kernels  = num_kernels;
        a.kernel_names = names;
        a.get_enabled  = [] { return enabled().load(); };
        a.set_enabled  = [](uint64_t mask) { enabled().store(mask); };
        a.get_calls    = [](uint32_t k) -> uint64_t { return k < num_kernels ? calls[k].load() : 0; };
        a.get_barriers = [] { return barriers; };
        a.measure_peak = axion_measure_peak;
        return a;
    }();
    return &api;
}
}
