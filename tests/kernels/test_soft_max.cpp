// Softmax against its reference in double: odd lengths, tails, masks of both types, sinks, extremes; the same bits in
// blocks and in one go, and with masked columns behind the row.

#include "check.h"
#include "soft_max.h"

#include <vector>

using namespace axion;

namespace {

uint16_t half_of(float x) {  // exact for the values used here
    if (x == -INFINITY) {
        return 0xfc00;
    }
    if (x == 0) {
        return 0;
    }
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t) ((bits >> 16 & 0x8000) | ((bits >> 23 & 0xff) - 112) << 10 | (bits >> 13 & 0x3ff));
}

struct Problem {
    std::vector<float>    x, mask;
    std::vector<uint16_t> half;
    float                 scale = 1, slope = 1;
    bool                  has_sink = false;
    float                 sink     = 0;

    const float * sink_ptr() const {
        return has_sink ? &sink : nullptr;
    }
    // Both kinds of mask hold the same values.
    SoftMaxMask masked(bool is_half) const {
        return { is_half || mask.empty() ? nullptr : mask.data(), is_half && !mask.empty() ? half.data() : nullptr,
                 slope };
    }
};

Problem random_problem(Random & random, int n, float size, bool is_masked) {
    Problem p;
    for (int i = 0; i < n; i++) {
        p.x.push_back(size * random.real());
        if (is_masked) {
            p.mask.push_back(random.below(3) == 0 ? -INFINITY : (float) random.below(64) / -8);
            p.half.push_back(half_of(p.mask.back()));
        }
    }
    p.scale    = 0.125f * (float) (1 + random.below(16));
    p.slope    = is_masked && random.below(2) == 0 ? 0.25f : 1.0f;
    p.has_sink = random.below(3) == 0;
    p.sink     = size * random.real();
    return p;
}

std::vector<float> solve(const Problem & p, bool is_half) {
    std::vector<float> y(p.x.size() + 1, 7.0f);
    soft_max_row(p.x.data(), p.scale, p.masked(is_half), p.sink_ptr(), y.data(), (int64_t) p.x.size());
    CHECK(y.back() == 7.0f, "wrote beyond the row");
    y.pop_back();
    return y;
}

void check(const Problem & p, const char * what) {
    const int64_t            n = (int64_t) p.x.size();
    std::vector<double>      want(p.x.size());
    const std::vector<float> got = solve(p, false), halves = solve(p, true);
    soft_max_reference(p.x.data(), p.scale, p.mask.empty() ? nullptr : p.mask.data(), p.slope, p.sink_ptr(),
                       want.data(), n);
    for (int64_t i = 0; i < n; i++) {
        // The logits' own rounding counts as well: half an ULP of up to 2 |w| and of w - max.
        const double w     = fabs((double) p.x[i] * p.scale) + (p.mask.empty() || std::isinf(p.mask[i]) ? 0 : 16);
        const double bound = (want[i] > 0 ? (1e-6 + 0x1p-22 * (w + 40)) * want[i] : 0) + 0x1p-126;
        CHECK(fabs(got[i] - want[i]) <= bound || (std::isnan(got[i]) && std::isnan(want[i])),
              "%s n=%d i=%d: %g, reference %g", what, (int) n, (int) i, (double) got[i], want[i]);
        CHECK(same_bits(got[i], halves[i]), "%s n=%d i=%d: an F16 mask gives other bits", what, (int) n, (int) i);
    }

    // In place, and with masked columns behind.
    Problem wide = p;
    if (wide.mask.empty()) {
        wide.mask.assign(p.x.size(), 0.0f);
    }
    for (int i = 0; i < 77; i++) {
        wide.x.push_back(1.5f);
        wide.mask.push_back(-INFINITY);
    }
    std::vector<float> in_place = wide.x;
    const int64_t      m        = (int64_t) wide.x.size();
    soft_max_row(in_place.data(), p.scale, wide.masked(false), p.sink_ptr(), in_place.data(), m);
    for (int64_t i = 0; i < n; i++) {
        CHECK(same_bits(got[i], in_place[i]), "%s n=%d i=%d: padding changes bits", what, (int) n, (int) i);
    }

    // As several threads would: maxima, sums and scaling by blocks.
    std::vector<float> y(p.x.size());
    float              max   = p.has_sink ? p.sink : -INFINITY;
    const auto         block = [&](auto f) {
        for (int64_t begin = 0; begin < n; begin += soft_max_block) {
            f(begin, std::min(n, begin + soft_max_block));
        }
    };
    block([&](int64_t b, int64_t e) {
        max = std::max(max, soft_max_logits(p.x.data(), p.scale, p.masked(true), y.data(), b, e));
    });
    double total = soft_max_sink(p.sink_ptr(), max);
    block([&](int64_t b, int64_t e) { total += soft_max_exp(y.data(), max, b, e); });
    block([&](int64_t b, int64_t e) { soft_max_scale(y.data(), (float) (1 / total), b, e); });
    for (int64_t i = 0; i < n; i++) {
        CHECK(same_bits(got[i], y[i]), "%s n=%d i=%d: blocks give other bits", what, (int) n, (int) i);
    }
}

}  // namespace

int main() {
    Random random;
    for (int n : { 1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 512, 2047, 2048, 2049, 5000 }) {
        for (float size : { 0.01f, 1.0f, 30.0f, 1000.0f }) {
            check(random_problem(random, n, size, false), "plain");
            check(random_problem(random, n, size, true), "masked");
        }
    }

    Problem all_masked = random_problem(random, 100, 1, true);
    std::fill(all_masked.mask.begin(), all_masked.mask.end(), -INFINITY);
    std::fill(all_masked.half.begin(), all_masked.half.end(), half_of(-INFINITY));
    for (bool has_sink : { false, true }) {
        all_masked.has_sink = has_sink;
        check(all_masked, "all masked");
        CHECK(has_sink ? solve(all_masked, false)[99] == 0 : std::isnan(solve(all_masked, false)[99]), "all masked");
    }

    for (float odd : { NAN, INFINITY, -INFINITY, 1e-45f, 3e38f }) {
        for (int at : { 0, 40, 99 }) {
            Problem p = random_problem(random, 100, 1, false);
            p.x[at]   = odd;
            p.scale   = 1;
            check(p, "extreme");
        }
    }
    for (uint16_t h : { 0x0001, 0x03ff, 0x0400, 0x3c00, 0x7bff, 0x7c00, 0x8001, 0xfc00 }) {
        const uint16_t row[lanes] = { h };
        const double   e = h >> 10 & 31, m = h & 1023;
        const double   size = e == 31 ? INFINITY : e == 0 ? m * 0x1p-24 : (1024 + m) * exp2(e - 25);
        CHECK(same_bits(vload_half(row)[0], (float) (h & 0x8000 ? -size : size)), "half %04x", h);
    }
    return report("soft_max");
}
