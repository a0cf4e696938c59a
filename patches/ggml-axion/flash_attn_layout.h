// The packed operands of flash attention: what the pack functions write and the tile functions read.
//
// A block is 256 visible positions of a query row, and the unit in which everything is summed: scores, one maximum, one
// exp pass, one product with V. A span is what several rows need for the same block: rows of a sliding window start up
// to max_shift positions apart. Packed once per span:
//   K q8_0: int8  [dk/32][span/16][8][16 positions][4 values], as unsigned (+128) where the machine's dot wants that
//           float [dk/32][span]  the scales
//   V q8_0: int8  [dv/32][span/4][32 values][4 positions], values in the order of v_order
//           float [dv/32][span]  the scales
//   K F16:  float [span/16][dk][16 positions];   V F16: float [span][dv]
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace axion {
namespace fa {

constexpr int block_size = 256;
constexpr int max_shift  = 32;
constexpr int span_size  = block_size + max_shift;
constexpr int group_rows = 6;   // query rows that go through a span together
constexpr int quant_size = 32;  // values that share a scale in q8_0
constexpr int max_head   = 576;

// q8_0 in memory: an fp16 scale, then 32 int8.
constexpr int quant_bytes = 2 + quant_size;
static_assert(quant_bytes == 34, "block_q8_0");
static_assert(span_size % 16 == 0 && block_size % 16 == 0, "whole vectors");

enum class KvType { q8_0, f16 };

// Softmax weights times V's scales go to the integer product as two digits of this many bits each. With 8 bits the sum
// over a block is at most 65535 * 128 * 256 < 2^31.
#if defined(__AVX512VNNI__) || defined(__ARM_FEATURE_MATMUL_INT8)
constexpr int digit_bits = 8;
#else
constexpr int digit_bits = 7;
#endif
constexpr int   digit_base = 1 << digit_bits;
constexpr float weight_max = (float) (digit_base * digit_base - 1);

// Query rows in int8: values, and per 32 of them a scale (with the softmax scale in it) and where the sum starts.
struct QueryQ8 {
    const int8_t *  values;  // [rows][dk]
    const float *   scales;  // [rows][dk/32]
    const int32_t * starts;  // [rows][dk/32]
    int             dk;
};

// Where the weights of a group of rows are: row r, digit 0 (high) or 1, of the values that share scale b.
struct Digits {
    uint8_t * data;
    int       num_scales;

    uint8_t * row(int r, int b, int digit) const {
        return data + ((size_t) (r * num_scales + b) * 2 + digit) * span_size;
    }
};

inline float half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t rest = (uint32_t) (h & 0x7fff) << 13;
    uint32_t       bits = sign | (rest + (112u << 23));
    float          f;
    if (rest >= (31u << 23)) {
        bits = sign | (rest + (224u << 23));  // infinity, NaN
    } else if (rest < (1u << 23)) {           // zero, denormal
        const float unit = 0x1p-24f * (float) (h & 0x3ff);
        uint32_t    u;
        memcpy(&u, &unit, sizeof u);
        bits = sign | u;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

}  // namespace fa
}  // namespace axion
