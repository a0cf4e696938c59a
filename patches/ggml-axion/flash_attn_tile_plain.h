// Flash attention's inner loops in plain C++, for machines without a version of their own; the layouts are the same.
#pragma once

#include "flash_attn_layout.h"
#include "vecmath.h"

namespace axion {
namespace fa {

constexpr int32_t k_bias = 0;

// Value d of 32 stands at v_order(d) in packed V.
inline int v_order(int d) {
    return (d % 16 / 8) * 16 + (d % 8 / 4) * 8 + d / 16 * 4 + d % 4;
}

inline void pack_k_q8(const char * const * rows, int n, int dk, int8_t * k8, float * scales) {
    const int padded = (n + 15) / 16 * 16;
    for (int p = 0; p < padded; p++) {
        const char * r = rows[p < n ? p : n - 1];
        for (int b = 0; b < dk / quant_size; b++, r += quant_bytes) {
            uint16_t d;
            memcpy(&d, r, 2);
            scales[b * span_size + p] = half_to_float(d);
            int8_t * out              = k8 + (((size_t) b * (span_size / 16) + p / 16) * 8 * 16 + p % 16) * 4;
            for (int j = 0; j < 8; j++) {
                memcpy(out + j * 64, r + 2 + j * 4, 4);
            }
        }
    }
}

inline void scores_q8(const QueryQ8 & q, int n, const int8_t * k8, const float * ks, int begin, int end, float * out) {
    const int num_scales = q.dk / quant_size;
    for (int r = 0; r < n; r++) {
        for (int g = begin; g < end; g++) {
            f32x16 s = {};
            for (int b = 0; b < num_scales; b++) {
                const int8_t * k = k8 + ((size_t) b * (span_size / 16) + g) * 8 * 64;
                const int8_t * x = q.values + (size_t) r * q.dk + b * quant_size;
                i32x16         a = {};
                for (int j = 0; j < 8; j++) {
                    for (int p = 0; p < 16; p++) {
                        for (int i = 0; i < 4; i++) {
                            a[p] += (int32_t) k[j * 64 + p * 4 + i] * x[j * 4 + i];
                        }
                    }
                }
                f32x16 f = __builtin_convertvector(a, f32x16) * load16(ks + b * span_size + g * 16);
                s        = fma16(f, splat16(q.scales[r * num_scales + b]), s);
            }
            store16(out + r * span_size + g * 16, s);
        }
    }
}

inline void pack_v_q8(const char * const * rows, int n, int dv, int8_t * v8, float * scales) {
    const int padded = (n + 15) / 16 * 16;
    for (int p = 0; p < padded; p++) {
        const char * r = rows[p < n ? p : n - 1];
        for (int b = 0; b < dv / quant_size; b++, r += quant_bytes) {
            uint16_t d;
            memcpy(&d, r, 2);
            scales[b * span_size + p] = half_to_float(d);
            int8_t * out              = v8 + ((size_t) b * (span_size / 4) + p / 4) * 128 + p % 4;
            for (int i = 0; i < quant_size; i++) {
                out[v_order(i) * 4] = (int8_t) r[2 + i];
            }
        }
    }
}

inline void values_q8(const Digits & w, int n, const int8_t * v8, int b, int begin, int end, const float * scales,
                      float * const * out) {
    for (int r = 0; r < n; r++) {
        const uint8_t * high            = w.row(r, b, 0);
        const uint8_t * low             = w.row(r, b, 1);
        int32_t         acc[quant_size] = {};
        for (int g = begin; g < end; g++) {
            const int8_t * v = v8 + ((size_t) b * (span_size / 4) + g) * 128;
            for (int d = 0; d < quant_size; d++) {
                for (int i = 0; i < 4; i++) {
                    acc[d] += (int32_t) v[d * 4 + i] * (high[g * 4 + i] * digit_base + low[g * 4 + i]);
                }
            }
        }
        for (int d = 0; d < quant_size; d++) {
            out[r][b * quant_size + d] = (float) acc[v_order(d)] * scales[r];
        }
    }
}

inline void store_digits(f32x16 x, uint8_t * high, uint8_t * low) {
    for (int i = 0; i < 16; i++) {
        const int q = x[i] >= 0 ? (int) lrintf(x[i]) : 0;  // NaN: zero
        high[i]     = (uint8_t) (q >> digit_bits);
        low[i]      = (uint8_t) (q & (digit_base - 1));
    }
}

inline f32x16 load_half16(const void * p) {
    f32x16 f;
    for (int i = 0; i < 16; i++) {
        uint16_t h;
        memcpy(&h, (const char *) p + 2 * i, 2);
        f[i] = half_to_float(h);
    }
    return f;
}

}  // namespace fa
}  // namespace axion
