// Runs a group of matrix products: quantise, then tiles of 16 rows by 8 columns (16 with AMX) of all its matrices.
//
// Few columns: each thread quantises them for itself (no barrier) and dots straight from the packed rows. Many:
// quantised together, then jobs of rows x columns are drawn from a counter.

#include "fuse.h"
#include "mul_mat_ahead.h"
#include "mul_mat_columns.h"
#include "rms_norm.h"
#include "rows.h"

namespace axion {
namespace {

constexpr int64_t panel_blocks        = 32;     // 20 KiB of L1
constexpr int64_t job_columns         = 256;    // their activations stay in L2 while the job's rows pass
constexpr int64_t most_private_values = 16384;  // activations that each thread may as well quantise itself
constexpr int     max_matrices        = 2 * max_parts;
constexpr size_t  panel_bytes         = panel_blocks * sizeof(PanelBlock);

bool is_private(int64_t num_columns, int64_t num_blocks) {
    return num_columns <= group_columns && num_columns * num_blocks * act_block <= most_private_values;
}

size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

// One thread's own scratch: a normed row, and the activations or a panel.
size_t thread_bytes(int64_t num_columns, int64_t num_blocks) {
    const size_t row = aligned(num_blocks * act_block * sizeof(float));
    return row + (is_private(num_columns, num_blocks) ? acts_bytes(num_columns, num_blocks) : panel_bytes);
}

size_t shared_bytes(int64_t num_columns, int64_t num_blocks) {
    return is_private(num_columns, num_blocks)
               ? 0
               : columns_bytes(num_columns, num_blocks) + aligned(max_matrices * num_columns * sizeof(float *));
}

// Quantises columns, normed before where the group says so. `stores` the normed rows where they are wanted.
template <class Columns> void quantise(const Group & g, const Columns & acts, Range columns, float * row, bool stores) {
    const int64_t n = g.num_blocks * act_block;
    for (int64_t j = columns.begin; j < columns.end; j++) {
        const float * x = row_of(g.x, j);
        if (g.norm_weights != nullptr) {
            float * y = stores && g.normed != nullptr ? row_of(g.normed, j) : row;
            scale_row(x, g.norm_weights, y, rms_scale(x, n, g.norm_eps), 0, n);
            x = y;
        }
        acts.quantise(x, j);
    }
}

// Sixteen rows of the weights. The last tile starts early enough to be whole; only its last lanes are its own.
struct RowTile {
    int64_t row;
    int     skip;

    RowTile(int64_t num_rows, int64_t first) {
        const int64_t last = num_rows - tile_rows;
        row                = first < last ? first : last;
        skip               = (int) (first - row);
    }

    const char * rows(const Matrix & m) const {
        return m.rows + row * m.row_bytes;
    }

    uint16_t lanes() const {
        return (uint16_t) (0xffff << skip);
    }
};

// What the graph does to n products of one column, from row `row` on. `out` may be where an addend or a lies.
void finish(const Part & p, int64_t column, int64_t row, int n, const float * a, const float * b) {
    float * out = p.out + column * p.out_stride + row;
    if (p.glu != nullptr) {
        p.glu(n, out, a, b);
        return;
    }
    const float * addend[2];
    for (int k = 0; k < p.num_addends; k++) {
        addend[k] = p.addend[k].data + column * p.addend[k].stride + row;
    }
    if (n == tile_rows) {
        f32x16 sum = load16(a);
        for (int k = 0; k < p.num_addends; k++) {
            sum += load16(addend[k]);
        }
        store16(out, sum);
        return;
    }
    for (int i = 0; i < n; i++) {
        float sum = a[i];
        for (int k = 0; k < p.num_addends; k++) {
            sum += addend[k][i];
        }
        out[i] = sum;
    }
}

// Tiles [tiles.begin, tiles.end) of one part, for at most eight columns. `stream` has what is read after them.
void run_fused(const Part & p, const Acts & acts, Range tiles, WeightStream * stream) {
    const int         width = acts.width(0);
    alignas(64) float product[2][group_columns][tile_rows];
    float *           direct[group_columns];
    float *           buffer[2][group_columns];
    for (int n = 0; n < width; n++) {
        direct[n]    = p.matrix[0].dst + n * p.matrix[0].dst_stride;
        buffer[0][n] = product[0][n];
        buffer[1][n] = product[1][n];
    }
    for (int64_t t = tiles.begin; t < tiles.end; t++) {
        const RowTile tile(p.num_rows, t * tile_rows);
        const auto    compute = [&](const Matrix & m, TileOutput out) {
            const char * rows = tile.rows(m);
            if (stream != nullptr) {
                const char * ahead = stream->take(tile_rows * m.row_bytes);
                out.ahead          = ahead != nullptr ? ahead : rows;
            }
            m.format->fused[width](rows, m.row_bytes, acts.num_blocks, acts.data, out);
        };
        if (!p.has_epilogue()) {
            compute(p.matrix[0], { direct, tile.row, tile.lanes() });
            continue;
        }
        for (int k = 0; k < p.num_matrices; k++) {
            compute(p.matrix[k], { buffer[k], 0, 0xffff });
        }
        for (int n = 0; n < width; n++) {
            finish(p, n, tile.row + tile.skip, (int) tile_rows - tile.skip, product[0][n] + tile.skip,
                   product[1][n] + tile.skip);
        }
    }
}

// Per column: where a matrix' product goes.
struct PartTables {
    float ** matrix[2];
};

// Sums that are not complete yet live where the product would go by itself.
template <class Columns>
void run_panels(const Part & p, const PartTables & dst, const Columns & acts, Range tiles, Range groups,
                PanelBlock * panel) {
    constexpr int64_t per_group = Columns::per_group;
    for (int64_t b = 0; b < acts.num_blocks; b += panel_blocks) {
        const int64_t n       = acts.num_blocks - b < panel_blocks ? acts.num_blocks - b : panel_blocks;
        const bool    is_last = b + n == acts.num_blocks;
        for (int64_t t = tiles.begin; t < tiles.end; t++) {
            const RowTile tile(p.num_rows, t * tile_rows);
            for (int k = 0; k < p.num_matrices; k++) {
                const Matrix & m = p.matrix[k];
                acts.unpack(m, tile.rows(m), b, n, panel);
                for (int64_t g = groups.begin; g < groups.end; g++) {
                    acts.multiply(m, panel, b, n, g, { dst.matrix[k] + g * per_group, tile.row, tile.lanes() });
                }
            }
            if (is_last && p.has_epilogue()) {
                const int64_t row = tile.row + tile.skip;
                for (int64_t g = groups.begin; g < groups.end; g++) {
                    for (int64_t j = g * per_group; j < g * per_group + acts.width(g); j++) {
                        finish(p, j, row, (int) tile_rows - tile.skip, dst.matrix[0][j] + row,
                               p.num_matrices == 2 ? dst.matrix[1][j] + row : nullptr);
                    }
                }
            }
        }
    }
}

void run_private(const ggml_compute_params * params, const Group & g, char * own) {
    const TileShare share(g, params->ith, params->nth);
    const bool      stores = params->ith == 0 && g.normed != nullptr;
    if (share.is_empty && !stores) {
        return;
    }
    const NarrowColumns acts(own + aligned(g.num_blocks * act_block * sizeof(float)), g.num_columns, g.num_blocks);
    quantise(g, acts, { 0, g.num_columns }, (float *) own, stores);
    WeightStream stream(g, params->ith, params->nth);
    for (size_t before = 0; before <= prefetch_bytes; before += tile_rows * g.parts[0].matrix[0].row_bytes) {
        stream.take(tile_rows * g.parts[0].matrix[0].row_bytes);
    }
    for (int k = 0; k < g.num_parts; k++) {
        run_fused(g.parts[k], acts, share.tiles[k], is_on(fuse_ahead_kernel) ? &stream : nullptr);
    }
}

struct Jobs {
    int64_t tiles, groups;  // of one job
    int64_t num_row_jobs[max_parts], total_row_jobs, num_column_jobs;
};

// Four jobs per thread where the products are large enough; at least one tile each.
template <class Columns> Jobs cut_into_jobs(const Group & g, const Columns & acts, int nth) {
    Jobs    j;
    int64_t tiles = 0;
    for (int k = 0; k < g.num_parts; k++) {
        tiles += num_tiles(g.parts[k]);
    }
    j.groups          = job_columns / Columns::per_group;
    j.num_column_jobs = (acts.num_groups() + j.groups - 1) / j.groups;
    j.tiles           = tiles * j.num_column_jobs / (4 * nth);
    j.tiles           = j.tiles < 1 ? 1 : j.tiles > 16 ? 16 : j.tiles;
    j.total_row_jobs  = 0;
    for (int k = 0; k < g.num_parts; k++) {
        j.num_row_jobs[k] = (num_tiles(g.parts[k]) + j.tiles - 1) / j.tiles;
        j.total_row_jobs += j.num_row_jobs[k];
    }
    return j;
}

Range at_most(int64_t begin, int64_t count, int64_t end) {
    return { begin, begin + count < end ? begin + count : end };
}

template <class Columns>
void run_jobs(const ggml_compute_params * params, const Group & g, const PartTables * dst, const Columns & acts,
              PanelBlock * panel) {
    [[maybe_unused]] const typename Columns::Session session;
    const Jobs                                       jobs     = cut_into_jobs(g, acts, params->nth);
    const int64_t                                    num_jobs = jobs.total_row_jobs * jobs.num_column_jobs;
    for (int64_t job = params->ith; job < num_jobs; job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        int64_t r = job % jobs.total_row_jobs;
        int     k = 0;
        while (r >= jobs.num_row_jobs[k]) {
            r -= jobs.num_row_jobs[k++];
        }
        const Part & p     = g.parts[k];
        const Range  tiles = at_most(r * jobs.tiles, jobs.tiles, num_tiles(p));
        if constexpr (std::is_same_v<Columns, NarrowColumns>) {
            if (acts.num_groups() == 1) {
                run_fused(p, acts, tiles, nullptr);
                continue;
            }
        }
        run_panels(p, dst[k], acts, tiles,
                   at_most(job / jobs.total_row_jobs * jobs.groups, jobs.groups, acts.num_groups()), panel);
    }
}

// Quantises together, then multiplies.
template <class Columns> void run_together(const ggml_compute_params * params, const Group & g, char * scratch) {
    const int ith = params->ith, nth = params->nth;
    char * own = scratch + shared_bytes(g.num_columns, g.num_blocks) + ith * thread_bytes(g.num_columns, g.num_blocks);
    const Columns acts(scratch, g.num_columns, g.num_blocks);
    // Whole groups where there are enough: threads do not write into the same cache lines.
    const int64_t grain   = g.num_columns < Columns::per_group * nth ? 1 : Columns::per_group;
    const Range   columns = split(g.num_columns, grain, ith, nth);
    quantise(g, acts, columns, (float *) own, true);
    float **   table          = (float **) (scratch + columns_bytes(g.num_columns, g.num_blocks));
    PartTables dst[max_parts] = {};
    for (int k = 0; k < g.num_parts; k++) {
        for (int m = 0; m < g.parts[k].num_matrices; m++, table += g.num_columns) {
            const Matrix & matrix = g.parts[k].matrix[m];
            dst[k].matrix[m]      = table;
            for (int64_t j = columns.begin; j < columns.end; j++) {
                table[j] = matrix.dst + j * matrix.dst_stride;
            }
        }
    }
    if (ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, nth);
    }
    ggml_barrier(params->threadpool);
    run_jobs(params, g, dst, acts, (PanelBlock *) (own + aligned(g.num_blocks * act_block * sizeof(float))));
}

}  // namespace

size_t group_work_size(int64_t num_columns, int64_t num_blocks, int n_threads) {
    return 64 + shared_bytes(num_columns, num_blocks) + n_threads * thread_bytes(num_columns, num_blocks);
}

void run_group(const ggml_compute_params * params, const Group & g) {
    char * scratch = (char *) aligned((size_t) params->wdata);
    if (is_private(g.num_columns, g.num_blocks)) {
        run_private(params, g, scratch + params->ith * thread_bytes(g.num_columns, g.num_blocks));
        return;
    }
#if defined(AXION_AMX)
    if (WideColumns::takes(g)) {
        count_call(params, amx_kernel, true);
        run_together<WideColumns>(params, g, scratch);
        return;
    }
#endif
    run_together<NarrowColumns>(params, g, scratch);
}

}  // namespace axion
