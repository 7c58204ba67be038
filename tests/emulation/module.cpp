// SPDX-License-Identifier: Apache-2.0
// The emulation as a Python extension; device.py makes a Device of it.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "scheduler.h"

namespace nb = nanobind;
using namespace emulation;

namespace {

const Kernel& find(const std::string& name) {
    for (const Kernel* kernel = kernels; kernel != nullptr; kernel = kernel->next) {
        if (name == kernel->name) return *kernel;
    }
    throw Offence("no kernel is called " + name);
}

}  // namespace

NB_MODULE(_emulation, m) {
    nb::set_leak_warnings(false);
    m.doc() = "A GPU emulated on the CPU: memory with a shadow, kernels run thread by thread.";
    nb::exception<Offence>(m, "EmulationError", PyExc_RuntimeError);
    m.def(
        "kernels",
        [] {
            nb::dict all;
            for (const Kernel* kernel = kernels; kernel != nullptr; kernel = kernel->next) {
                all[kernel->name] = kernel->parameters;
            }
            return all;
        },
        "Name and number of parameters of each kernel.");
    nb::class_<Memory>(m, "Memory", "Device memory.")
        .def(nb::init<u64>(), nb::arg("seed"))
        .def("allocate", &Memory::allocate, nb::arg("size"))
        .def("free", &Memory::free, nb::arg("address"))
        .def(
            "write",
            [](Memory& self, u64 address, u64 source, u64 size) {
                if (size == 0) return;
                std::memcpy(self.reach(address, size, "upload"), reinterpret_cast<const void*>(source), size);
                self.written(address, size);
            },
            nb::arg("address"), nb::arg("source"), nb::arg("size"), "Copies from a host address.")
        .def(
            "read",
            [](Memory& self, u64 target, u64 address, u64 size) {
                if (size == 0) return;
                std::memcpy(reinterpret_cast<void*>(target), self.reach(address, size, "download"), size);
            },
            nb::arg("target"), nb::arg("address"), nb::arg("size"), "Copies to a host address.")
        .def(
            "fill",
            [](Memory& self, u64 address, int value, u64 size) {
                if (size == 0) return;
                std::memset(self.reach(address, size, "fill"), value, size);
                self.written(address, size);
            },
            nb::arg("address"), nb::arg("value"), nb::arg("size"))
        .def_prop_ro("living", &Memory::living, "Allocations not freed.")
        .def_prop_ro("living_bytes", &Memory::living_bytes)
        .def(
            "launch",
            [](Memory& self, const std::string& name, u32 blocks, const std::vector<u64>& arguments, u64 seed,
               u32 interval, u32 resident_blocks, bool racecheck, bool initcheck, double time_limit_s) {
                const Kernel& kernel = find(name);
                if (kernel.parameters != arguments.size()) {
                    throw Offence("kernel " + name + " has " + std::to_string(kernel.parameters) +
                                  " parameters, not " + std::to_string(arguments.size()));
                }
                const Statistics statistics =
                    launch(self, kernel, blocks, arguments.data(),
                           {seed, interval, resident_blocks, racecheck, initcheck, time_limit_s});
                return std::pair(statistics.accesses, statistics.switches);
            },
            nb::arg("kernel"), nb::arg("blocks"), nb::arg("arguments"), nb::arg("seed"), nb::arg("interval"),
            nb::arg("resident_blocks"), nb::arg("racecheck"), nb::arg("initcheck"), nb::arg("time_limit_s"),
            "Runs a kernel to its end: (memory accesses, switches). EmulationError for an offence.");
}
