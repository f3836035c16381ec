// SPDX-License-Identifier: BSD-2-Clause
//
// The memory and the streams of some emulated devices. What lies on a device can only be touched by work that runs there:
// the host, and the work of another device, end the process by it. Work on a stream runs when somebody waits for it.

#ifndef EMULATED_DEVICE_H_
#define EMULATED_DEVICE_H_

#include <cstddef>

namespace emulated {

constexpr int kDevices = 3;

int CurrentDevice();

// Null where there is no more. Counted.
void* Allocate(int device, size_t bytes);
void Free(void* memory);

// As the calls of the runtime that wait for the device. Counted as copies.
void Download(void* host, const void* memory, size_t bytes);
void Upload(void* memory, const void* host, size_t bytes);
void Move(void* to, const void* from, size_t bytes);
void Zero(void* memory, size_t bytes);

}  // namespace emulated

#endif  // EMULATED_DEVICE_H_
