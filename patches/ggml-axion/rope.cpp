// ROPE on F32 rows: neighbouring and NeoX pairs, sections (M-RoPE and its interleaved form), frequency factors, YaRN,
// a window of the head, in place. A thread makes the table of each position its rows stand at, and keeps the last.
// Left to upstream: F16, vision, the backward pass.

#include "rope.h"

#include "rows.h"

#include <algorithm>

namespace axion {
namespace {

bool accepts(const ggml_tensor * node) {
    if (node->op != GGML_OP_ROPE || !has_f32_rows(node) || !has_f32_rows(node->src[0])) {
        return false;
    }
    const int n_dims = ggml_get_op_params_i32(node, 1), mode = ggml_get_op_params_i32(node, 2);
    return (mode == GGML_ROPE_TYPE_NORMAL || mode == GGML_ROPE_TYPE_NEOX || mode == GGML_ROPE_TYPE_MROPE ||
            mode == GGML_ROPE_TYPE_IMROPE) &&
           n_dims > 0 && n_dims <= 2 * rope_max_pairs && ggml_get_op_params_f32(node, 5) > 0;
}

// Which of the four positions (time, height, width, extra) each pair turns by.
void set_sections(RopePlan & plan, const ggml_tensor * node) {
    int size[4], all = 0;
    for (int s = 0; s < 4; s++) {
        size[s] = ggml_get_op_params_i32(node, 11 + s);
        all += size[s];
    }
    const bool is_interleaved = ggml_get_op_params_i32(node, 2) == GGML_ROPE_TYPE_IMROPE;
    plan.has_sections         = true;
    for (int i = 0; i < plan.num_pairs; i++) {
        const int at = i % (all > 0 ? all : 1);
        int       s  = 0;
        if (is_interleaved) {
            s = at < 3 * size[at % 3] ? at % 3 : 3;
        } else {
            int end = size[0];
            while (s < 3 && at >= end) {
                end += size[++s];
            }
        }
        plan.section[i] = (uint8_t) s;
    }
}

void make_plan(RopePlan & plan, const ggml_tensor * node) {
    const int   n_dims = ggml_get_op_params_i32(node, 1), mode = ggml_get_op_params_i32(node, 2);
    const float base = ggml_get_op_params_f32(node, 5), freq_scale = ggml_get_op_params_f32(node, 6);
    plan.num_pairs      = n_dims / 2;
    plan.has_sections   = false;
    plan.is_interleaved = mode == GGML_ROPE_TYPE_NORMAL;
    plan.magnitude      = ggml_get_op_params_f32(node, 8);

    RopeYarn yarn;
    yarn.ext_factor = ggml_get_op_params_f32(node, 7);
    if (yarn.ext_factor != 0) {
        float ramp[2];
        ggml_rope_yarn_corr_dims(n_dims, ggml_get_op_params_i32(node, 4), base, ggml_get_op_params_f32(node, 9),
                                 ggml_get_op_params_f32(node, 10), ramp);
        yarn.low  = ramp[0];
        yarn.high = ramp[1];
        plan.magnitude *= 1.0f + 0.1f * logf(1.0f / freq_scale);
    }
    const ggml_tensor * factors = node->src[2];
    rope_frequencies(plan, base, freq_scale, factors != nullptr ? (const float *) factors->data : nullptr, yarn);
    if (mode & GGML_ROPE_TYPE_MROPE) {
        set_sections(plan, node);
    }
}

// A thread's last plan and tables: in decoding, every layer asks for the same again. Keyed by all they depend on.
struct Cache {
    int32_t  op_params[GGML_MAX_OP_PARAMS / sizeof(int32_t)];
    bool     has_factors;
    float    factors[rope_max_pairs];
    RopePlan plan;
    bool     has_plan;
    bool     has_table;
    int32_t  position[4];
    alignas(64) float cosine[2 * rope_max_pairs];
    alignas(64) float sine[2 * rope_max_pairs];
};

void update_plan(Cache & cache, const ggml_tensor * node) {
    const ggml_tensor * factors = node->src[2];
    const size_t        size    = factors != nullptr ? ggml_get_op_params_i32(node, 1) / 2 * sizeof(float) : 0;
    if (cache.has_plan && memcmp(cache.op_params, node->op_params, sizeof cache.op_params) == 0 &&
        cache.has_factors == (factors != nullptr) &&
        (factors == nullptr || memcmp(cache.factors, factors->data, size) == 0)) {
        return;
    }
    memcpy(cache.op_params, node->op_params, sizeof cache.op_params);
    cache.has_factors = factors != nullptr;
    if (factors != nullptr) {
        memcpy(cache.factors, factors->data, size);
    }
    make_plan(cache.plan, node);
    cache.has_plan  = true;
    cache.has_table = false;
}

void update_table(Cache & cache, const int32_t position[4]) {
    if (!cache.has_table || memcmp(cache.position, position, sizeof cache.position) != 0) {
        rope_table(cache.plan, position, cache.cosine, cache.sine);
        memcpy(cache.position, position, sizeof cache.position);
        cache.has_table = true;
    }
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    const Range mine = split(ggml_nrows(node), 1, params->ith, params->nth);
    if (mine.begin == mine.end) {
        return;
    }
    static thread_local Cache cache;
    update_plan(cache, node);

    const ggml_tensor * src       = node->src[0];
    const int32_t *     positions = (const int32_t *) node->src[1]->data;
    const int64_t       first = ggml_get_op_params_i32(node, 15), last = first + 2 * cache.plan.num_pairs;
    for (int64_t r = mine.begin; r < mine.end;) {
        const int64_t plane = r / node->ne[1], token = plane % node->ne[2];
        const int64_t end         = std::min(mine.end, (plane + 1) * node->ne[1]);
        int32_t       position[4] = { positions[token] };
        for (int64_t s = 1; cache.plan.has_sections && s < 4; s++) {
            position[s] = positions[token + node->ne[2] * s];
        }
        update_table(cache, position);
        const char * x = (const char *) row_of(src, r);
        char *       y = (char *) row_of(node, r);
        for (; r < end; r++, x += src->nb[1], y += node->nb[1]) {
            const float * in  = (const float *) x;
            float *       out = (float *) y;
            rope_row(cache.plan, cache.cosine, cache.sine, in + first, out + first);
            if (in != out && last - first != node->ne[0]) {
                memcpy(out, in, (size_t) first * sizeof *out);
                memcpy(out + last, in + last, (size_t) (node->ne[0] - last) * sizeof *out);
            }
        }
    }
}

}  // namespace

const Kernel rope_kernel = { "rope", accepts, compute, nullptr, nullptr, nullptr };

}  // namespace axion
