// SPDX-License-Identifier: Apache-2.0
// Kernels by name. registry.py writes, for each .cu file, a source that includes it and registers each
// __global__ function found there.
#pragma once

namespace emulation {

struct Kernel {
    const char* name;
    unsigned parameters;
    void (*run)();
    Kernel* next;
};

inline Kernel* kernels = nullptr;

// A parameter of the launch in progress. A call, as loads in instrumented code would be checked.
unsigned long parameter(unsigned index);

template <unsigned... indices>
struct Indices {};

template <auto function>
struct Unpack;

template <typename... P, void (*function)(P...)>
struct Unpack<function> {
    static_assert(((sizeof(P) == 8) && ...), "every parameter of a kernel is 8 bytes wide");
    static constexpr unsigned count = sizeof...(P);
    template <unsigned... indices>
    static void call(Indices<indices...>) {
        function(__builtin_bit_cast(P, parameter(indices))...);
    }
    static void run() { call(Indices<__integer_pack(count)...>{}); }
};

struct Registration {
    Kernel kernel;
    Registration(const char* name, unsigned parameters, void (*run)())
        : kernel{name, parameters, run, kernels} {
        kernels = &kernel;
    }
};

}  // namespace emulation

#define TS_REGISTER(name)                                                                          \
    static ::emulation::Registration name##_registration(#name, ::emulation::Unpack<&name>::count, \
                                                         &::emulation::Unpack<&name>::run);
