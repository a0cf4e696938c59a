// Softmax of one row, vectorised and as plain C++: y = e^(w - max w) / sum, w = x * scale + slope * mask.
//
// A row is taken in blocks of `soft_max_block` columns: an element joins the running sum of its column modulo 32, those
// are added in a fixed tree, and the blocks' sums in order, in double. So neither the threads that share a row nor
// masked columns behind it (they add 0) change a bit of the result. Error, held by tests/kernels/test_soft_max.cpp:
// 1e-6 relative, or 2^-126. A row that is masked everywhere gives NaN, as upstream does, unless it has a sink.
#pragma once

#include "vecmath.h"

#include <algorithm>

namespace axion {

constexpr int64_t soft_max_block = 2048;

struct SoftMaxMask {
    const float *    f32   = nullptr;
    const uint16_t * f16   = nullptr;
    float            slope = 1;
};

constexpr int soft_max_step = 32;  // columns per step, and running sums

// w for a whole step; x, the masks and y are that step's columns.
inline void soft_max_step_logits(const float * x, float scale, const SoftMaxMask & mask, float * y,
                                 Running<soft_max_step> & most) {
    AXION_UNROLL
    for (int p = 0; p < most.parts; p++) {
        const int at = p * lanes;
        vf32      w  = vload(x + at) * scale;
        if (mask.f32 != nullptr) {
            w = vfma(vload(mask.f32 + at), mask.slope, w);
        } else if (mask.f16 != nullptr) {
            w = vfma(vload_half(mask.f16 + at), mask.slope, w);
        }
        vstore(y + at, w);
        most.v[p] = vmax(most.v[p], w);
    }
}

// Writes w into y for columns [begin, end); returns the largest (any value when some w is NaN).
inline float soft_max_logits(const float * x, float scale, const SoftMaxMask & mask, float * y, int64_t begin,
                             int64_t end) {
    Running<soft_max_step> most = running<soft_max_step>(-INFINITY);
    SoftMaxMask            m    = mask;
    int64_t                i    = begin;
    for (; i + soft_max_step <= end; i += soft_max_step) {
        m.f32 = mask.f32 != nullptr ? mask.f32 + i : nullptr;
        m.f16 = mask.f16 != nullptr ? mask.f16 + i : nullptr;
        soft_max_step_logits(x + i, scale, m, y + i, most);
    }
    float max = largest(most);
    if (i < end) {
        const size_t n                 = (size_t) (end - i);
        float        xs[soft_max_step] = {}, ms[soft_max_step] = {}, ys[soft_max_step];
        uint16_t     hs[soft_max_step] = {};
        memcpy(xs, x + i, n * sizeof *xs);
        if (mask.f32 != nullptr) {
            memcpy(ms, mask.f32 + i, n * sizeof *ms);
            m.f32 = ms;
        } else if (mask.f16 != nullptr) {
            memcpy(hs, mask.f16 + i, n * sizeof *hs);
            m.f16 = hs;
        }
        soft_max_step_logits(xs, scale, m, ys, most);
        memcpy(y + i, ys, n * sizeof *ys);
        max = std::max(max, *std::max_element(ys, ys + n));
    }
    return max;
}

inline void soft_max_step_exp(float * y, vf32 max, Running<soft_max_step> & total) {
    AXION_UNROLL
    for (int p = 0; p < total.parts; p++) {
        const vf32 e = exp_nonpositive(vload(y + p * lanes) - max);
        vstore(y + p * lanes, e);
        total.v[p] += e;
    }
}

// y = e^(y - max) for columns [begin, end) of one block; returns their sum.
inline float soft_max_exp(float * y, float max, int64_t begin, int64_t end) {
    Running<soft_max_step> total = running<soft_max_step>(0);
    const vf32             m     = vsplat(max);
    int64_t                i     = begin;
    for (; i + soft_max_step <= end; i += soft_max_step) {
        soft_max_step_exp(y + i, m, total);
    }
    if (i < end) {
        const size_t n = (size_t) (end - i);
        float        ys[soft_max_step];
        std::fill(ys, ys + soft_max_step, -INFINITY);
        memcpy(ys, y + i, n * sizeof *ys);
        soft_max_step_exp(ys, m, total);
        memcpy(y + i, ys, n * sizeof *ys);
    }
    return sum(total);
}

// What a row's sum starts from.
inline double soft_max_sink(const float * sink, float max) {
    return sink != nullptr ? exp((double) *sink - max) : 0.0;
}

inline void soft_max_scale(float * y, float factor, int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + lanes <= end; i += lanes) {
        vstore(y + i, vload(y + i) * factor);
    }
    for (; i < end; i++) {
        y[i] *= factor;
    }
}

// A whole row; y may be x.
inline void soft_max_row(const float * x, float scale, const SoftMaxMask & mask, const float * sink, float * y,
                         int64_t n) {
    float max = soft_max_logits(x, scale, mask, y, 0, n);
    if (sink != nullptr && *sink > max) {
        max = *sink;
    }
    double total = soft_max_sink(sink, max);
    for (int64_t begin = 0; begin < n; begin += soft_max_block) {
        total += soft_max_exp(y, max, begin, begin + soft_max_block < n ? begin + soft_max_block : n);
    }
    soft_max_scale(y, (float) (1.0 / total), 0, n);
}

// The oracle: in double, one element after the other.
inline void soft_max_reference(const float * x, double scale, const float * mask, double slope, const float * sink,
                               double * y, int64_t n) {
    double max = sink != nullptr ? *sink : -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        y[i] = x[i] * scale + (mask != nullptr ? slope * mask[i] : 0.0);
        max  = y[i] > max ? y[i] : max;
    }
    for (int64_t i = 0; i < n; i++) {
        y[i] = exp(y[i] - max);
        sum += y[i];
    }
    sum += sink != nullptr ? exp(*sink - max) : 0.0;
    for (int64_t i = 0; i < n; i++) {
        y[i] /= sum;
    }
}

}  // namespace axion
