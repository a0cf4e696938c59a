// A run of RMS_NORM with MUL, ROPE, Hadamard and SET_ROWS nodes, the way from Q, K and V to the cache, with a barrier
// only where one is needed.
//
// One node depends on another when memory that one writes is read or written by the other. Few values: nodes that hang
// together form a chain, which one thread computes from end to end, so no barrier is needed at all; a node that nothing
// hangs on is shared out over the threads that are left. Many values: node by node, a barrier before one that depends
// on what was computed since the last. Every row is computed by the kernel that would compute its node alone.

#include "fuse.h"

#include "ops.h"

#include <algorithm>

namespace axion {
namespace {

constexpr int     max_steps   = 10;
constexpr int64_t most_values = 16384;  // that one thread had better compute than have all wait for each other

struct Span {
    const char * begin;
    const char * end;

    explicit Span(const ggml_tensor * t) : begin((const char *) t->data), end((const char *) t->data + ggml_nbytes(t)) {
    }

    bool meets(const Span & other) const {
        return begin < other.end && other.begin < end;
    }
};

// What is computed at once: a node, or RMS_NORM and the MUL behind it, of which only the MUL's memory is written.
struct Step {
    ggml_tensor * first;
    ggml_tensor * written;
    int           index;  // of the first in the graph

    int64_t num_values() const {
        return ggml_nelements(first->op == GGML_OP_MUL_MAT ? first->src[1] : first->src[0]);
    }

    // SET_ROWS has the tensor it writes into among its sources; the weights of a MUL are never written.
    bool reads(const ggml_tensor * t) const {
        const int num = first->op == GGML_OP_SET_ROWS ? 2 : GGML_MAX_SRC;
        for (int k = 0; k < num; k++) {
            if (first->src[k] != nullptr && Span(first->src[k]).meets(Span(t))) {
                return true;
            }
        }
        return false;
    }
};

bool depend(const Step & a, const Step & b) {
    return a.reads(b.written) || b.reads(a.written) || Span(a.written).meets(Span(b.written));
}

bool is_hadamard(const ggml_tensor * node) {
    return is_on(hadamard_kernel) && hadamard_kernel.accepts(node);
}

bool is_member(const ggml_tensor * node) {
    if (is_hadamard(node)) {
        return node->flags & GGML_TENSOR_FLAG_COMPUTE;
    }
    return (node->op == GGML_OP_ROPE || node->op == GGML_OP_SET_ROWS || node->op == GGML_OP_RMS_NORM) &&
           node->src[0]->type == GGML_TYPE_F32 && (node->flags & GGML_TENSOR_FLAG_COMPUTE);
}

struct Run {
    const ggml_cgraph * graph;
    Step                steps[max_steps];
    int                 num = 0, last = 0;

    Run(const ggml_cgraph * g, int i) : graph(g) {
        for (; i < graph->n_nodes && num < max_steps; i++) {
            ggml_tensor * node = graph->nodes[i];
            if (ggml_op_is_empty(node->op)) {
                continue;
            }
            if (!is_member(node)) {
                break;
            }
            steps[num] = { node, node, i };
            if (node->op == GGML_OP_RMS_NORM) {
                if (!is_on(rms_norm_kernel) || rms_norm_kernel.can_fuse(graph, i) != 1) {
                    break;
                }
                steps[num].written = graph->nodes[++i];
            }
            last = i;
            num++;
        }
    }
};

size_t slot_bytes(const ggml_tensor * node, int n_threads) {
    return node->op == GGML_OP_ROPE ? n_threads * (node->ne[0] * sizeof(float) + CACHE_LINE_SIZE) : 0;
}

// Scratch of the k-th step of a run: steps computed at the same time must not share any.
ggml_compute_params with_slot(const ggml_compute_params * params, const Run & run, int k) {
    ggml_compute_params own = *params;
    for (int j = 0; j < k; j++) {
        own.wdata = (char *) own.wdata + slot_bytes(run.steps[j].first, params->nth);
    }
    return own;
}

// None of these kernels has a barrier inside.
void compute_step(const ggml_compute_params * params, const Run & run, int k) {
    ggml_tensor * node = run.steps[k].first;
    if (node->op == GGML_OP_RMS_NORM) {
        rms_norm_kernel.compute_fused(params, run.graph, run.steps[k].index);
    } else if (is_hadamard(node)) {
        hadamard_kernel.compute(params, node);
    } else if (is_on(rope_kernel) && rope_kernel.accepts(node)) {
        rope_kernel.compute(params, node);
    } else if (node->op == GGML_OP_ROPE) {
        ggml_compute_forward_rope(params, node);
    } else {
        ggml_compute_forward_set_rows(params, node);
    }
}

// The steps of a run in chains, and which threads compute each.
struct Chains {
    int     of[max_steps], num = 0;
    int     length[max_steps]{}, first_thread[max_steps]{}, num_threads[max_steps]{};
    int64_t values[max_steps]{}, heaviest = 0, total = 0;  // of a thread, of all

    explicit Chains(const Run & run) {
        for (int k = 0; k < run.num; k++) {
            of[k] = num++;
            for (int j = 0; j < k; j++) {
                if (of[j] != of[k] && depend(run.steps[j], run.steps[k])) {
                    merge(of[j], of[k], k);
                }
            }
        }
        for (int k = 0; k < run.num; k++) {
            length[of[k]]++;
            values[of[k]] += run.steps[k].num_values();
            total += run.steps[k].num_values();
        }
    }

    // Empty chains stay behind: they get no thread.
    void merge(int into, int from, int last) {
        for (int j = 0; j <= last; j++) {
            of[j] = of[j] == from ? into : of[j];
        }
    }

    int64_t largest_node() const {
        int most = -1;
        for (int c = 0; c < num; c++) {
            most = length[c] == 1 && (most < 0 || values[c] > values[most]) ? c : most;
        }
        return most;
    }

    // A thread for each chain, the largest lone node for all threads behind them; where threads are too few, each
    // chain in turn goes to the one that has least to do.
    void assign(int nth) {
        const int64_t largest = largest_node();
        int           others  = 0;
        for (int c = 0; c < num; c++) {
            others += length[c] > 0 && c != largest;
        }
        int64_t load[max_steps]{};
        for (int c = 0; c < num; c++) {
            if (c == largest && nth > others) {
                first_thread[c] = others;
                num_threads[c]  = nth - others;
                heaviest        = std::max(heaviest, values[c] / num_threads[c]);
            } else if (length[c] > 0) {
                int       to  = 0;
                const int end = nth > others ? others : nth;
                for (int t = 1; t < end; t++) {
                    to = load[t] < load[to] ? t : to;
                }
                load[to] += values[c];
                heaviest        = std::max(heaviest, load[to]);
                first_thread[c] = to;
                num_threads[c]  = 1;
            }
        }
    }
};

void compute_chains(const ggml_compute_params * params, const Run & run, const Chains & chains) {
    for (int k = 0; k < run.num; k++) {
        const int c = chains.of[k], ith = params->ith - chains.first_thread[c];
        if (ith >= 0 && ith < chains.num_threads[c]) {
            ggml_compute_params own = with_slot(params, run, k);
            own.ith                 = ith;
            own.nth                 = chains.num_threads[c];
            compute_step(&own, run, k);
        }
    }
}

void compute_in_order(const ggml_compute_params * params, const Run & run) {
    int first = 0;  // since the last barrier
    for (int k = 0; k < run.num; k++) {
        for (int j = first; j < k; j++) {
            if (depend(run.steps[j], run.steps[k])) {
                ggml_barrier(params->threadpool);
                first = k;
                break;
            }
        }
        const ggml_compute_params own = with_slot(params, run, k);
        compute_step(&own, run, k);
    }
}

size_t work_size(const ggml_tensor * node, int n_threads) {
    return max_steps * slot_bytes(node, n_threads);
}

int fuse(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    if (!is_member(graph->nodes[i])) {
        return 0;
    }
    const Run run(graph, i);
    if (run.num < 2) {
        return 0;
    }
    const ggml_compute_params end = with_slot(params, run, run.num);
    if ((size_t) ((char *) end.wdata - (char *) params->wdata) > params->wsize) {
        return 0;
    }
    count_call(params, fuse_rope_kernel, true);
    Chains chains(run);
    chains.assign(params->nth);
    if (chains.heaviest <= most_values) {
        compute_chains(params, run, chains);
    } else {
        compute_in_order(params, run);
    }
    return run.last - i;
}

}  // namespace

const Kernel fuse_rope_kernel = { "fuse_rope", nullptr, nullptr, work_size, nullptr, nullptr, fuse };

}  // namespace axion
