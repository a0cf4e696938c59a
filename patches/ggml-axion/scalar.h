// Softmax, RMSNorm and SwiGLU as one writes them down with the C library's functions, a value after the other: what
// `axion-llm bench kernels` sets beside the kernels. Rows of 4096 that stay in the cache; nobody wants the results.
#pragma once

#include "peak.h"

#include <algorithm>
#include <cmath>

#if defined(__clang__)
#define AXION_SCALAR
#define AXION_SCALAR_LOOP _Pragma("clang loop vectorize(disable)")
#else
#define AXION_SCALAR __attribute__((optimize("no-tree-vectorize")))
#define AXION_SCALAR_LOOP
#endif

namespace axion {
namespace scalar {

AXION_SCALAR inline void soft_max(int n, const float * x, const float *, float * y) {
    float most = -INFINITY, sum = 0;
    AXION_SCALAR_LOOP
    for (int i = 0; i < n; i++) {
        most = std::max(most, 0.125f * x[i]);
    }
    AXION_SCALAR_LOOP
    for (int i = 0; i < n; i++) {
        y[i] = expf(0.125f * x[i] - most);
        sum += y[i];
    }
    AXION_SCALAR_LOOP
    for (int i = 0; i < n; i++) {
        y[i] /= sum;
    }
}

AXION_SCALAR inline void rms_norm(int n, const float * x, const float * weight, float * y) {
    float sum = 0;
    AXION_SCALAR_LOOP
    for (int i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    const float scale = 1 / sqrtf(sum / (float) n + 1e-5f);
    AXION_SCALAR_LOOP
    for (int i = 0; i < n; i++) {
        y[i] = x[i] * scale * weight[i];
    }
}

AXION_SCALAR inline void swiglu(int n, const float * gate, const float * up, float * y) {
    AXION_SCALAR_LOOP
    for (int i = 0; i < n; i++) {
        y[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
}

}  // namespace scalar

using ScalarRow = void (*)(int n, const float * a, const float * b, float * y);

// Values per second of one core.
inline double scalar_rate(ScalarRow row, double seconds) {
    constexpr int      num_rows = 8, n = 4096;
    std::vector<float> a(num_rows * n), b(num_rows * n), y(num_rows * n);
    for (int i = 0; i < num_rows * n; i++) {
        a[i] = (float) (i * 7919 % 1000) * 0.008f - 4;
        b[i] = (float) (i * 7907 % 1000) * 0.002f - 1;
    }
    double       done    = 0;
    const double started = peak::now();
    double       passed  = 0;
    while (passed < seconds) {
        for (int r = 0; r < num_rows * n; r += n) {
            row(n, a.data() + r, b.data() + r, y.data() + r);
            asm volatile("" ::"r"(y.data()) : "memory");
        }
        done += num_rows * n;
        passed = peak::now() - started;
    }
    return done / passed;
}

}  // namespace axion
