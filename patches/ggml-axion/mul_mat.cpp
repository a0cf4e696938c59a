// MUL_MAT over quantised weights as they lie in the file: activations to int8 once, then tiles of 16 rows by 8 columns.
//
// Takes: weights of one matrix (no batch) with at least 16 rows, in a format that has tiles here; F32 activations of
// any shape; contiguous F32 output. mul_mat_group.cpp does the work, mul_mat_fuse.cpp finds what can be done with it.

#include "mul_mat_group.h"

namespace axion {

bool mul_mat_accepts(const ggml_tensor * node) {
    if (node->op != GGML_OP_MUL_MAT || node->type != GGML_TYPE_F32) {
        return false;
    }
    const ggml_tensor * w      = node->src[0];
    const ggml_tensor * x      = node->src[1];
    const TileFormat *  format = tile_format(w->type);
    return format != nullptr && ggml_get_op_params_i32(node, 1) == 0 && x->type == GGML_TYPE_F32 &&
           x->nb[0] == sizeof(float) && ggml_is_contiguous(node) && w->ne[2] == 1 && w->ne[3] == 1 &&
           w->nb[0] == ggml_type_size(w->type) && w->ne[0] > 0 && w->ne[0] % format->block == 0 &&
           w->ne[1] >= tile_rows && ggml_nrows(node) > 0;
}

Part part_of(const ggml_tensor * node) {
    const ggml_tensor * w = node->src[0];
    Part                p{};
    p.matrix[0]    = { tile_format(w->type), (const char *) w->data, w->nb[1], (float *) node->data, node->ne[0] };
    p.num_matrices = 1;
    p.out          = (float *) node->data;
    p.out_stride   = node->ne[0];
    p.num_rows     = node->ne[0];
    return p;
}

namespace {

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    Group g{};
    g.x           = node->src[1];
    g.num_columns = ggml_nrows(node);
    g.num_blocks  = node->src[0]->ne[0] / act_block;
    g.parts[0]    = part_of(node);
    g.num_parts   = 1;
    run_group(params, g);
}

size_t work_size(const ggml_tensor * node, int n_threads) {
    return group_work_size(ggml_nrows(node), node->src[0]->ne[0] / act_block, n_threads);
}

}  // namespace

const Kernel mul_mat_kernel = { "mul_mat", mul_mat_accepts, compute, work_size, nullptr, nullptr, fuse_mul_mat };

}  // namespace axion
