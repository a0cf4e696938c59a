// Rotary embedding against its reference in double: pair layouts, odd head sizes, factors, YaRN, sections, in place,
// and positions up to 2^31; not worse than angles multiplied up in FP32.

#include "check.h"
#include "rope.h"

#include <algorithm>
#include <vector>

using namespace axion;

namespace {

struct Tables {
    float cosine[2 * rope_max_pairs], sine[2 * rope_max_pairs];
};

double worst_of(const RopePlan & plan, const int32_t * position, const char * what) {
    static Tables t;
    rope_table(plan, position, t.cosine, t.sine);
    double worst = 0;
    for (int i = 0; i < plan.num_pairs; i++) {
        const double angle = plan.frequency[i] * (M_PI / 2) * position[plan.has_sections ? plan.section[i] : 0];
        const int    at    = plan.is_interleaved ? 2 * i + 1 : i;
        const double error =
            std::max(fabs(t.sine[at] - plan.magnitude * sin(angle)), fabs(t.cosine[at] - plan.magnitude * cos(angle)));
        // The angle itself is known to 2^-53 of its size only.
        CHECK(error <= plan.magnitude * (0x1p-23 + fabs(angle) * 0x1p-51), "%s position=%d pair=%d: off by %g", what,
              (int) position[0], i, error);
        worst = std::max(worst, error);
    }
    return worst;
}

void check_rows(const RopePlan & plan, const int32_t * position, Random & random, const char * what) {
    static Tables       t;
    const int           n = 2 * plan.num_pairs;
    std::vector<float>  x(n), y(n + 1, 7.0f);
    std::vector<double> want(n);
    std::generate(x.begin(), x.end(), [&] { return 4 * random.real(); });
    rope_table(plan, position, t.cosine, t.sine);
    rope_row(plan, t.cosine, t.sine, x.data(), y.data());
    rope_reference(plan, position, x.data(), want.data());
    for (int i = 0; i < n; i++) {
        CHECK(fabs(y[i] - want[i]) <= plan.magnitude * 3e-6, "%s n=%d i=%d: %g, reference %g", what, n, i,
              (double) y[i], want[i]);
    }
    CHECK(y[n] == 7.0f, "%s n=%d wrote beyond the row", what, n);
    rope_row(plan, t.cosine, t.sine, x.data(), x.data());
    for (int i = 0; i < n; i++) {
        CHECK(same_bits(x[i], y[i]), "%s n=%d i=%d: in place gives other bits", what, n, i);
    }
}

// As upstream computes angles: the position times the same FP32 factor from pair to pair.
double worst_of_recurrence(const RopePlan & plan, double base, int32_t position) {
    const float scale = powf((float) base, -2.0f / (2 * plan.num_pairs));
    float       theta = (float) position;
    double      worst = 0;
    for (int i = 0; i < plan.num_pairs; i++, theta *= scale) {
        const double angle = position * pow(base, -(double) i / plan.num_pairs);
        worst              = std::max(worst, std::max(fabs(sinf(theta) - sin(angle)), fabs(cosf(theta) - cos(angle))));
    }
    return worst;
}

}  // namespace

int main() {
    Random          random;
    static RopePlan plan;
    for (int pairs : { 1, 3, 10, 16, 18, 32, 48, 64, 100, 128, 512 }) {
        for (bool is_interleaved : { false, true }) {
            std::vector<float> factors(pairs);
            std::generate(factors.begin(), factors.end(), [&] { return 1.0f + 7.0f * fabsf(random.real()); });
            plan                = RopePlan{};
            plan.num_pairs      = pairs;
            plan.is_interleaved = is_interleaved;
            plan.magnitude      = random.below(2) == 0 ? 1.0f : 1.4245f;
            RopeYarn yarn;
            if (random.below(2) == 0) {
                yarn = { 0.7465, pairs * 0.2, pairs * 0.7 };
            }
            rope_frequencies(plan, 10000, random.below(2) == 0 ? 1 : 0.25, random.below(2) ? factors.data() : nullptr,
                             yarn);
            for (int32_t p : { 0, 1, 7, 511, 4096, 131071, 1000000, INT32_MAX, -5 }) {
                const int32_t position[4] = { p, p / 2, p / 3, 1 };
                plan.has_sections         = false;
                worst_of(plan, position, "plain");
                check_rows(plan, position, random, "plain");
                plan.has_sections = true;
                std::generate(plan.section, plan.section + pairs, [&] { return (uint8_t) random.below(4); });
                worst_of(plan, position, "sections");
                check_rows(plan, position, random, "sections");
            }
        }
    }

    plan           = RopePlan{};
    plan.num_pairs = 64;
    for (double base : { 1e4, 1e6 }) {
        rope_frequencies(plan, base, 1, nullptr, {});
        for (int i = 0; i < 64; i++) {
            const double want = 2 / M_PI * pow(base, -i / 64.0);
            CHECK(fabs(plan.frequency[i] - want) <= 1e-14 * want, "frequency %d", i);
        }
        for (int32_t p : { 100, 5000, 100000, 1000000 }) {
            const double ours = worst_of(plan, &p, "base"), theirs = worst_of_recurrence(plan, base, p);
            printf("base %g position %d: off by %.2g, FP32 recurrence %.2g\n", base, (int) p, ours, theirs);
            CHECK(ours <= theirs, "position %d: %g, recurrence %g", (int) p, ours, theirs);
        }
    }
    return report("rope");
}
