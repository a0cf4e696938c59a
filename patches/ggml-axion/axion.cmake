# Adds our kernels to the CPU backend (every variant of it); included by the hook in ggml-cpu/CMakeLists.txt.
file(GLOB AXION_SOURCES CONFIGURE_DEPENDS ${GGML_AXION_DIR}/*.cpp)
list(APPEND GGML_CPU_SOURCES ${AXION_SOURCES})
target_include_directories(${GGML_CPU_NAME} PRIVATE ${GGML_AXION_DIR})
target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_AXION AXION_BUILD_ID="${AXION_BUILD_ID}")
set_source_files_properties(${AXION_SOURCES} PROPERTIES COMPILE_OPTIONS "-Wall;-Wextra;-Werror;-Wno-unused-function")
