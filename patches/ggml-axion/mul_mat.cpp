// MUL_MAT over quantised weights as they lie in the file: activations to int8 once, then tiles of 16 rows by 8 columns.
//
// Takes: weights of one matrix (no batch) with at least 16 rows, in a format that has tiles here; F32 activations of
// any shape; contiguous F32 output. Few columns: each thread quantises them for itself (no barrier) and dots straight
// from the packed rows. Many: quantised together, then jobs of rows x columns are drawn from a counter.

#include "kernel.h"
#include "mul_mat_tile.h"

namespace axion {
namespace {

constexpr int64_t panel_blocks        = 24;     // 15 KiB of L1
constexpr int64_t job_columns         = 256;    // their activations stay in L2 while the job's rows pass
constexpr int64_t most_private_values = 16384;  // activations that each thread may as well quantise itself

struct Shape {
    int64_t num_rows, num_columns, num_blocks;
};

Shape shape_of(const ggml_tensor * node) {
    return { node->ne[0], ggml_nrows(node), node->src[0]->ne[0] / act_block };
}

bool is_private(const Shape & s) {
    return s.num_columns <= group_columns && s.num_columns * s.num_blocks * act_block <= most_private_values;
}

bool accepts(const ggml_tensor * node) {
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

const float * activations(const ggml_tensor * x, int64_t column) {
    const int64_t i1 = column % x->ne[1];
    const int64_t i2 = column / x->ne[1] % x->ne[2];
    const int64_t i3 = column / (x->ne[1] * x->ne[2]);
    return (const float *) ((const char *) x->data + i1 * x->nb[1] + i2 * x->nb[2] + i3 * x->nb[3]);
}

size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

constexpr size_t panel_bytes = panel_blocks * sizeof(PanelBlock);

size_t work_size(const ggml_tensor * node, int n_threads) {
    const Shape  s    = shape_of(node);
    const size_t acts = acts_bytes(s.num_columns, s.num_blocks);
    return 64 + (is_private(s) ? n_threads * acts : acts + n_threads * panel_bytes);
}

Acts acts_at(char * scratch, const Shape & s) {
    const size_t data = aligned(s.num_columns * s.num_blocks * act_block_bytes);
    return { scratch, (float **) (scratch + data), s.num_columns, s.num_blocks };
}

void quantise(const Acts & acts, const ggml_tensor * x, ggml_tensor * dst, Range columns) {
    for (int64_t j = columns.begin; j < columns.end; j++) {
        const int64_t g = j / group_columns;
        acts.dst[j]     = (float *) dst->data + j * dst->ne[0];
        quantise_column_of_width[acts.width(g)](activations(x, j), acts.group(g), (int) (j % group_columns),
                                                acts.num_blocks);
    }
}

// Sixteen rows of the weights. The last tile starts early enough to be whole, and stores only what is its own.
struct RowTile {
    const char * rows;
    TileOutput   out;

    RowTile(const ggml_tensor * w, const Acts & acts, int64_t first) {
        const int64_t last = w->ne[1] - tile_rows;
        const int64_t row  = first < last ? first : last;
        rows               = (const char *) w->data + row * w->nb[1];
        out                = { acts.dst, row, (uint16_t) (0xffff << (first - row)) };
    }
};

void run_fused(const TileFormat & format, const ggml_tensor * w, const Acts & acts, Range rows) {
    for (int64_t r = rows.begin; r < rows.end; r += tile_rows) {
        const RowTile tile(w, acts, r);
        format.fused[acts.num_columns](tile.rows, w->nb[1], acts.num_blocks, acts.data, tile.out);
    }
}

void run_panels(const TileFormat & format, const ggml_tensor * w, const Acts & acts, Range rows, Range groups,
                PanelBlock * panel) {
    for (int64_t b = 0; b < acts.num_blocks; b += panel_blocks) {
        const int64_t n = acts.num_blocks - b < panel_blocks ? acts.num_blocks - b : panel_blocks;
        for (int64_t r = rows.begin; r < rows.end; r += tile_rows) {
            const RowTile tile(w, acts, r);
            format.unpack(tile.rows, w->nb[1], b, n, panel);
            for (int64_t g = groups.begin; g < groups.end; g++) {
                const int  width = acts.width(g);
                TileOutput out   = tile.out;
                out.dst += g * group_columns;
                format.panel[width](panel, n, acts.group(g) + b * width * act_block_bytes, out, b == 0);
            }
        }
    }
}

struct Jobs {
    int64_t rows, groups;  // of one job
    int64_t num_row_jobs, num_column_jobs;
};

// Four jobs per thread where the product is large enough; at least one tile of 16 rows by 8 columns each.
Jobs cut_into_jobs(const Shape & s, const Acts & acts, int nth) {
    Jobs          j;
    const int64_t tiles = (s.num_rows + tile_rows - 1) / tile_rows;
    j.groups            = job_columns / group_columns;
    j.num_column_jobs   = (acts.num_groups() + j.groups - 1) / j.groups;
    int64_t per_job     = tiles * j.num_column_jobs / (4 * nth);
    per_job             = per_job < 1 ? 1 : per_job > 16 ? 16 : per_job;
    j.rows              = per_job * tile_rows;
    j.num_row_jobs      = (tiles + per_job - 1) / per_job;
    return j;
}

void run_jobs(const ggml_compute_params * params, const TileFormat & format, const ggml_tensor * w, const Acts & acts,
              const Jobs & jobs, PanelBlock * panel) {
    const int64_t num_jobs = jobs.num_row_jobs * jobs.num_column_jobs;
    for (int64_t job = params->ith; job < num_jobs; job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t r = job % jobs.num_row_jobs * jobs.rows, g = job / jobs.num_row_jobs * jobs.groups;
        const Range   rows   = { r, r + jobs.rows < w->ne[1] ? r + jobs.rows : w->ne[1] };
        const Range   groups = { g, g + jobs.groups < acts.num_groups() ? g + jobs.groups : acts.num_groups() };
        if (acts.num_groups() == 1) {
            run_fused(format, w, acts, rows);
        } else {
            run_panels(format, w, acts, rows, groups, panel);
        }
    }
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    const ggml_tensor * w       = node->src[0];
    const ggml_tensor * x       = node->src[1];
    const TileFormat &  format  = *tile_format(w->type);
    const Shape         s       = shape_of(node);
    const size_t        bytes   = acts_bytes(s.num_columns, s.num_blocks);
    char *              scratch = (char *) aligned((size_t) params->wdata);
    const int           ith = params->ith, nth = params->nth;

    if (is_private(s)) {
        const Range rows = split(s.num_rows, tile_rows, ith, nth);
        if (rows.begin < rows.end) {
            const Acts acts = acts_at(scratch + ith * bytes, s);
            quantise(acts, x, node, { 0, s.num_columns });
            run_fused(format, w, acts, rows);
        }
        return;
    }
    const Acts acts = acts_at(scratch, s);
    // Whole groups where there are enough: threads do not write into the same cache lines.
    quantise(acts, x, node, split(s.num_columns, s.num_columns < group_columns * nth ? 1 : group_columns, ith, nth));
    if (ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, nth);
    }
    ggml_barrier(params->threadpool);
    run_jobs(params, format, w, acts, cut_into_jobs(s, acts, nth),
             (PanelBlock *) (scratch + bytes + ith * panel_bytes));
}

}  // namespace

const Kernel mul_mat_kernel = { "mul_mat", accepts, compute, work_size, nullptr, nullptr };

}  // namespace axion
