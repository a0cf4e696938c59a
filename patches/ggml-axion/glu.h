// The activations and gated units of GGML_OP_UNARY and GGML_OP_GLU, vectorised and as plain C++ in double.
//
// Each is one exponential and one division: silu(x) = x / (1 + e^-x), and GELU's tanh form is x / (1 + e^-2u) with
// u = sqrt(2/pi) (x + 0.044715 x^3), so no table of half-precision values. Errors, held by tests/kernels/test_glu.cpp:
// (4 + 3 |t|) ULP, t being the exponent, or 2^-119; GELU by erf 2^-22 |x|. From where e^-t passes 2^127 on down, x is
// taken to stand still: what is left of the result is under 1e-35, and -infinity does not become NaN.
#pragma once

#include "vecmath.h"

namespace axion {

// x / (1 + e^-t); t above exp_low's reach is as good as any.
inline vf32 over_one_plus_exp(vf32 x, vf32 t) {
    return x / (1.0f + exp_in_range(vmax(vsplat(exp_low), -t)));
}

inline vf32 sigmoid(vf32 x) {
    return over_one_plus_exp(vsplat(1.0f), vmax(vsplat(-exp_high), x));
}

inline vf32 silu(vf32 x) {
    const vf32 c = vmax(vsplat(-exp_high), x);
    return over_one_plus_exp(c, c);
}

inline vf32 gelu_quick(vf32 x) {
    const vf32 c = vmax(vsplat(-exp_high / 1.702f), x);
    return over_one_plus_exp(c, c * 1.702f);
}

inline vf32 gelu(vf32 x) {
    const vf32 c = vmax(vsplat(-10.04f), x);
    return over_one_plus_exp(c, c * vfma(c * c, 0x1.2444f2p-4f, 0x1.988454p0f));
}

inline vf32 relu(vf32 x) {
    return x > 0.0f ? x : vf32{};
}

// erfc(z) = e^(-z q(z)) with a polynomial q, good to 6e-8 up to z = 6 / sqrt(2), where it is 2e-9.
inline vf32 gelu_erf(vf32 x) {
    const vf32 c    = vmax(vsplat(-6.0f), x);
    const vf32 z    = vmin(vsplat(6.0f), vabs(c)) * 0x1.6a09e6p-1f;
    vf32       q    = vfma(z, -0x1.6fb6a2p-19f, 0x1.914320p-15f);
    q               = vfma(q, z, -0x1.5a373ap-12f);
    q               = vfma(q, z, 0x1.01f4eep-10f);
    q               = vfma(q, z, 0x1.6f7c40p-11f);
    q               = vfma(q, z, -0x1.43c10ap-6f);
    q               = vfma(q, z, 0x1.a5e7ecp-4f);
    q               = vfma(q, z, 0x1.45edde0p-1f);
    q               = vfma(q, z, 0x1.20dd9ap0f);
    const vf32 half = 0.5f * exp_in_range(-z * q);
    return c * (x < 0.0f ? half : 1.0f - half);
}

inline vf32 swiglu(vf32 gate, vf32 up) {
    return silu(gate) * up;
}

inline f32x16 swiglu16(f32x16 gate, f32x16 up) {
    return by_parts([](vf32 g, vf32 u) { return swiglu(g, u); }, gate, up);
}

inline vf32 geglu(vf32 gate, vf32 up) {
    return gelu(gate) * up;
}

inline f32x16 geglu16(f32x16 gate, f32x16 up) {
    return by_parts([](vf32 g, vf32 u) { return geglu(g, u); }, gate, up);
}

// The gate is cut off above `limit`, the other factor on both sides.
inline vf32 swiglu_oai(vf32 gate, vf32 up, float alpha, float limit) {
    const vf32 c = vmin(vsplat(limit), vmax(vsplat(-exp_high / alpha), gate));
    return over_one_plus_exp(c, c * alpha) * (1.0f + vmin(vsplat(limit), vmax(vsplat(-limit), up)));
}

inline vf32 swiglu_clamp(vf32 gate, vf32 up, float limit) {
    return silu(vmin(vsplat(limit), gate)) * vmin(vsplat(limit), vmax(vsplat(-limit), up));
}

// Columns [begin, end) of y = f(x).
template <class F> inline void map_row(const float * x, float * y, int64_t begin, int64_t end, F f) {
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
        vstore(y + i, f(vload(x + i)));
    }
    if (i < end) {
        vstore_first(y + i, f(vload_first(x + i, end - i)), end - i);
    }
}

// Columns [begin, end) of y = f(gate, up).
template <class F>
inline void map_rows(const float * gate, const float * up, float * y, int64_t begin, int64_t end, F f) {
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
        vstore(y + i, f(vload(gate + i), vload(up + i)));
    }
    if (i < end) {
        vstore_first(y + i, f(vload_first(gate + i, end - i), vload_first(up + i, end - i)), end - i);
    }
}

// The oracles, one element in double.
inline double sigmoid_reference(double x) {
    return 1.0 / (1.0 + exp(-x));
}

inline double silu_reference(double x) {
    return x * sigmoid_reference(x);
}

inline double gelu_reference(double x) {
    return x * sigmoid_reference(2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
}

inline double gelu_quick_reference(double x) {
    return x * sigmoid_reference(1.702 * x);
}

inline double gelu_erf_reference(double x) {
    return 0.5 * x * erfc(-x / sqrt(2.0));
}

inline double swiglu_oai_reference(double gate, double up, double alpha, double limit) {
    const double g = fmin(gate, limit);
    return g * sigmoid_reference(alpha * g) * (1 + fmax(-limit, fmin(limit, up)));
}

}  // namespace axion
