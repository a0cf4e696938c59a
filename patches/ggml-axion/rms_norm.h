// RMSNorm of one row, vectorised and as plain C++: y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i].
#pragma once

#include "vecmath.h"

namespace axion {

// Sum of squares in one fixed order: 64 running sums, then pairwise, then the tail.
inline float sum_of_squares(const float * x, int64_t n) {
    f32x16  a0 = {}, a1 = {}, a2 = {}, a3 = {};
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        const f32x16 x0 = load16(x + i), x1 = load16(x + i + 16), x2 = load16(x + i + 32), x3 = load16(x + i + 48);
        a0 += x0 * x0;
        a1 += x1 * x1;
        a2 += x2 * x2;
        a3 += x3 * x3;
    }
    for (; i + 16 <= n; i += 16) {
        const f32x16 x0 = load16(x + i);
        a0 += x0 * x0;
    }
    const f32x16 a   = (a0 + a1) + (a2 + a3);
    float        sum = 0;
    for (int j = 0; j < 16; j++) {
        sum += a[j];
    }
    for (; i < n; i++) {
        sum += x[i] * x[i];
    }
    return sum;
}

inline float rms_scale(const float * x, int64_t n, float eps) {
    return 1.0f / sqrtf(sum_of_squares(x, n) / (float) n + eps);
}

// Columns [begin, end) of y = x * scale * w; w may be null.
inline void scale_row(const float * x, const float * w, float * y, float scale, int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + 16 <= end; i += 16) {
        const f32x16 v = load16(x + i) * scale;
        store16(y + i, w != nullptr ? v * load16(w + i) : v);
    }
    for (; i < end; i++) {
        y[i] = w != nullptr ? x[i] * scale * w[i] : x[i] * scale;
    }
}

// The oracle: in double, one element after the other. scale_row(rms_scale) stays within 1e-6 relative of it.
inline void rms_norm_reference(const float * x, const float * w, float * y, int64_t n, float eps) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double) x[i] * x[i];
    }
    const double scale = 1.0 / sqrt(sum / (double) n + (double) eps);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (float) (x[i] * scale * (w != nullptr ? w[i] : 1.0));
    }
}

}  // namespace axion
