// SOFT_MAX on F32 rows with scale, F32 or F16 mask, ALiBi and sinks. Rows over threads; when there are fewer rows than
// threads and they are long, blocks of columns over threads, with the same bits.

#include "soft_max.h"

#include "rows.h"

namespace axion {
namespace {

bool accepts(const ggml_tensor * node) {
    const ggml_tensor * mask = node->src[1];
    const ggml_tensor * sink = node->src[2];
    return node->op == GGML_OP_SOFT_MAX && has_f32_rows(node) && has_f32_rows(node->src[0]) &&
           (mask == nullptr || has_f32_rows(mask) ||
            (mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t))) &&
           (sink == nullptr || has_f32_rows(sink));
}

int64_t blocks_of(const ggml_tensor * node) {
    return (node->ne[0] + soft_max_block - 1) / soft_max_block;
}

size_t work_size(const ggml_tensor * node, int) {
    return 2 * sizeof(float) * (size_t) (ggml_nrows(node) * blocks_of(node));
}

float alibi_slope(const ggml_tensor * node, int64_t head) {
    const float max_bias = ggml_get_op_params_f32(node, 1);
    if (max_bias <= 0) {
        return 1;
    }
    int64_t power = 1;  // the largest of two that is not above the number of heads
    while (power * 2 <= node->ne[2]) {
        power *= 2;
    }
    const double base = head < power ? (double) -max_bias / power : (double) -max_bias / 2 / power;
    return (float) exp2(base * (double) (head < power ? head + 1 : 2 * (head - power) + 1));
}

struct Row {
    const float * x;
    float *       y;
    SoftMaxMask   mask;
    const float * sink;
};

Row row_at(const ggml_tensor * node, int64_t r) {
    const ggml_tensor * mask  = node->src[1];
    const ggml_tensor * sink  = node->src[2];
    const int64_t       plane = r / node->ne[1], i1 = r - plane * node->ne[1];
    const int64_t       i3 = plane / node->ne[2], i2 = plane - i3 * node->ne[2];
    Row                 row{ row_of(node->src[0], r), row_of(node, r), {}, nullptr };
    if (mask != nullptr) {
        const char * at = (const char *) mask->data + i1 * mask->nb[1] + i2 % mask->ne[2] * mask->nb[2] +
                          i3 % mask->ne[3] * mask->nb[3];
        row.mask.f32    = mask->type == GGML_TYPE_F32 ? (const float *) at : nullptr;
        row.mask.f16    = mask->type == GGML_TYPE_F16 ? (const uint16_t *) at : nullptr;
        row.mask.slope  = alibi_slope(node, i2);
    }
    if (sink != nullptr) {
        row.sink = (const float *) sink->data + i2;
    }
    return row;
}

// Three rounds over all blocks of all rows: logits and their maxima, exponentials and their sums, scaling.
void compute_blocks(const ggml_compute_params * params, ggml_tensor * node) {
    const int64_t n = node->ne[0], blocks = blocks_of(node), rows = ggml_nrows(node);
    const float   scale  = ggml_get_op_params_f32(node, 0);
    float *       maxima = (float *) params->wdata;
    float *       sums   = maxima + rows * blocks;
    const Range   mine   = split(rows * blocks, 1, params->ith, params->nth);

    const auto for_mine = [&](auto f) {
        for (int64_t k = mine.begin; k < mine.end; k++) {
            const int64_t begin = k % blocks * soft_max_block;
            f(k, row_at(node, k / blocks), begin, std::min(n, begin + soft_max_block));
        }
    };
    const auto max_of = [&](int64_t k, const Row & row) {
        const float * first = maxima + k / blocks * blocks;
        const float   max   = *std::max_element(first, first + blocks);
        return row.sink != nullptr && *row.sink > max ? *row.sink : max;
    };

    for_mine([&](int64_t k, const Row & row, int64_t begin, int64_t end) {
        maxima[k] = soft_max_logits(row.x, scale, row.mask, row.y, begin, end);
    });
    ggml_barrier(params->threadpool);
    for_mine([&](int64_t k, const Row & row, int64_t begin, int64_t end) {
        sums[k] = soft_max_exp(row.y, max_of(k, row), begin, end);
    });
    ggml_barrier(params->threadpool);
    for_mine([&](int64_t k, const Row & row, int64_t begin, int64_t end) {
        double total = soft_max_sink(row.sink, max_of(k, row));
        for (int64_t b = 0; b < blocks; b++) {
            total += sums[k / blocks * blocks + b];
        }
        soft_max_scale(row.y, (float) (1.0 / total), begin, end);
    });
}

void compute(const ggml_compute_params * params, ggml_tensor * node) {
    const int64_t rows = ggml_nrows(node);
    if (rows < params->nth && blocks_of(node) > 1) {
        return compute_blocks(params, node);
    }
    const Range mine = split(rows, 1, params->ith, params->nth);
    for (int64_t r = mine.begin; r < mine.end; r++) {
        const Row row = row_at(node, r);
        soft_max_row(row.x, ggml_get_op_params_f32(node, 0), row.mask, row.sink, row.y, node->ne[0]);
    }
}

}  // namespace

const Kernel soft_max_kernel = { "soft_max", accepts, compute, work_size, nullptr, nullptr };

}  // namespace axion
