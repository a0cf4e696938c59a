// RMSNorm against its reference in double: odd lengths, tails, extremes; the same bits for every split into columns.

#include "check.h"
#include "rms_norm.h"

#include <algorithm>
#include <limits>
#include <vector>

using namespace axion;

namespace {

constexpr float eps   = 1e-5f;
constexpr float bound = 1e-6f;  // relative, as rms_norm.h states it

void check_row(const std::vector<float> & x, const float * w, const char * what) {
    const int64_t      n = (int64_t) x.size();
    std::vector<float> got(x.size()), want(x.size()), parts(x.size());
    const float        scale = rms_scale(x.data(), n, eps);
    scale_row(x.data(), w, got.data(), scale, 0, n);
    rms_norm_reference(x.data(), w, want.data(), n, eps);
    for (int64_t begin = 0; begin < n; begin += 64) {
        scale_row(x.data(), w, parts.data(), scale, begin, std::min(n, begin + 64));
    }
    for (int64_t i = 0; i < n; i++) {
        const bool close = std::fabs(got[i] - want[i]) <= bound * std::fabs(want[i]);
        CHECK(close || same_bits(got[i], want[i]), "%s n=%d i=%d: %g, reference %g", what, (int) n, (int) i,
              (double) got[i], (double) want[i]);
        CHECK(same_bits(got[i], parts[i]), "%s n=%d i=%d: split by columns gives other bits", what, (int) n, (int) i);
    }
}

std::vector<float> random_row(Random & random, int n, float size) {
    std::vector<float> x(n);
    std::generate(x.begin(), x.end(), [&] { return random.real() * size; });
    return x;
}

}  // namespace

int main() {
    Random random;
    for (int n : { 1, 3, 15, 16, 17, 63, 64, 65, 127, 576, 1000, 4096, 5120 }) {
        for (float size : { 1e-6f, 1.0f, 1e6f }) {
            const std::vector<float> x = random_row(random, n, size), w = random_row(random, n, 2.0f);
            check_row(x, nullptr, "plain");
            check_row(x, w.data(), "weighted");
        }
    }
    check_row(std::vector<float>(100, 0.0f), nullptr, "zeros");
    check_row(std::vector<float>(100, std::numeric_limits<float>::denorm_min()), nullptr, "denormals");
    std::vector<float> poisoned = random_row(random, 100, 1.0f);
    poisoned[37]                = std::numeric_limits<float>::quiet_NaN();
    check_row(poisoned, nullptr, "NaN");
    return report("rms_norm");
}
