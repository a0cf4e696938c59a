// MUL_MAT_ID (mixture of experts): the tiles of the plain products, over the columns that chose each expert.
//
// Takes: the weight formats that MUL_MAT takes, at least 16 rows an expert; F32 activations and output. A column is one
// (token, place among its experts) pair; columns are sorted by expert, and every thread sorts for itself. Few columns:
// each thread packs them all (no barrier) and multiplies straight from the rows. Many: packed together, then jobs of
// rows x columns of one expert are drawn from a counter. A column's products do not depend on the other columns.

#include "kernel.h"
#include "mul_mat_id_tiles.h"

namespace axion {
namespace {

constexpr int64_t most_private_values = 32768;  // activations that each thread may as well pack itself
constexpr int64_t job_groups          = 32;
constexpr size_t  panel_bytes =
    std::max<size_t>(most_piece_units * unit_row_bytes, id_panel_blocks * sizeof(PanelBlock));  // of either kind

size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

struct Shape {
    int64_t num_pairs, num_experts, column_bytes;
    bool    is_private;

    // Scratch: tables per thread, activations (per thread where few), panels.
    size_t table_bytes() const {
        return aligned((size_t) ((num_experts + 1) * 8 + num_pairs * 2 * 8));
    }

    size_t acts_bytes() const {
        return aligned((size_t) (num_pairs * column_bytes));
    }

    size_t thread_bytes() const {
        return table_bytes() + (is_private ? acts_bytes() : panel_bytes);
    }

    size_t shared_bytes() const {
        return is_private ? 0 : acts_bytes();
    }
};

template <class Tiles> class Product {
  public:
    explicit Product(ggml_tensor * node)
        : tiles(node->src[0]), w(node->src[0]), x(node->src[1]), ids(node->src[2]), dst(node),
          shape{ ids->ne[0] * ids->ne[1], w->ne[2], tiles.column_bytes(), false } {
        shape.is_private = shape.num_pairs <= 4 * group_columns && shape.num_pairs * w->ne[0] <= most_private_values;
    }

    size_t work_size(int n_threads) const {
        return 64 + shape.shared_bytes() + n_threads * shape.thread_bytes();
    }

    void run(const ggml_compute_params * params) {
        const int ith = params->ith, nth = params->nth;
        char *    scratch = (char *) aligned((size_t) params->wdata);
        char *    own     = scratch + shape.shared_bytes() + ith * shape.thread_bytes();
        char *    rest    = own + shape.table_bytes();
        sort_pairs(own);
        acts = shape.is_private ? rest : scratch;
        if (shape.is_private) {
            pack(0, 1);
            run_private(split(num_chosen() * num_tiles(), 1, ith, nth));
            return;
        }
        pack(ith, nth);
        if (ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, nth);
        }
        ggml_barrier(params->threadpool);
        run_jobs(params, rest);
    }

  private:
    Tiles               tiles;
    const ggml_tensor * w;
    const ggml_tensor * x;
    const ggml_tensor * ids;
    ggml_tensor *       dst;
    Shape               shape;
    char *              acts;
    int64_t *           first;    // per expert: its first column; one more at the end
    const float **      sources;  // per column, sorted by expert
    float **            targets;

    int64_t num_tiles() const {
        return (w->ne[1] + tile_rows - 1) / tile_rows;
    }

    int64_t num_chosen() const {
        int64_t n = 0;
        for (int64_t e = 0; e < shape.num_experts; e++) {
            n += first[e + 1] > first[e];
        }
        return n;
    }

    int32_t chosen(int64_t place, int64_t token) const {
        return *(const int32_t *) ((const char *) ids->data + place * ids->nb[0] + token * ids->nb[1]);
    }

    // By counting, in the order of tokens. An expert that does not exist is nobody's: its column is left out.
    void sort_pairs(char * table) {
        first   = (int64_t *) table;
        targets = (float **) (table + (shape.num_experts + 1) * 8);
        sources = (const float **) (table + (shape.num_experts + 1 + shape.num_pairs) * 8);
        memset(first, 0, (size_t) (shape.num_experts + 1) * sizeof *first);
        const auto each_pair = [&](auto visit) {
            for (int64_t t = 0; t < ids->ne[1]; t++) {
                for (int64_t i = 0; i < ids->ne[0]; i++) {
                    const int64_t e = chosen(i, t);
                    if (e >= 0 && e < shape.num_experts) {
                        visit(e, i, t);
                    }
                }
            }
        };
        each_pair([&](int64_t e, int64_t, int64_t) { first[e + 1]++; });
        for (int64_t e = 0; e < shape.num_experts; e++) {
            first[e + 1] += first[e];
        }
        each_pair([&](int64_t e, int64_t i, int64_t t) {
            const int64_t at = first[e]++;
            sources[at]      = (const float *) ((const char *) x->data + i % x->ne[1] * x->nb[1] + t * x->nb[2]);
            targets[at]      = (float *) ((char *) dst->data + i * dst->nb[1] + t * dst->nb[2]);
        });
        for (int64_t e = shape.num_experts; e > 0; e--) {
            first[e] = first[e - 1];
        }
        first[0] = 0;
    }

    Expert expert(int64_t e) const {
        return { (const char *) w->data + e * w->nb[2], w->nb[1], acts + first[e] * shape.column_bytes,
                 targets + first[e], first[e + 1] - first[e] };
    }

    // Every nth group of columns.
    void pack(int ith, int nth) const {
        int64_t count = 0;
        for (int64_t e = 0; e < shape.num_experts; e++) {
            const Expert expert = this->expert(e);
            for (int64_t g = 0; g < expert.num_groups(); g++) {
                if (count++ % nth == ith) {
                    tiles.pack(expert, g, sources + first[e] + g * group_columns);
                }
            }
        }
    }

    // One tile of 16 rows; the last starts early enough to be whole, and stores only what is its own.
    void run_tile(const Expert & e, Range groups, int64_t tile, char * panel) const {
        const int64_t    start = tile * tile_rows;
        const int64_t    row   = std::min(start, w->ne[1] - tile_rows);
        const TileOutput out   = { e.dst, row, (uint16_t) (0xffff << (start - row)) };
        const char *     rows  = e.rows + row * e.row_bytes;
        if (e.num_columns <= group_columns) {
            tiles.fused(e, rows, out);
        } else {
            tiles.panels(e, groups, rows, out, panel);
        }
    }

    // Tiles of all chosen experts, counted through; more than eight columns of an expert go group by group.
    void run_private(Range mine) const {
        int64_t before = 0;
        for (int64_t e = 0; e < shape.num_experts; e++) {
            const Expert whole = expert(e);
            if (whole.num_columns == 0) {
                continue;
            }
            for (int64_t g = 0; g < whole.num_groups(); g++) {
                Expert one      = whole;
                one.acts        = whole.acts + g * group_columns * shape.column_bytes;
                one.dst         = whole.dst + g * group_columns;
                one.num_columns = whole.width(g);
                for (int64_t t = std::max<int64_t>(mine.begin - before, 0);
                     t < std::min(num_tiles(), mine.end - before); t++) {
                    run_tile(one, { 0, 1 }, t, nullptr);
                }
            }
            before += num_tiles();
        }
    }

    // A job: some tiles of at most 256 columns of one expert; about eight jobs a thread where there is enough.
    void run_jobs(const ggml_compute_params * params, char * panel) const {
        int64_t segments = 0;
        for (int64_t e = 0; e < shape.num_experts; e++) {
            segments += (expert(e).num_groups() + job_groups - 1) / job_groups;
        }
        const int64_t per_job = std::min<int64_t>(16, std::max<int64_t>(1, num_tiles() * segments / (8 * params->nth)));
        const int64_t row_jobs = (num_tiles() + per_job - 1) / per_job;
        int64_t       e = 0, before = 0;  // segments of the experts before e
        for (int64_t job = params->ith; job < segments * row_jobs;
             job         = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t segment = job / row_jobs;
            for (;; e++) {
                const int64_t own = (expert(e).num_groups() + job_groups - 1) / job_groups;
                if (segment < before + own) {
                    break;
                }
                before += own;
            }
            const Expert  one = expert(e);
            const int64_t g   = (segment - before) * job_groups;
            const int64_t end = std::min(num_tiles(), (job % row_jobs + 1) * per_job);
            for (int64_t t = job % row_jobs * per_job; t < end; t++) {
                run_tile(one, { g, std::min(g + job_groups, one.num_groups()) }, t, panel);
            }
        }
    }
};

bool accepts(const ggml_tensor * node) {
    if (node->op != GGML_OP_MUL_MAT_ID || node->type != GGML_TYPE_F32) {
        return false;
    }
    const ggml_tensor * w      = node->src[0];
    const ggml_tensor * x      = node->src[1];
    const TileFormat *  format = tile_format(w->type);
    const int64_t       block  = format != nullptr ? format->block : 1;
    return (format != nullptr || float_format(w->type) != nullptr) && x->type == GGML_TYPE_F32 &&
           node->src[2]->type == GGML_TYPE_I32 && x->nb[0] == sizeof(float) && node->nb[0] == sizeof(float) &&
           w->nb[0] == ggml_type_size(w->type) && w->ne[0] > 0 && w->ne[0] % block == 0 && w->ne[1] >= tile_rows &&
           w->ne[2] > 0 && w->ne[3] == 1 && x->ne[3] == 1 && ggml_nrows(node) > 0;
}

size_t work_size(const ggml_tensor * node, int n_threads) {
    ggml_tensor * n = const_cast<ggml_tensor *>(node);
    return tile_format(node->src[0]->type) != nullptr ? Product<QuantisedTiles>(n).work_size(n_threads)
                                                      : Product<FloatTiles>(n).work_size(n_threads);
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    if (tile_format(node->src[0]->type) != nullptr) {
        Product<QuantisedTiles>(node).run(params);
    } else {
        Product<FloatTiles>(node).run(params);
    }
}

}  // namespace

const Kernel mul_mat_id_kernel = { "mul_mat_id", accepts, compute, work_size, nullptr, nullptr };

}  // namespace axion
