// Matrix products that read the same activations, computed in one go: one quantisation, one list of jobs, and what
// the graph does to the products right after them (GLU, ADD) applied to each tile as it leaves the registers.
//
// A lone MUL_MAT is a group of one. Results are those of the separate nodes, bit for bit: the same tiles, the same
// row function of RMSNorm in front, the same arithmetic behind.
#pragma once

#include "kernel.h"
#include "mul_mat_tile.h"

namespace axion {

// One weight matrix and where its product would go by itself.
struct Matrix {
    const TileFormat * format;
    const char *       rows;
    size_t             row_bytes;
    float *            dst;
    int64_t            dst_stride;  // floats from one column to the next
};

// Something to add to a product; stride 0: the same row for every column.
struct Addend {
    const float * data;
    int64_t       stride;
};

// y[i] = act(gate[i]) * up[i] for the n = 16 values of a tile.
using GluRow = void (*)(const int n, float * y, const float * gate, const float * up);

struct Part {
    Matrix  matrix[2];  // two: gate and up, of the same shape
    int     num_matrices;
    GluRow  glu;
    Addend  addend[2];
    int     num_addends;
    float * out;
    int64_t out_stride;
    int64_t num_rows;

    bool has_epilogue() const {
        return glu != nullptr || num_addends > 0;
    }
};

constexpr int max_parts = 4;

struct Group {
    const ggml_tensor * x;             // F32 rows
    const float *       norm_weights;  // null: x is taken as it is
    float               norm_eps;
    ggml_tensor *       normed;  // where the normed rows go if somebody else wants them, else null
    int64_t             num_columns, num_blocks;
    Part                parts[max_parts];
    int                 num_parts;
    const Group *       next;  // whose weights will be read after these, if known
};

// Scratch for any group of these products; an upper bound.
size_t group_work_size(int64_t num_columns, int64_t num_blocks, int n_threads);

void run_group(const ggml_compute_params * params, const Group & group);

// True when MUL_MAT's own kernel takes the node; then this is its group's part.
bool mul_mat_accepts(const ggml_tensor * node);
Part part_of(const ggml_tensor * mul_mat);

// Computes node i with nodes behind it; returns how many those are (mul_mat_fuse.cpp).
int fuse_mul_mat(const ggml_compute_params * params, const ggml_cgraph * graph, int i);

}  // namespace axion
