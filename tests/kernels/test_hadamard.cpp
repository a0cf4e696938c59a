// The Walsh-Hadamard transform: against its matrix in double, and bit by bit against the textbook's passes over memory.

#include "check.h"
#include "hadamard.h"

#include <algorithm>
#include <limits>
#include <vector>

using namespace axion;

namespace {

// As upstream does it: every pass reads what the one before has written.
std::vector<float> by_passes(const std::vector<float> & x) {
    const int          n     = (int) x.size();
    const float        scale = 1.0f / sqrtf((float) n);
    std::vector<float> y(n);
    std::transform(x.begin(), x.end(), y.begin(), [&](float v) { return v * scale; });
    for (int len = 1; len < n; len *= 2) {
        for (int i = 0; i < n; i++) {
            if ((i & len) == 0) {
                const float u = y[i], v = y[i + len];
                y[i]       = u + v;
                y[i + len] = u - v;
            }
        }
    }
    return y;
}

void check_row(const std::vector<float> & x, const char * name) {
    const int          n = (int) x.size();
    std::vector<float> y(n + 1, 7.0f), same(x);
    hadamard_row(x.data(), n, y.data());
    hadamard_row(same.data(), n, same.data());
    const std::vector<float> want = by_passes(x);
    for (int i = 0; i < n; i++) {
        const bool is_nan = want[i] != want[i];
        CHECK(is_nan ? y[i] != y[i] : same_bits(y[i], want[i]), "%s n=%d [%d] = %a, by passes %a", name, n, i, y[i],
              want[i]);
        CHECK(is_nan ? same[i] != same[i] : same_bits(same[i], want[i]), "%s n=%d [%d] in place", name, n, i);
    }
    CHECK(y[n] == 7, "%s n=%d wrote beyond the row", name, n);
}

void check_matrix(const std::vector<float> & x) {
    const int          n = (int) x.size();
    std::vector<float> y(n);
    hadamard_row(x.data(), n, y.data());
    double size = 0;
    for (float v : x) {
        size += fabs(v);
    }
    for (int i = 0; i < n; i++) {
        double want = 0;
        for (int j = 0; j < n; j++) {
            want += __builtin_parity(i & j) ? -x[j] : x[j];
        }
        want /= sqrt((double) n);
        const double bound = 12 * 0x1p-24 * size / sqrt((double) n);
        CHECK(fabs(y[i] - want) <= bound, "n=%d [%d] = %a, reference %a", n, i, y[i], want);
    }
}

}  // namespace

int main() {
    Random random;
    for (int n = 64; n <= 1024; n *= 2) {
        std::vector<float> x(n);
        for (int round = 0; round < 20; round++) {
            std::generate(x.begin(), x.end(), [&] { return 30 * random.real(); });
            check_row(x, "random");
            check_matrix(x);
        }
        std::fill(x.begin(), x.end(), -0.0f);
        check_row(x, "negative zeros");
        for (float extreme : { std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max(), INFINITY,
                               -INFINITY, NAN }) {
            std::generate(x.begin(), x.end(), [&] { return random.real(); });
            x[random.below(n)] = extreme;
            check_row(x, "extreme");
        }
    }
    return report("hadamard");
}
