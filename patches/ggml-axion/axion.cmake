# Adds our kernels to the CPU backend (every variant of it); included by the hook in ggml-cpu/CMakeLists.txt.
file(GLOB AXION_SOURCES CONFIGURE_DEPENDS ${GGML_AXION_DIR}/*.cpp)
list(APPEND GGML_CPU_SOURCES ${AXION_SOURCES})
target_include_directories(${GGML_CPU_NAME} PRIVATE ${GGML_AXION_DIR})
target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_AXION)
set(AXION_WARNINGS -Wall -Wextra -Werror -Wno-unused-function -Wno-psabi)
if (CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC warns of its own AVX-512 intrinsics (its bug 105593).
    list(APPEND AXION_WARNINGS -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
set_source_files_properties(${AXION_SOURCES} PROPERTIES COMPILE_OPTIONS "${AXION_WARNINGS}")
set_source_files_properties(${GGML_AXION_DIR}/dispatch.cpp PROPERTIES
    COMPILE_DEFINITIONS "AXION_BUILD_ID=\"${AXION_BUILD_ID}\"")
# What is hot is unrolled by hand, here and upstream: all of -O3 takes the compiler five times as long over our tiles.
target_compile_options(${GGML_CPU_NAME} PRIVATE -O2 -ftree-vectorize -fvect-cost-model=dynamic)
