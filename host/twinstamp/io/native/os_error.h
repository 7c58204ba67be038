// SPDX-License-Identifier: Apache-2.0
// A failed system call, raised in Python as OSError(errno, "doing: strerror").
#pragma once
#include <net/if.h>

#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

namespace twinstamp {

class OsError : public std::exception {
  public:
    OsError(std::string doing, int code)
        : code_(code), text_(std::move(doing) + ": " + std::strerror(code)) {}
    const char* what() const noexcept override { return text_.c_str(); }
    int code() const noexcept { return code_; }

  private:
    int code_;
    std::string text_;
};

inline ifreq interface_request(const std::string& interface) {
    ifreq request{};
    if (interface.empty() || interface.size() >= sizeof request.ifr_name)
        throw std::invalid_argument("an interface name has 1 to 15 bytes, '" + interface + "' has " +
                                    std::to_string(interface.size()));
    std::memcpy(request.ifr_name, interface.c_str(), interface.size());
    return request;
}

}  // namespace twinstamp
