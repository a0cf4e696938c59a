// The machine's peaks for `axion-llm bench kernels`, compiled for the instruction set the kernels are compiled for.
#include "axion.h"
#include "peak.h"

double axion_measure_peak(uint32_t kind, double seconds) {
    return axion::measure_peak(kind, seconds);
}
