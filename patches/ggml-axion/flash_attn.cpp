// FLASH_ATTN_EXT straight on a q8_0 or F16 cache: the node's operands, for flash_attn.h to work on.
//
// Takes: F32 queries; K and V of q8_0 or F16, each its own type and head size, any strides between positions, heads and
// streams; any mask that is the same for all heads; softcap, ALiBi, sinks. Declines everything else, and all of it
// where no tile is written for the instruction set. Along with it goes the Hadamard turn of what it gives.

#include "flash_attn.h"

#include "kernel.h"

namespace axion {
namespace {

using namespace fa;

bool is_cache_type(const ggml_tensor * t) {
    const int multiple = t->type == GGML_TYPE_Q8_0 ? 32 : 16;
    return (t->type == GGML_TYPE_Q8_0 || t->type == GGML_TYPE_F16) && t->nb[0] == ggml_type_size(t->type) &&
           t->ne[0] % multiple == 0 && t->ne[0] <= max_head;
}

bool is_plain_mask(const ggml_tensor * mask, const ggml_tensor * q) {
    return mask == nullptr || (mask->type == GGML_TYPE_F16 && mask->nb[0] == 2 && mask->ne[2] == 1 &&
                               (mask->ne[3] == 1 || mask->ne[3] == q->ne[3]));
}

bool accepts(const ggml_tensor * node) {
    if (!AXION_HAS_ATTENTION_TILE || node->op != GGML_OP_FLASH_ATTN_EXT) {
        return false;
    }
    const ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2];
    return q->type == GGML_TYPE_F32 && q->nb[0] == sizeof(float) && is_cache_type(k) && is_cache_type(v) &&
           k->ne[2] == v->ne[2] && q->ne[2] % k->ne[2] == 0 && k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3] &&
           q->ne[2] / k->ne[2] <= 128 && is_plain_mask(node->src[3], q) && k->ne[1] > 0 && k->ne[1] < (1 << 30);
}

View view_of(const ggml_tensor * t) {
    return { (char *) t->data, t->nb[1], t->nb[2], t->nb[3] };
}

KvType kv_type(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F16 ? KvType::f16 : KvType::q8_0;
}

Problem problem_of(const ggml_tensor * node) {
    const ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2], *mask = node->src[3];
    Problem            p{};
    p.dk           = (int) k->ne[0];
    p.dv           = (int) v->ne[0];
    p.k_type       = kv_type(k);
    p.v_type       = kv_type(v);
    p.num_rows     = (int) q->ne[1];
    p.num_heads    = (int) q->ne[2];
    p.num_kv_heads = (int) k->ne[2];
    p.num_streams  = (int) q->ne[3];
    p.num_cells    = (int) k->ne[1];
    p.q            = view_of(q);
    p.k            = view_of(k);
    p.v            = view_of(v);
    p.out          = { (char *) node->data, node->nb[2], node->nb[1], node->nb[3] };
    if (mask != nullptr) {
        p.mask = { (char *) mask->data, mask->nb[1], 0, mask->ne[3] == 1 ? 0 : mask->nb[3] };
    }
    p.sinks = node->src[4] != nullptr ? (const float *) node->src[4]->data : nullptr;
    memcpy(&p.scale, (const float *) node->op_params + 0, sizeof(float));
    memcpy(&p.max_bias, (const float *) node->op_params + 1, sizeof(float));
    memcpy(&p.softcap, (const float *) node->op_params + 2, sizeof(float));
    return p;
}

size_t work_size(const ggml_tensor * node, int n_threads) {
    const Problem p    = problem_of(node);
    size_t        most = 0;
    for (int nth = 1; nth <= n_threads; nth++) {  // fewer threads may run it than were planned for
        const size_t bytes = Plan(p, nth).bytes(nth);
        most               = bytes > most ? bytes : most;
    }
    return most;
}

// The product by a Hadamard matrix that alone reads what node i gives, through reshapes; its number, 0 for none.
int turn_behind(const ggml_cgraph * graph, int i) {
    int at = i + 1;
    for (; at < graph->n_nodes && graph->nodes[at]->op == GGML_OP_RESHAPE; at++) {
        if (graph->nodes[at]->src[0] != graph->nodes[at - 1] || ggml_node_get_use_count(graph, at - 1) != 1) {
            return 0;
        }
    }
    return at < graph->n_nodes && is_on(hadamard_kernel) && hadamard_kernel.accepts(graph->nodes[at]) &&
                   graph->nodes[at]->src[1] == graph->nodes[at - 1] && ggml_node_get_use_count(graph, at - 1) == 1
               ? at
               : 0;
}

bool meet(const ggml_tensor * a, const ggml_tensor * b) {
    const char *x = (const char *) a->data, *y = (const char *) b->data;
    return x < y + ggml_nbytes(b) && y < x + ggml_nbytes(a);
}

// The turn is written while other rows are still computed. It may lie where the queries do if each row lies on its own.
bool may_write(const ggml_tensor * node, const ggml_tensor * turn) {
    const ggml_tensor *q = node->src[0], *mask = node->src[3];
    const bool         is_on_queries = q->data == turn->data && q->ne[0] == node->ne[0] && q->nb[2] == node->nb[1] &&
                                       q->nb[1] == node->nb[2] && q->nb[3] == node->nb[3];
    return ggml_is_contiguous(node) && ggml_is_contiguous(turn) && (is_on_queries || !meet(q, turn)) &&
           (mask == nullptr || !meet(mask, turn));
}

int can_fuse(const ggml_cgraph * graph, int i) {
    const ggml_tensor * node = graph->nodes[i];
    if (node->op != GGML_OP_FLASH_ATTN_EXT || !accepts(node)) {
        return 0;
    }
    const int           at   = turn_behind(graph, i);
    const ggml_tensor * turn = graph->nodes[at];
    return at > 0 && node->ne[0] % turn->ne[0] == 0 && may_write(node, turn) ? at - i : 0;
}

void compute_problem(const ggml_compute_params * params, const Problem & p) {
    Run run(p, params->ith, params->nth, params->wdata);
#if defined(AXION_AMX)
    run.uses_tiles = run.uses_tiles && is_on(amx_kernel) && p.k_type == KvType::q8_0 && p.v_type == KvType::q8_0;
    count_call(params, amx_kernel, run.uses_tiles && run.plan.tile_tokens * p.group() > group_rows);
#endif
    run.scan();
    if (!run.plan.is_split) {
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, 0);
        }
        ggml_barrier(params->threadpool);
        run.whole_tiles([&] { return ggml_threadpool_chunk_add(params->threadpool, 1); });
        return;
    }
    if (!run.plan.has_own_scan) {
        ggml_barrier(params->threadpool);
    }
    run.split_blocks();
    ggml_barrier(params->threadpool);
    run.combine();
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    compute_problem(params, problem_of(node));
}

void compute_fused(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    const ggml_tensor * turn = graph->nodes[turn_behind(graph, i)];
    Problem             p    = problem_of(graph->nodes[i]);
    p.out.data               = (char *) turn->data;
    p.turned                 = (int) turn->ne[0];
    compute_problem(params, p);
}

}  // namespace

const Kernel flash_attn_kernel = { "flash_attn", accepts, compute, work_size, can_fuse, compute_fused };

}  // namespace axion
