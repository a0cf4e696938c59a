// Flash attention's tile for a q8_0 cache in plain C++: what the other tiles are compared with, bit by bit.
#pragma once

#include "flash_attn_layout.h"

namespace axion {
namespace fa {
namespace plain {

constexpr int   k_bias       = 0;
constexpr float weight_max   = 65535.0f;
constexpr int   packed_bytes = 1;

// Copies values to [n][d] and takes the scales out.
inline void pack_q8(const char * const * rows, int n, int d, void * packed, float * scales) {
    unpack_scales(rows, n, d / quant_size, scales);
    for (int i = 0; i < n * d; i++) {
        ((int8_t *) packed)[i] = (int8_t) rows[i / d][i % d / quant_size * quant_bytes + 2 + i % quant_size];
    }
}

inline void pack_k_q8(const char * const * rows, int n, int dk, void * k, float * scales) {
    pack_q8(rows, n, dk, k, scales);
}

inline void scores_q8(const QueryQ8 & q, int n, const void * k, const float * ks, int begin, int end, float * out) {
    const int num_scales = q.dk / quant_size;
    for (int r = 0; r < n; r++) {
        for (int p = begin * 16; p < end * 16; p++) {
            float s = 0;
            for (int b = 0; b < num_scales; b++) {
                const int8_t * x   = q.values + (size_t) r * q.dk + b * quant_size;
                const int8_t * y   = (const int8_t *) k + (size_t) p * q.dk + b * quant_size;
                int32_t        sum = 0;
                for (int i = 0; i < quant_size; i++) {
                    sum += x[i] * y[i];
                }
                s = __builtin_fmaf((float) sum * ks[b * span_size + p], q.scales[r * num_scales + b], s);
            }
            out[r * span_size + p] = s;
        }
    }
}

inline void pack_v_q8(const char * const * rows, int n, int dv, void * v, float * scales) {
    pack_q8(rows, n, dv, v, scales);
}

// Adding 2^23 rounds and leaves the integer in the low 16 bits. A NaN may leave anything: its row's sum is NaN.
inline void write_weights(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                          int end) {
    uint16_t * to = (uint16_t *) weights.data + (size_t) (r * weights.num_scales + b) * span_size;
    for (int p = begin * 16; p < end * 16; p++) {
        const float x = __builtin_fmaf(w[p], scaled[p], 0x1p23f);
        memcpy(to + p, &x, 2);
    }
}

inline void values_q8(const Weights & weights, int n, const void * v, int dv, int begin, int end, const float * units,
                      float * const * out) {
    for (int i = 0; i < n * dv; i++) {
        const int        r = i / dv, d = i % dv, b = d / quant_size;
        const uint16_t * w   = (const uint16_t *) weights.data + (size_t) (r * weights.num_scales + b) * span_size;
        int32_t          sum = 0;
        for (int p = begin * 16; p < end * 16; p++) {
            sum += w[p] != 0 ? (int32_t) w[p] * ((const int8_t *) v)[(size_t) p * dv + d] : 0;
        }
        out[r][d] = (float) sum * units[b * most_rows + r];
    }
}

}  // namespace plain
}  // namespace fa
}  // namespace axion
