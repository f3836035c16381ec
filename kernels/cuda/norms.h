// SPDX-License-Identifier: BSD-2-Clause
//
// The launches behind squared norms and clip factors.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_NORMS_H_
#define DRAGON_OPTIM_KERNELS_CUDA_NORMS_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/gradient.h"

namespace dragon_optim {
namespace cuda {

struct NormSettings {
  double scale;
  double clip_norm;       // 0: the results are the squared norms, else clip factors
  const double* numbers;  // in device memory, as in UpdateSettings; null, or what replaces the two above
};

inline int64_t NormBlocks(int64_t size) { return size / kNormBlock + (size % kNormBlock != 0); }

// results[i] is of gradients[i]; block_sums has room for all blocks of all gradients.
void LaunchNorms(DType grad_dtype, const Gradient* gradients, int64_t count, const NormSettings& settings,
                 double* block_sums, double* results, cudaStream_t stream);

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_NORMS_H_
