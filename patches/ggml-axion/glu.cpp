// GLU (SwiGLU, GeGLU in three forms, ReGLU, with one tensor or two) and UNARY (SiLU, GELU in three forms, ReLU,
// sigmoid) on F32 rows, shared out by columns.

#include "glu.h"

#include "rows.h"

namespace axion {
namespace {

bool is_our_unary(ggml_unary_op op) {
    switch (op) {
    case GGML_UNARY_OP_SILU:
    case GGML_UNARY_OP_GELU:
    case GGML_UNARY_OP_GELU_ERF:
    case GGML_UNARY_OP_GELU_QUICK:
    case GGML_UNARY_OP_RELU:
    case GGML_UNARY_OP_SIGMOID:
        return true;
    default:
        return false;
    }
}

bool is_our_glu(const ggml_tensor * node) {
    switch (ggml_get_glu_op(node)) {
    case GGML_GLU_OP_REGLU:
    case GGML_GLU_OP_GEGLU:
    case GGML_GLU_OP_SWIGLU:
    case GGML_GLU_OP_GEGLU_ERF:
    case GGML_GLU_OP_GEGLU_QUICK:
    case GGML_GLU_OP_SWIGLU_CLAMP:
        return true;
    case GGML_GLU_OP_SWIGLU_OAI:
        return ggml_get_op_params_f32(node, 2) > 0;
    default:
        return false;
    }
}

bool accepts(const ggml_tensor * node) {
    if (node->op == GGML_OP_UNARY) {
        return is_our_unary(ggml_get_unary_op(node)) && has_f32_rows(node) && has_f32_rows(node->src[0]);
    }
    if (node->op == GGML_OP_GLU) {
        return is_our_glu(node) && has_f32_rows(node) && has_f32_rows(node->src[0]) &&
               (node->src[1] == nullptr || has_f32_rows(node->src[1]));
    }
    return false;
}

template <class F> void unary(const ggml_compute_params * params, ggml_tensor * node, F f) {
    const ggml_tensor * src = node->src[0];
    for_my_columns(params, ggml_nrows(node), node->ne[0], [&](int64_t r, int64_t begin, int64_t end) {
        map_row(row_of(src, r), row_of(node, r), begin, end, f);
    });
}

template <class F> void gated(const ggml_compute_params * params, ggml_tensor * node, F f) {
    const ggml_tensor * src        = node->src[0];
    const ggml_tensor * other      = node->src[1];
    const bool          is_swapped = ggml_get_op_params_i32(node, 1) != 0;
    const int64_t       n          = node->ne[0];
    for_my_columns(params, ggml_nrows(node), n, [&](int64_t r, int64_t begin, int64_t end) {
        const float * x    = row_of(src, r);
        const float * gate = other == nullptr && is_swapped ? x + n : x;
        const float * up   = other != nullptr ? row_of(other, r) : is_swapped ? x : x + n;
        map_rows(gate, up, row_of(node, r), begin, end, f);
    });
}

void compute_unary(const ggml_compute_params * params, ggml_tensor * node) {
    switch (ggml_get_unary_op(node)) {
    case GGML_UNARY_OP_SILU:
        return unary(params, node, [](vf32 x) { return silu(x); });
    case GGML_UNARY_OP_GELU:
        return unary(params, node, [](vf32 x) { return gelu(x); });
    case GGML_UNARY_OP_GELU_ERF:
        return unary(params, node, [](vf32 x) { return gelu_erf(x); });
    case GGML_UNARY_OP_GELU_QUICK:
        return unary(params, node, [](vf32 x) { return gelu_quick(x); });
    case GGML_UNARY_OP_RELU:
        return unary(params, node, [](vf32 x) { return relu(x); });
    default:
        return unary(params, node, [](vf32 x) { return sigmoid(x); });
    }
}

void compute_glu(const ggml_compute_params * params, ggml_tensor * node) {
    const float alpha = ggml_get_op_params_f32(node, 2), limit = ggml_get_op_params_f32(node, 3);
    switch (ggml_get_glu_op(node)) {
    case GGML_GLU_OP_SWIGLU:
        return gated(params, node, [](vf32 g, vf32 u) { return swiglu(g, u); });
    case GGML_GLU_OP_GEGLU:
        return gated(params, node, [](vf32 g, vf32 u) { return geglu(g, u); });
    case GGML_GLU_OP_GEGLU_ERF:
        return gated(params, node, [](vf32 g, vf32 u) { return gelu_erf(g) * u; });
    case GGML_GLU_OP_GEGLU_QUICK:
        return gated(params, node, [](vf32 g, vf32 u) { return gelu_quick(g) * u; });
    case GGML_GLU_OP_REGLU:
        return gated(params, node, [](vf32 g, vf32 u) { return g > 0.0f ? g * u : vf32{}; });
    case GGML_GLU_OP_SWIGLU_CLAMP:
        return gated(params, node, [=](vf32 g, vf32 u) { return swiglu_clamp(g, u, limit); });
    default:
        return gated(params, node, [=](vf32 g, vf32 u) { return swiglu_oai(g, u, alpha, limit); });
    }
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    node->op == GGML_OP_GLU ? compute_glu(params, node) : compute_unary(params, node);
}

}  // namespace

const Kernel glu_kernel = { "glu", accepts, compute, nullptr, nullptr, nullptr };

}  // namespace axion
