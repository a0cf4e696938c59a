// The switch of the AMX tiles, where the build has them: off, products of many columns take the vectors' tiles.

#include "amx.h"

#if defined(AXION_AMX)

#include "kernel.h"

namespace axion {

const Kernel amx_kernel = { "amx", nullptr, nullptr, nullptr, nullptr, nullptr };

}  // namespace axion

#endif
