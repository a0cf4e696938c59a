// A quantised matrix product with random data, what its plain twin says of it, and how far it may be from the truth.
#pragma once

#include "check.h"
#include "mul_mat_quantise.h"
#include "mul_mat_reference.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

using namespace axion;

struct Format {
    ggml_type    type;
    const char * name;
    int64_t      block;
    size_t       bytes;
};

inline const Format formats[] = {
    { GGML_TYPE_Q4_0, "q4_0", QK4_0, sizeof(block_q4_0) },        { GGML_TYPE_Q4_1, "q4_1", QK4_1, sizeof(block_q4_1) },
    { GGML_TYPE_IQ4_NL, "iq4_nl", QK4_NL, sizeof(block_iq4_nl) }, { GGML_TYPE_Q5_0, "q5_0", QK5_0, sizeof(block_q5_0) },
    { GGML_TYPE_Q5_1, "q5_1", QK5_1, sizeof(block_q5_1) },        { GGML_TYPE_Q8_0, "q8_0", QK8_0, sizeof(block_q8_0) },
    { GGML_TYPE_Q4_K, "q4_K", QK_K, sizeof(block_q4_K) },         { GGML_TYPE_Q5_K, "q5_K", QK_K, sizeof(block_q5_K) },
    { GGML_TYPE_Q6_K, "q6_K", QK_K, sizeof(block_q6_K) },
};

struct Free {
    void operator()(void * p) const {
        free(p);
    }
};

using Buffer = std::unique_ptr<char, Free>;

inline Buffer aligned_buffer(size_t bytes) {
    return Buffer((char *) aligned_alloc(64, (bytes + 63) / 64 * 64));
}

// Any bits are a weight block, but its FP16 scales must be sane: an exponent between 2^-14 and 2^-3.
inline void fill_weights(const Format & f, Random & random, std::vector<uint8_t> & w) {
    for (uint8_t & byte : w) {
        byte = (uint8_t) random.bits();
    }
    const auto half = [&] { return (uint16_t) ((random.bits() & 0x83ff) | (1 + random.below(12)) << 10); };
    for (size_t i = 0; i < w.size(); i += f.bytes) {
        uint16_t     d[2] = { half(), half() };
        const size_t at   = f.type == GGML_TYPE_Q6_K ? 208 : 0;
        memcpy(&w[i + at], d, has_min(f.type) ? 4 : 2);
    }
}

struct Product {
    const Format &       f;
    int64_t              num_rows, num_columns, num_blocks;
    size_t               row_bytes;
    std::vector<uint8_t> weights;
    std::vector<float>   x;
    Buffer               act_data;
    std::vector<float>   y;
    std::vector<float *> dst;
    Acts                 acts;

    Product(const Format & format, Random & random, int64_t rows, int64_t columns, int64_t blocks)
        : f(format), num_rows(rows), num_columns(columns), num_blocks(blocks),
          row_bytes((size_t) (blocks * act_block / format.block) * format.bytes), weights(row_bytes * (size_t) rows),
          x((size_t) (columns * blocks * act_block)), act_data(aligned_buffer(acts_bytes(columns, blocks))),
          y((size_t) (rows * columns)), dst((size_t) columns) {
        fill_weights(f, random, weights);
        for (float & v : x) {
            v = random.real() * (random.below(50) == 0 ? 30.0f : 1.0f);
        }
        for (int64_t j = 0; j < columns; j++) {
            dst[(size_t) j] = y.data() + j * rows;
        }
        acts = { act_data.get(), dst.data(), columns, blocks };
    }

    const float * column(int64_t j) const {
        return x.data() + j * num_blocks * act_block;
    }

    const char * row(int64_t r) const {
        return (const char *) weights.data() + (size_t) r * row_bytes;
    }

    void quantise() {
        for (int64_t j = 0; j < num_columns; j++) {
            const int64_t g = j / group_columns;
            quantise_column_of_width[acts.width(g)](column(j), acts.group(g), (int) (j % group_columns), num_blocks);
        }
    }

    void run_fused(int64_t r, uint16_t lanes) {
        for (int64_t g = 0; g < acts.num_groups(); g++) {
            tile_format(f.type)->fused[acts.width(g)](row(r), row_bytes, num_blocks, acts.group(g),
                                                      { dst.data() + g * group_columns, r, lanes });
        }
    }

    void run_panels(int64_t r, int64_t step, uint16_t lanes) {
        const Buffer buffer = aligned_buffer((size_t) step * sizeof(PanelBlock));
        PanelBlock * panel  = (PanelBlock *) buffer.get();
        for (int64_t b = 0; b < num_blocks; b += step) {
            const int64_t n = num_blocks - b < step ? num_blocks - b : step;
            tile_format(f.type)->unpack(row(r), row_bytes, b, n, panel);
            for (int64_t g = 0; g < acts.num_groups(); g++) {
                const int width = acts.width(g);
                tile_format(f.type)->panel[width](panel, n, acts.group(g) + b * width * act_block_bytes,
                                                  { dst.data() + g * group_columns, r, lanes }, b == 0);
            }
        }
    }

    float expected(int64_t r, int64_t j) const {
        Buffer single = aligned_buffer(acts_bytes(1, num_blocks));
        quantise_column<1>(column(j), single.get(), 0, num_blocks);
        return dot_reference<1>(f.type, row(r), num_blocks, single.get(), 0);
    }

    // FP64 over the true activations, and how far off rounding them to 8 bits may bring it.
    void check_accuracy(int64_t r, int64_t j) const {
        double exact = 0, bound = 0, magnitude = 0;
        for (int64_t b = 0; b < num_blocks; b++) {
            const WeightBlock w    = unpack_reference(f.type, row(r), b);
            const float *     v    = column(j) + b * act_block;
            double            most = 0;
            for (int i = 0; i < act_block; i++) {
                most = std::max(most, fabs((double) v[i]));  // fmax breaks GCC 12 on aarch64
            }
            for (int i = 0; i < act_block; i++) {
                const double weight = (double) w.scale[i / 16] * w.q[i] + w.min;
                exact += weight * v[i];
                bound += fabs(weight) * most / 254;
                magnitude += (fabs((double) w.scale[i / 16] * w.q[i]) + fabs((double) w.min)) * most;
            }
        }
        const double error = fabs((double) dst[(size_t) j][r] - exact);
        CHECK(error <= bound * 1.001 + magnitude * 1e-6, "%s r %d j %d: error %g, bound %g", f.name, (int) r, (int) j,
              error, bound);
    }
};
