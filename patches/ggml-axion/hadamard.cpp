// MUL_MAT by a Hadamard matrix (llama.cpp marks it): the fast transform, row by row. Left to upstream: F16 input, rows
// of fewer than 64 values.

#include "hadamard.h"

#include "rows.h"

namespace axion {
namespace {

bool accepts(const ggml_tensor * node) {
    if (node->op != GGML_OP_MUL_MAT || ggml_get_op_params_i32(node, 1) != GGML_HINT_SRC0_IS_HADAMARD) {
        return false;
    }
    const int64_t n = node->src[1]->ne[0];
    return has_f32_rows(node) && has_f32_rows(node->src[1]) && n >= hadamard_block && (n & (n - 1)) == 0;
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    const ggml_tensor * src  = node->src[1];
    const Range         mine = split(ggml_nrows(src), 1, params->ith, params->nth);
    for (int64_t r = mine.begin; r < mine.end; r++) {
        hadamard_row(row_of(src, r), (int) src->ne[0], row_of(node, r));
    }
}

}  // namespace

const Kernel hadamard_kernel = { "hadamard", accepts, compute, nullptr, nullptr, nullptr };

}  // namespace axion
