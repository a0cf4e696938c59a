// Groups of quantised products through AMX' tiles, as a graph runs them on several threads: the bits of the same group
// without, whatever the batch and the number of threads. Compiled for the plain model of a tile, bodies and all.

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define AXION_AMX_MODEL
#define GGML_COMMON_DECL_CPP

#include "mul_mat_formats.cpp"
#include "mul_mat_group.cpp"

#include "check.h"
#include "pool.h"
#include "small.h"

#include <vector>

using namespace axion;

namespace {

bool             is_amx_on;
std::atomic<int> num_amx_calls;

}  // namespace

// In place of the table of kernels.
namespace axion {

bool is_on(const Kernel & kernel) {
    return &kernel == &amx_kernel && is_amx_on;
}

void count_call(const ggml_compute_params *, const Kernel & kernel, bool is_used) {
    num_amx_calls += &kernel == &amx_kernel && is_used;
}

const Kernel amx_kernel        = { "amx", nullptr, nullptr, nullptr, nullptr, nullptr };
const Kernel fuse_ahead_kernel = { "fuse_ahead", nullptr, nullptr, nullptr, nullptr, nullptr };

}  // namespace axion

namespace {

struct Weights {
    ggml_type         type;
    int64_t           rows;
    size_t            row_bytes;
    std::vector<char> data;

    Weights(ggml_type t, int64_t num_rows, int64_t num_blocks, Random & random)
        : type(t), rows(num_rows), row_bytes((size_t) num_blocks * bytes_of(t)), data(row_bytes * (size_t) num_rows) {
        for (size_t i = 0; i < data.size(); i++) {
            // Small scales: 0x2c.. is about 0.06.
            const size_t at      = i % bytes_of(t);
            const bool   is_high = at == 1 || (t == GGML_TYPE_Q4_1 && at == 3);
            data[i]              = is_high ? 0x2c : (char) random.bits();
        }
    }

    static size_t bytes_of(ggml_type t) {
        return t == GGML_TYPE_Q4_1 ? sizeof(block_q4_1) : sizeof(block_q8_0);
    }
};

void add_and_halve(const int n, float * y, const float * gate, const float * up) {
    for (int i = 0; i < n; i++) {
        y[i] = (gate[i] + up[i]) * 0.5f;
    }
}

// Two products, one with a row and a matrix added, and a pair that becomes one: each in its own memory.
struct Problem {
    int64_t              columns, blocks;
    std::vector<float>   x_data, norm, row, matrix;
    ggml_tensor          x{}, normed{};
    std::vector<Weights> weights;
    std::vector<float>   normed_data, out[5];
    Group                group{};

    Problem(int64_t num_columns, int64_t num_blocks, bool has_norm) : columns(num_columns), blocks(num_blocks) {
        Random     random;
        const auto fill = [&](std::vector<float> & v, int64_t n) {
            v.resize((size_t) n);
            for (float & f : v) {
                f = random.real();
            }
        };
        fill(x_data, columns * blocks * act_block);
        fill(norm, blocks * act_block);
        normed_data.resize(x_data.size());
        tensor(x, x_data);
        tensor(normed, normed_data);
        const int64_t rows[] = { 48, 37, 21, 21 };
        for (int i = 0; i < 4; i++) {
            weights.emplace_back(i % 2 == 0 ? GGML_TYPE_Q8_0 : GGML_TYPE_Q4_1, rows[i], blocks, random);
            out[i].resize((size_t) (rows[i] * columns));
        }
        out[4].resize(out[1].size());
        fill(row, 37);
        fill(matrix, 37 * columns);
        group.x            = &x;
        group.norm_weights = has_norm ? norm.data() : nullptr;
        group.norm_eps     = 1e-5f;
        group.normed       = has_norm ? &normed : nullptr;
        group.num_columns  = columns;
        group.num_blocks   = blocks;
        group.num_parts    = 3;
        part(0, { 0 }, out[0].data());
        part(1, { 1 }, out[4].data());
        group.parts[1].addend[0]   = { row.data(), 0 };
        group.parts[1].addend[1]   = { matrix.data(), 37 };
        group.parts[1].num_addends = 2;
        part(2, { 2, 3 }, out[2].data());
        group.parts[2].glu = add_and_halve;
    }

    void tensor(ggml_tensor & t, std::vector<float> & v) {
        t.type  = GGML_TYPE_F32;
        t.ne[0] = blocks * act_block, t.ne[1] = columns, t.ne[2] = t.ne[3] = 1;
        t.nb[0] = sizeof(float), t.nb[1] = t.nb[0] * (size_t) t.ne[0];
        t.nb[2] = t.nb[3] = t.nb[1] * (size_t) columns;
        t.data            = v.data();
    }

    void part(int k, std::vector<int> matrices, float * to) {
        Part & p       = group.parts[k];
        p.num_matrices = (int) matrices.size();
        for (int m = 0; m < p.num_matrices; m++) {
            const Weights & w = weights[(size_t) matrices[(size_t) m]];
            p.matrix[m] = { tile_format(w.type), w.data.data(), w.row_bytes, out[matrices[(size_t) m]].data(), w.rows };
            p.num_rows  = w.rows;
        }
        p.out        = to;
        p.out_stride = p.num_rows;
    }

    // Everything that the group computes, on so many threads; scratch at an odd address.
    std::vector<float> run(int nth) {
        for (std::vector<float> & o : out) {
            std::fill(o.begin(), o.end(), -7.0f);
        }
        std::fill(normed_data.begin(), normed_data.end(), -7.0f);
        std::vector<char> scratch(group_work_size(columns, blocks, nth) + 4);
        on_threads(nth, [&](int ith, ggml_threadpool * pool) {
            const ggml_compute_params params = { ith, nth, scratch.size() - 4, scratch.data() + 4, pool, false };
            run_group(&params, group);
            CHECK(!amx::ModelTiles::is_configured(), "thread %d keeps tiles", ith);
        });
        std::vector<float> all = normed_data;
        for (int i : { 0, 4, 2 }) {
            all.insert(all.end(), out[i].begin(), out[i].end());
        }
        return all;
    }
};

void test_group(int64_t columns, int64_t blocks, bool has_norm) {
    Problem p(columns, blocks, has_norm);
    is_amx_on                         = false;
    num_amx_calls                     = 0;
    const std::vector<float> expected = p.run(1);
    CHECK(num_amx_calls == 0, "switched off");
    is_amx_on = true;
    for (int nth : { 1, 2, 5 }) {
        num_amx_calls                = 0;
        const std::vector<float> got = p.run(nth);
        CHECK(num_amx_calls == (columns > group_columns ? nth : 0), "%d columns: %d calls", (int) columns,
              num_amx_calls.load());
        CHECK(memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0, "%d columns, %d blocks, %d threads",
              (int) columns, (int) blocks, nth);
    }
}

}  // namespace

int main() {
    for (int64_t columns : { 1, 8, 9, 15, 16, 17, 31, 100, 300 }) {
        for (int64_t blocks : { 1, 33, 70 }) {
            if (columns < 300 || (blocks == 33 && !is_small())) {
                test_group(columns, blocks, columns % 2 == 0);
            }
        }
    }
    return report("mul_mat_amx_group");
}

#else

#include <cstdio>

int main() {
    printf("skipped: AMX' tiles are unpacked by AVX2 or AVX-512\n");
    return 0;
}

#endif
