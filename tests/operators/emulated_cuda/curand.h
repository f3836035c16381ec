// SPDX-License-Identifier: BSD-2-Clause

#ifndef EMULATED_CURAND_H_
#define EMULATED_CURAND_H_

#include <cuda_runtime.h>

using curandGenerator_t = void*;
enum curandStatus_t { CURAND_STATUS_SUCCESS };
enum curandRngType_t { CURAND_RNG_PSEUDO_DEFAULT };

curandStatus_t curandCreateGenerator(curandGenerator_t* generator, curandRngType_t type);
curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t generator, unsigned long long seed);
curandStatus_t curandSetStream(curandGenerator_t generator, cudaStream_t stream);

#endif  // EMULATED_CURAND_H_
