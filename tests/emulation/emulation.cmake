# SPDX-License-Identifier: Apache-2.0
# The emulation of a GPU (docs/gpu.md): the .cu files compiled as C++ by way of a source that includes them.
set(EMULATION ${CMAKE_SOURCE_DIR}/tests/emulation)
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS gpu_kernels/twinstamp_kernels/cuda/*.cu tests/emulation/*.cu)
set(CUDA_WRAPPERS)
foreach(source IN LISTS CUDA_SOURCES)
  get_filename_component(name ${source} NAME_WE)
  set(wrapper ${CMAKE_BINARY_DIR}/emulation/${name}.cpp)
  add_custom_command(
    OUTPUT ${wrapper}
    COMMAND ${Python_EXECUTABLE} ${EMULATION}/registry.py ${source} ${wrapper}
    DEPENDS ${source} ${EMULATION}/registry.py)
  list(APPEND CUDA_WRAPPERS ${wrapper})
endforeach()

function(emulation_kernels target calls)
  add_library(${target} OBJECT ${CUDA_WRAPPERS})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden)
  target_include_directories(${target} PRIVATE ${EMULATION} gpu_kernels/twinstamp_kernels/include)
  target_compile_definitions(${target} PRIVATE TS_EMULATION)
  # -O2 comes last and wins over CMake's -O3. No vectors and no calls of memcpy: a GPU's thread has neither,
  # and they would go past the checks. Instrumented as if for ThreadSanitizer.
  target_compile_options(
    ${target}
    PRIVATE -O2 -g -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror -fsanitize=thread
            --param=tsan-distinguish-volatile=1 --param=tsan-instrument-func-entry-exit=${calls} -fno-exceptions
            -fno-rtti -fno-stack-protector -fno-optimize-sibling-calls -fno-tree-vectorize -fno-tree-loop-distribute-patterns "SHELL:-include cuda.h")
endfunction()

emulation_kernels(emulation_kernels_fibers 0)
nanobind_add_module(_emulation NB_STATIC NOMINSIZE ${EMULATION}/module.cpp ${EMULATION}/memory.cpp
                    ${EMULATION}/scheduler.cpp $<TARGET_OBJECTS:emulation_kernels_fibers>)
target_compile_options(_emulation PRIVATE -O2 -Wall -Wextra -Werror)
target_include_directories(_emulation SYSTEM PRIVATE ${nanobind_ROOT}/../include)
set_target_properties(_emulation PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${EMULATION})
# nanobind strips; the messages name lines of the kernels.
get_target_property(options _emulation LINK_OPTIONS)
list(FILTER options EXCLUDE REGEX "-Wl,-s|-Wl,-x")
set_target_properties(_emulation PROPERTIES LINK_OPTIONS "${options}")

# Built when threads.py asks for it: every kernel once more, with ThreadSanitizer behind it.
emulation_kernels(emulation_kernels_threads 1)
add_executable(emulation_threads ${EMULATION}/threads.cpp $<TARGET_OBJECTS:emulation_kernels_threads>)
target_compile_options(emulation_threads PRIVATE -O2 -g -Wall -Wextra -Werror)
target_link_options(emulation_threads PRIVATE -fsanitize=thread)
target_link_libraries(emulation_threads PRIVATE Threads::Threads)
set_target_properties(emulation_threads emulation_kernels_threads PROPERTIES EXCLUDE_FROM_ALL ON)
