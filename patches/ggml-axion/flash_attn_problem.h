// One flash attention, free of ggml: where its operands are, and its plain reference.
#pragma once

#include "flash_attn_layout.h"

#include <cmath>
#include <vector>

namespace axion {
namespace fa {

// Byte strides over positions (or query rows), heads and streams.
struct View {
    char * data;
    size_t position;
    size_t head;
    size_t stream;

    char * at(int64_t p, int64_t h, int64_t s) const {
        return data + p * position + h * head + s * stream;
    }
};

struct Problem {
    int           dk, dv;
    KvType        k_type, v_type;
    int           num_rows;  // query rows (tokens) of a stream
    int           num_heads;
    int           num_kv_heads;
    int           num_streams;
    int           num_cells;  // positions of the cache
    View          q;          // float
    View          k, v;
    View          mask;   // fp16 [num_cells] of a row; data is null for none; stream stride 0 when shared
    View          out;    // float
    const float * sinks;  // one per head, or null
    float         scale, max_bias, softcap;
    int           turned;  // values of an output row that a Hadamard matrix turns together; 0: none

    int group() const {
        return num_heads / num_kv_heads;
    }

    const uint16_t * mask_row(int row, int stream) const {
        return (const uint16_t *) mask.at(row, 0, stream);
    }

    float slope(int head) const {
        if (!(max_bias > 0.0f)) {
            return 1.0f;
        }
        const int   n  = 1 << (int) floor(log2((double) num_heads));
        const float m0 = powf(2.0f, -max_bias / (float) n), m1 = powf(2.0f, -max_bias / 2.0f / (float) n);
        return head < n ? powf(m0, (float) (head + 1)) : powf(m1, (float) (2 * (head - n) + 1));
    }
};

constexpr uint16_t half_minus_infinity = 0xfc00;

inline float cached_value(KvType type, const char * row, int d) {
    uint16_t h;
    if (type == KvType::f16) {
        memcpy(&h, row + 2 * d, 2);
        return half_to_float(h);
    }
    const char * q = row + d / quant_size * quant_bytes;
    memcpy(&h, q, 2);
    return half_to_float(h) * (float) (int8_t) q[2 + d % quant_size];
}

// The oracle: in double, straight from the definition.
inline void reference(const Problem & p) {
    std::vector<double> s(p.num_cells), sum(p.dv);
    for (int64_t i = 0; i < (int64_t) p.num_streams * p.num_rows * p.num_heads; i++) {
        const int        head = (int) (i % p.num_heads), row = (int) (i / p.num_heads % p.num_rows);
        const int        stream = (int) (i / p.num_heads / p.num_rows), kv = head / p.group();
        const uint16_t * mask = p.mask.data != nullptr ? p.mask_row(row, stream) : nullptr;
        const float *    q    = (const float *) p.q.at(row, head, stream);
        double           max  = p.sinks != nullptr ? p.sinks[head] : -INFINITY;
        for (int c = 0; c < p.num_cells; c++) {
            s[c] = -INFINITY;
            if (mask != nullptr && mask[c] == half_minus_infinity) {
                continue;
            }
            double x = 0;
            for (int d = 0; d < p.dk; d++) {
                x += (double) q[d] * cached_value(p.k_type, p.k.at(c, kv, stream), d);
            }
            x *= p.scale;
            x    = p.softcap != 0 ? p.softcap * tanh(x / p.softcap) : x;
            s[c] = x + (mask != nullptr ? (double) p.slope(head) * half_to_float(mask[c]) : 0.0);
            max  = s[c] > max ? s[c] : max;
        }
        double total = p.sinks != nullptr ? exp(p.sinks[head] - max) : 0;
        sum.assign(p.dv, 0.0);
        for (int c = 0; c < p.num_cells; c++) {
            if (mask != nullptr && mask[c] == half_minus_infinity) {
                continue;
            }
            const double w = exp(s[c] - max);
            total += w;
            for (int d = 0; d < p.dv; d++) {
                sum[d] += w * cached_value(p.v_type, p.v.at(c, kv, stream), d);
            }
        }
        float * out = (float *) p.out.at(row, head, stream);
        for (int d = 0; d < p.dv; d++) {
            out[d] = total == 0 ? 0.0f : (float) (sum[d] / total);
        }
    }
}

}  // namespace fa
}  // namespace axion
