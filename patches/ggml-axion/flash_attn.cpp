// FLASH_ATTN_EXT straight on a q8_0 or F16 cache: the node's operands, for flash_attn.h to work on.
//
// Takes: F32 queries; K and V of q8_0 or F16, each its own type and head size, any strides between positions, heads and
// streams; any mask that is the same for all heads; softcap, ALiBi, sinks. Declines everything else, and all of it
// where no tile is written for the instruction set.

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

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    const Problem p = problem_of(node);
    Run           run(p, params->ith, params->nth, params->wdata);
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

}  // namespace

const Kernel flash_attn_kernel = { "flash_attn", accepts, compute, work_size, nullptr, nullptr };

}  // namespace axion
