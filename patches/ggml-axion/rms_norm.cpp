// RMS_NORM, alone or with the MUL by its weights: rows over threads, or columns when there are fewer rows than threads.
//
// A row's sum is taken by every thread that writes a part of it, in the same order, so the result does not depend on
// the number of threads or rows. Takes: F32, contiguous rows; weights of one row, broadcast over all.

#include "rms_norm.h"

#include "kernel.h"

namespace axion {
namespace {

constexpr int64_t column_grain = 64;  // floats: whole cache lines, whole vectors

bool has_contiguous_rows(const ggml_tensor * t) {
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float);
}

bool accepts(const ggml_tensor * node) {
    return node->op == GGML_OP_RMS_NORM && has_contiguous_rows(node) && has_contiguous_rows(node->src[0]);
}

const ggml_tensor * weights_of(const ggml_tensor * norm, const ggml_tensor * mul) {
    return mul->src[0] == norm ? mul->src[1] : mul->src[0];
}

int can_fuse(const ggml_cgraph * graph, int i) {
    const ggml_tensor * norm = graph->nodes[i];
    if (norm->op != GGML_OP_RMS_NORM || !accepts(norm)) {
        return 0;
    }
    const ggml_op ops[] = { GGML_OP_RMS_NORM, GGML_OP_MUL };
    if (!ggml_can_fuse(graph, i, ops, 2)) {
        return 0;
    }
    const ggml_tensor * mul = graph->nodes[i + 1];
    const ggml_tensor * w   = weights_of(norm, mul);
    return has_contiguous_rows(mul) && has_contiguous_rows(w) && w->ne[0] == norm->ne[0] && ggml_nrows(w) == 1;
}

// Row r of a tensor, counted over its three outer dimensions.
float * row(const ggml_tensor * t, int64_t r) {
    const int64_t i1 = r % t->ne[1];
    const int64_t i2 = r / t->ne[1] % t->ne[2];
    const int64_t i3 = r / (t->ne[1] * t->ne[2]);
    return (float *) ((char *) t->data + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3]);
}

void run(const ggml_compute_params * params, const ggml_tensor * norm, const float * w, ggml_tensor * dst) {
    const ggml_tensor * src = norm->src[0];
    const int64_t       n   = src->ne[0];
    const int64_t       nr  = ggml_nrows(src);
    float               eps;
    memcpy(&eps, norm->op_params, sizeof eps);

    // In place, a thread's columns would change under another's sum: whole rows then.
    const bool  by_columns = nr < params->nth && dst->data != src->data;
    const Range rows       = by_columns ? Range{ 0, nr } : split(nr, 1, params->ith, params->nth);
    const Range columns    = by_columns ? split(n, column_grain, params->ith, params->nth) : Range{ 0, n };
    if (columns.begin == columns.end) {
        return;
    }
    for (int64_t r = rows.begin; r < rows.end; r++) {
        const float * x = row(src, r);
        scale_row(x, w, row(dst, r), rms_scale(x, n, eps), columns.begin, columns.end);
    }
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    run(params, node, nullptr, node);
}

void compute_fused(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    ggml_tensor * mul = graph->nodes[i + 1];
    run(params, graph->nodes[i], (const float *) weights_of(graph->nodes[i], mul)->data, mul);
}

}  // namespace

const Kernel rms_norm_kernel = { "rms_norm", accepts, compute, nullptr, can_fuse, compute_fused };

}  // namespace axion
