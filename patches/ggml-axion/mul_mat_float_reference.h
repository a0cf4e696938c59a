// The plain twin of the floating-point products: one element at a time, the bits of every tile.
#pragma once

#include "mul_mat_float_tile.h"

#include "ggml.h"

#include <cmath>

namespace axion {

#if defined(__AVX512F__) && defined(__AVX512BF16__)
constexpr bool has_bf16_dots = true, rounds_to_odd = false;
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr bool has_bf16_dots = true, rounds_to_odd = true;
#else
constexpr bool has_bf16_dots = false, rounds_to_odd = false;
#endif

inline float float_of_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

inline float value_of_half(uint16_t h) {
    const float sign = h & 0x8000 ? -1.0f : 1.0f;
    const int   exp = h >> 10 & 31, mantissa = h & 1023;
    if (exp == 31) {
        return mantissa != 0 ? NAN : sign * INFINITY;
    }
    return sign * (exp == 0 ? ldexpf((float) mantissa, -24) : ldexpf((float) (1024 + mantissa), exp - 25));
}

inline float weight_value(ggml_type type, const void * row, int64_t k) {
    if (type == GGML_TYPE_F32) {
        return ((const float *) row)[k];
    }
    const uint16_t v = ((const uint16_t *) row)[k];
    return type == GGML_TYPE_F16 ? value_of_half(v) : float_of_bits((uint32_t) v << 16);
}

// As the BF16 instructions see a number: denormals are zero.
inline float flushed(float x) {
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

inline float rounded_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) {
        return x;
    }
    return float_of_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

// To float: towards zero, and to an odd number if that took anything away; beyond the largest to infinity, no
// denormals.
inline float to_odd(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint64_t low = (1ull << 29) - 1;
    bits               = (bits & ~low) | ((bits & low) != 0 ? low + 1 : 0);
    memcpy(&x, &bits, sizeof bits);
    return fabs(x) > 0x1.fffffep127 ? copysignf(INFINITY, (float) x) : flushed((float) x);
}

// BFMMLA's addition: the double sum is first made odd itself where it is not exact.
inline float add_to_odd(float a, float b) {
    double sum = (double) a + b;
    if (!std::isfinite(sum)) {
        return (float) sum;
    }
    const double rest  = sum - a;
    const double error = (a - (sum - rest)) + (b - rest);
    uint64_t     bits;
    memcpy(&bits, &sum, sizeof bits);
    if (error != 0 && bits % 2 == 0) {
        bits += (error > 0) == (sum > 0) ? 1 : -1;
        memcpy(&sum, &bits, sizeof bits);
    }
    return to_odd(sum);
}

inline float multiply_to_odd(float a, float b) {
    const double p = (double) a * b;
    return std::isfinite(p) ? to_odd(p) : (float) p;
}

// One chain's step: a value, or two BF16 of which the second may not exist.
inline float add_unit(ggml_type type, const void * row, const float * x, int64_t k, int64_t end, float sum) {
    if (type != GGML_TYPE_BF16 || !has_bf16_dots) {
        return fmaf(weight_value(type, row, k), x[k], sum);
    }
    float w[2] = {}, v[2] = {};
    for (int64_t j = k; j < k + 2 && j < end; j++) {
        w[j - k] = flushed(weight_value(type, row, j));
        v[j - k] = flushed(rounded_to_bf16(rounds_to_odd ? x[j] : flushed(x[j])));
    }
    return rounds_to_odd ? add_to_odd(sum, add_to_odd(multiply_to_odd(w[0], v[0]), multiply_to_odd(w[1], v[1])))
                         : flushed(fmaf(w[0], v[0], flushed(fmaf(w[1], v[1], sum))));
}

inline float product_reference(ggml_type type, const void * row, const float * x, int64_t num_values) {
    const int64_t unit  = type == GGML_TYPE_BF16 && has_bf16_dots ? 2 : 1;
    const int64_t most  = float_format(type)->piece_length(num_values);
    float         total = 0;
    for (int64_t k = 0; k < num_values; k += most) {
        const int64_t end   = k + most < num_values ? k + most : num_values;
        float         piece = 0;
        for (int64_t c = 0; c < num_chains; c++) {
            float chain = 0;
            for (int64_t i = k + c * unit; i < end; i += num_chains * unit) {
                chain = add_unit(type, row, x, i, end, chain);
            }
            piece += chain;
        }
        total = k == 0 ? piece : total + piece;
    }
    return total;
}

}  // namespace axion
