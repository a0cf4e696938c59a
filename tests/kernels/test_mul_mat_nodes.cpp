// MUL_MAT and MUL_MAT_ID as graph nodes on a pool of threads: every product has the bits of its plain twin, whatever
// the batch, the broadcasting, the strides and the number of threads.

#include "check.h"
#include "kernel.h"
#include "mul_mat_float_reference.h"
#include "mul_mat_quantise.h"
#include "mul_mat_reference.h"
#include "pool.h"

int64_t ggml_nrows(const ggml_tensor * t) {
    return t->ne[1] * t->ne[2] * t->ne[3];
}

size_t ggml_type_size(ggml_type type) {
    switch (type) {
    case GGML_TYPE_F32:
        return 4;
    case GGML_TYPE_Q4_1:
        return sizeof(block_q4_1);
    case GGML_TYPE_Q6_K:
        return sizeof(block_q6_K);
    default:
        return 2;
    }
}

using namespace axion;

namespace {

int64_t block_of(ggml_type type) {
    return type == GGML_TYPE_Q4_1 ? QK4_1 : type == GGML_TYPE_Q6_K ? QK_K : 1;
}

// A tensor of these sizes; rows lie `gap` bytes apart, and its data start behind as many.
struct Tensor : ggml_tensor {
    std::vector<char> bytes;

    Tensor(ggml_type t, int64_t n0, int64_t n1, int64_t n2, int64_t n3, size_t gap) : ggml_tensor{} {
        type               = t;
        const int64_t n[4] = { n0, n1, n2, n3 };
        size_t        next = ggml_type_size(t);
        for (int i = 0; i < 4; i++) {
            ne[i] = n[i];
            nb[i] = next;
            next  = i == 0 ? next * (size_t) (n[0] / block_of(t)) + gap : next * (size_t) n[i];
        }
        bytes.resize(next + gap);
        data = bytes.data() + gap;
    }

    char * at(int64_t i1, int64_t i2, int64_t i3) {
        return (char *) data + i1 * nb[1] + i2 * nb[2] + i3 * nb[3];
    }
};

void fill(Tensor & t, Random & random) {
    for (int64_t r = 0; r < t.ne[1] * t.ne[2] * t.ne[3]; r++) {
        char * row = t.at(r % t.ne[1], r / t.ne[1] % t.ne[2], r / t.ne[1] / t.ne[2]);
        for (int64_t k = 0; k < t.ne[0]; k++) {
            const float v = random.real();
            uint32_t    bits;
            memcpy(&bits, &v, sizeof bits);
            if (t.type == GGML_TYPE_F32) {
                memcpy(row + k * 4, &v, 4);
            } else if (t.type == GGML_TYPE_F16 || t.type == GGML_TYPE_BF16) {
                // As halves: between 2^-14 and 1.
                const uint16_t half = t.type == GGML_TYPE_BF16 ? (uint16_t) (bits >> 16)
                                                               : (uint16_t) ((bits & 0x83ff) | (1 + bits % 14) << 10);
                memcpy(row + k * 2, &half, 2);
            }
        }
        for (size_t i = 0; block_of(t.type) > 1 && i < (size_t) (t.ne[0] / block_of(t.type)) * t.nb[0]; i++) {
            // Small scales: 0x2c.. is about 0.06.
            const size_t in_block = i % t.nb[0];
            const bool   is_high  = t.type == GGML_TYPE_Q4_1 ? in_block == 1 || in_block == 3 : in_block == t.nb[0] - 1;
            row[i]                = is_high ? 0x2c : (char) random.bits();
        }
    }
}

float expected(const Tensor & w, const char * row, const float * x) {
    if (block_of(w.type) == 1) {
        return product_reference(w.type, row, x, w.ne[0]);
    }
    const int64_t     blocks = w.ne[0] / act_block;
    std::vector<char> acts(acts_bytes(1, blocks) + 64);
    char *            group = acts.data() + (64 - (uintptr_t) acts.data() % 64);
    quantise_column<1>(x, group, 0, blocks);
    return dot_reference<1>(w.type, row, blocks, group, 0);
}

// Runs the node; scratch is exactly what the kernel asked for, at an odd address.
void run(const Kernel & kernel, ggml_tensor * node, int nth) {
    CHECK(kernel.accepts(node), "%s declines", kernel.name);
    std::vector<char> scratch(kernel.work_size(node, nth) + 4);
    on_threads(nth, [&](int ith, ggml_threadpool * pool) {
        const ggml_compute_params params = { ith, nth, scratch.size() - 4, scratch.data() + 4, pool, false };
        kernel.compute(&params, node);
    });
}

void test_mul_mat(ggml_type type, int64_t rows, int64_t values, const int64_t w_outer[2], const int64_t x_outer[3]) {
    Random random;
    Tensor w(type, values, rows, w_outer[0], w_outer[1], 12),
        x(GGML_TYPE_F32, values, x_outer[0], x_outer[1], x_outer[2], 8);
    fill(w, random);
    fill(x, random);
    for (int nth : { 1, 2, 5 }) {
        Tensor y(GGML_TYPE_F32, rows, x_outer[0], x_outer[1], x_outer[2], 0);
        y.op     = GGML_OP_MUL_MAT;
        y.src[0] = &w;
        y.src[1] = &x;
        run(mul_mat_float_kernel, &y, nth);
        for (int64_t j = 0; j < ggml_nrows(&y); j++) {
            const int64_t i1 = j % y.ne[1], i2 = j / y.ne[1] % y.ne[2], i3 = j / y.ne[1] / y.ne[2];
            for (int64_t r = 0; r < rows; r++) {
                const char * row = w.at(r, i2 / (y.ne[2] / w.ne[2]), i3 / (y.ne[3] / w.ne[3]));
                const float  e   = expected(w, row, (const float *) x.at(i1, i2, i3));
                const float  got = ((const float *) y.at(i1, i2, i3))[r];
                CHECK(same_bits(got, e), "type %d %dx%d columns %d threads %d: row %d column %d %g, plain %g", type,
                      (int) rows, (int) values, (int) ggml_nrows(&y), nth, (int) r, (int) j, got, e);
            }
        }
    }
}

void test_mul_mat_id(ggml_type type, int64_t rows, int64_t values, int64_t experts, int64_t used, int64_t tokens,
                     bool is_shared) {
    Random random;
    Tensor w(type, values, rows, experts, 1, 0), x(GGML_TYPE_F32, values, is_shared ? 1 : used, tokens, 1, 0);
    Tensor ids(GGML_TYPE_F32, used + 3, tokens, 1, 1, 0);
    ids.type  = GGML_TYPE_I32;
    ids.ne[0] = used;
    fill(w, random);
    fill(x, random);
    for (int64_t t = 0; t < tokens; t++) {
        for (int64_t i = 0; i < used; i++) {
            // Different ones for a token; the first experts are the favourites.
            ((int32_t *) ids.at(t, 0, 0))[i] =
                (int32_t) ((i + (t % 3 == 0 ? random.below((int) experts) : 0)) % experts);
        }
    }
    for (int nth : { 1, 2, 5 }) {
        Tensor y(GGML_TYPE_F32, rows, used, tokens, 1, 0);
        y.op     = GGML_OP_MUL_MAT_ID;
        y.src[0] = &w;
        y.src[1] = &x;
        y.src[2] = &ids;
        run(mul_mat_id_kernel, &y, nth);
        for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < used; i++) {
                const int32_t e = ((const int32_t *) ids.at(t, 0, 0))[i];
                for (int64_t r = 0; r < rows; r++) {
                    const float want = expected(w, w.at(r, e, 0), (const float *) x.at(i % x.ne[1], t, 0));
                    const float got  = ((const float *) y.at(i, t, 0))[r];
                    CHECK(same_bits(got, want),
                          "id type %d tokens %d threads %d: row %d token %d place %d %g, plain %g", type, (int) tokens,
                          nth, (int) r, (int) t, (int) i, got, want);
                }
            }
        }
    }
}

}  // namespace

int main() {
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16 }) {
        if (float_format(type) == nullptr) {
            continue;
        }
        for (int64_t columns : { 1, 7, 9, 31, 300 }) {
            const int64_t one[2] = { 1, 1 }, plain[3] = { columns, 1, 1 };
            test_mul_mat(type, columns == 300 ? 16 : 75, columns == 300 ? 40 : 333, one, plain);
        }
        // Two by two matrices, three and two columns' worth of outer dimensions for each.
        const int64_t batch[2] = { 2, 2 };
        for (int64_t columns : { 1, 2, 5 }) {
            const int64_t outer[3] = { columns, 6, 4 };
            test_mul_mat(type, 37, 70, batch, outer);
        }
        const int64_t large[3] = { 3, 6, 4 };
        test_mul_mat(type, 20, 2000, batch, large);
    }
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_1, GGML_TYPE_Q6_K }) {
        if (float_format(type) == nullptr && tile_format(type) == nullptr) {
            continue;
        }
        for (int64_t tokens : { 1, 2, 5, 40 }) {
            for (bool is_shared : { false, true }) {
                test_mul_mat_id(type, 40, 512, 5, 3, tokens, is_shared);
            }
        }
    }
    return report("mul_mat_nodes");
}
