// MUL_MAT over F32, F16 and BF16 weights: strips of 16 rows by 8 columns, in FP32.
//
// Takes: F32 activations and output, rows of any stride, at least 16 weight rows; batches of weights, with broadcasting
// (all columns that meet one weight matrix are done together). Few columns: each thread packs them for itself (no
// barrier) and multiplies straight from the rows. Many: packed together, then jobs of rows x columns are drawn from a
// counter, and a job packs its rows piece by piece.

#include "mul_mat_float_tile.h"

#include "kernel.h"

namespace axion {
namespace {

constexpr int64_t most_strips         = 8;  // of a job: 128 KiB of L2 for a piece
constexpr int64_t job_columns         = 256;
constexpr int64_t most_private_values = 16384;  // activations that each thread may as well pack itself

struct Product {
    const FloatFormat & format;
    const ggml_tensor * w;
    const ggml_tensor * x;
    ggml_tensor *       dst;
    int64_t             num_values, num_units, piece;  // of K
    int64_t             num_matrices, num_columns;     // columns that meet one matrix

    explicit Product(ggml_tensor * node)
        : format(*float_format(node->src[0]->type)), w(node->src[0]), x(node->src[1]), dst(node), num_values(w->ne[0]),
          num_units(format.num_units(num_values)), piece(format.piece_length(num_values)),
          num_matrices(w->ne[2] * w->ne[3]), num_columns(ggml_nrows(x) / num_matrices) {
    }

    int64_t num_strips() const {
        return (w->ne[1] + tile_rows - 1) / tile_rows;
    }

    int64_t num_groups() const {
        return (num_columns + group_columns - 1) / group_columns;
    }

    int width(int64_t g) const {
        const int64_t left = num_columns - g * group_columns;
        return (int) (left < group_columns ? left : group_columns);
    }

    size_t acts_bytes() const {  // of one matrix
        return (size_t) (num_columns * num_units * 4 + 63) / 64 * 64;
    }

    bool is_private() const {
        return num_columns <= group_columns && num_columns * num_values <= most_private_values;
    }

    const char * matrix(int64_t m) const {
        return (const char *) w->data + m % w->ne[2] * w->nb[2] + m / w->ne[2] * w->nb[3];
    }

    // Row of a tensor shaped like x or dst that is column j of matrix m.
    template <class T> T * column(const ggml_tensor * t, int64_t m, int64_t j) const {
        const int64_t per_w2 = x->ne[2] / w->ne[2], per_w3 = x->ne[3] / w->ne[3];
        const int64_t outer = j / x->ne[1];
        const int64_t i1 = j % x->ne[1], i2 = m % w->ne[2] * per_w2 + outer % per_w2;
        const int64_t i3 = m / w->ne[2] * per_w3 + outer / per_w2;
        return (T *) ((char *) t->data + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3]);
    }

    // Where values from k on, a multiple of a piece, of group g lie: all groups' units of a piece are together.
    uint32_t * group(char * acts, int64_t g, int64_t k) const {
        const int64_t before = k / format.values_per_unit;
        const int64_t whole  = piece / format.values_per_unit;
        const int64_t units  = num_units - before < whole ? num_units - before : whole;
        return (uint32_t *) acts + before * num_columns + g * group_columns * units;
    }

    void pack(char * acts, int64_t m, int64_t g, int64_t k) const {
        const float * columns[group_columns];
        for (int n = 0; n < width(g); n++) {
            columns[n] = column<const float>(x, m, g * group_columns + n);
        }
        const int64_t n = num_values - k < piece ? num_values - k : piece;
        format.pack_columns(columns, width(g), k, n, group(acts, g, k));
    }
};

// The last strip starts early enough to be whole, and stores only what is its own.
TileOutput strip_output(const Product & p, int64_t strip) {
    const int64_t first = strip * tile_rows, last = p.w->ne[1] - tile_rows;
    const int64_t row = first < last ? first : last;
    return { nullptr, row, (uint16_t) (0xffff << (first - row)) };
}

void run_fused(const Product & p, char * acts, int64_t m, Range strips) {
    float * dst[group_columns];
    for (int n = 0; n < (int) p.num_columns; n++) {
        dst[n] = p.column<float>(p.dst, m, n);
    }
    for (int64_t s = strips.begin; s < strips.end; s++) {
        TileOutput out = strip_output(p, s);
        out.dst        = dst;
        p.format.fused[p.num_columns](p.matrix(m) + (size_t) out.row * p.w->nb[1], p.w->nb[1], p.num_values,
                                      (const uint32_t *) acts, out);
    }
}

void run_panels(const Product & p, char * acts, int64_t m, Range strips, Range groups, char * panel) {
    TileOutput out[most_strips];
    for (int64_t s = strips.begin; s < strips.end; s++) {
        out[s - strips.begin] = strip_output(p, s);
    }
    const int64_t count = strips.end - strips.begin;
    for (int64_t k = 0; k < p.num_values; k += p.piece) {
        const int64_t n     = p.num_values - k < p.piece ? p.num_values - k : p.piece;
        const int64_t units = p.format.num_units(n);
        for (int64_t s = 0; s < count; s++) {
            p.format.pack_rows(p.matrix(m) + (size_t) out[s].row * p.w->nb[1], p.w->nb[1], k, n,
                               panel + s * units * (int64_t) unit_row_bytes);
        }
        for (int64_t g = groups.begin; g < groups.end; g++) {
            const int width = p.width(g);
            float *   dst[group_columns];
            for (int j = 0; j < width; j++) {
                dst[j] = p.column<float>(p.dst, m, g * group_columns + j);
            }
            for (int64_t s = 0; s < count; s++) {
                out[s].dst = dst;
            }
            p.format.panel[width](panel, count, units, p.group(acts, g, k), out, k == 0);
        }
    }
}

bool accepts(const ggml_tensor * node) {
    if (node->op != GGML_OP_MUL_MAT || node->type != GGML_TYPE_F32) {
        return false;
    }
    const ggml_tensor * w = node->src[0];
    const ggml_tensor * x = node->src[1];
    return float_format(w->type) != nullptr && ggml_get_op_params_i32(node, 1) == 0 && x->type == GGML_TYPE_F32 &&
           x->nb[0] == sizeof(float) && node->nb[0] == sizeof(float) && w->nb[0] == ggml_type_size(w->type) &&
           w->ne[0] > 0 && w->ne[1] >= tile_rows && ggml_nrows(w) > 0 && ggml_nrows(node) > 0;
}

constexpr size_t panel_bytes = most_strips * most_piece_units * unit_row_bytes;

size_t work_size(const ggml_tensor * node, int n_threads) {
    const Product p(const_cast<ggml_tensor *>(node));
    const size_t  acts = p.acts_bytes();
    return 64 + (p.is_private() ? n_threads * acts : p.num_matrices * acts + n_threads * panel_bytes);
}

// Strips of all matrices, cut evenly over the threads.
void compute_private(const Product & p, char * acts, int ith, int nth) {
    const int64_t per_matrix = p.num_strips();
    const Range   all        = split(p.num_matrices * per_matrix, 1, ith, nth);
    for (int64_t s = all.begin; s < all.end;) {
        const int64_t m   = s / per_matrix;
        const int64_t end = (m + 1) * per_matrix < all.end ? (m + 1) * per_matrix : all.end;
        for (int64_t k = 0; k < p.num_values; k += p.piece) {
            p.pack(acts, m, 0, k);
        }
        run_fused(p, acts, m, { s - m * per_matrix, end - m * per_matrix });
        s = end;
    }
}

void pack_together(const Product & p, char * acts, int ith, int nth) {
    const int64_t pieces = (p.num_values + p.piece - 1) / p.piece;
    const Range   all    = split(p.num_matrices * pieces * p.num_groups(), 1, ith, nth);
    for (int64_t i = all.begin; i < all.end; i++) {
        const int64_t m = i / (pieces * p.num_groups());
        p.pack(acts + (size_t) m * p.acts_bytes(), m, i % p.num_groups(), i / p.num_groups() % pieces * p.piece);
    }
}

// Four jobs per thread where the product is large enough; two strips at least, which share a register tile.
void run_jobs(const ggml_compute_params * params, const Product & p, char * acts, char * panel) {
    const int64_t groups      = job_columns / group_columns;
    const int64_t column_jobs = (p.num_groups() + groups - 1) / groups;
    int64_t       strips      = p.num_matrices * p.num_strips() * column_jobs / (4 * params->nth) / 2 * 2;
    strips                    = strips < 2 ? 2 : strips > most_strips ? most_strips : strips;
    const int64_t row_jobs    = (p.num_strips() + strips - 1) / strips;
    const int64_t matrix_jobs = row_jobs * column_jobs;
    const int64_t num_jobs    = p.num_matrices * matrix_jobs;
    for (int64_t job = params->ith; job < num_jobs; job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        const int64_t m = job / matrix_jobs, s = job % row_jobs * strips, g = job % matrix_jobs / row_jobs * groups;
        const Range   own = { s, s + strips < p.num_strips() ? s + strips : p.num_strips() };
        char *        x   = acts + (size_t) m * p.acts_bytes();
        if (p.num_groups() == 1) {
            run_fused(p, x, m, own);
        } else {
            run_panels(p, x, m, own, { g, g + groups < p.num_groups() ? g + groups : p.num_groups() }, panel);
        }
    }
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    const Product p(node);
    const int     ith = params->ith, nth = params->nth;
    const size_t  bytes   = p.acts_bytes();
    char *        scratch = (char *) (((size_t) params->wdata + 63) / 64 * 64);
    if (p.is_private()) {
        compute_private(p, scratch + ith * bytes, ith, nth);
        return;
    }
    pack_together(p, scratch, ith, nth);
    if (ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, nth);
    }
    ggml_barrier(params->threadpool);
    run_jobs(params, p, scratch, scratch + p.num_matrices * bytes + ith * panel_bytes);
}

}  // namespace

const Kernel mul_mat_float_kernel = { "mul_mat_float", accepts, compute, work_size, nullptr, nullptr };

}  // namespace axion
