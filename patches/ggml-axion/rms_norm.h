// RMSNorm of one row, vectorised and as plain C++: y[i] = x[i] / sqrt(mean(x^2) + eps) * w[i].
#pragma once

#include "vecmath.h"

namespace axion {

inline void add_squares(const float * x, Running<64> & total) {
    AXION_UNROLL
    for (int p = 0; p < total.parts; p++) {
        const vf32 v = vload(x + p * lanes);
        total.v[p]   = vfma(v, v, total.v[p]);
    }
}

// Sum of squares in one fixed order: an element joins the running sum of its column modulo 64; those are added
// pairwise.
inline float sum_of_squares(const float * x, int64_t n) {
    Running<64> total = running<64>(0);
    int64_t     i     = 0;
    for (; i + 64 <= n; i += 64) {
        add_squares(x + i, total);
    }
    if (i < n) {
        float rest[64] = {};
        memcpy(rest, x + i, (size_t) (n - i) * sizeof *rest);
        add_squares(rest, total);
    }
    return sum(total);
}

inline float rms_scale(const float * x, int64_t n, float eps) {
    return 1.0f / sqrtf(sum_of_squares(x, n) / (float) n + eps);
}

// Columns [begin, end) of y = x * scale * w; w may be null.
inline void scale_row(const float * x, const float * w, float * y, float scale, int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
        const vf32 v = vload(x + i) * scale;
        vstore(y + i, w != nullptr ? v * vload(w + i) : v);
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
