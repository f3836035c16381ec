// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cuda/c_api.h"

#include <cstddef>

#include "kernels/c_errors.h"
#include "kernels/cuda/clip.h"
#include "kernels/cuda/gradient.h"
#include "kernels/cuda/rmsprop.h"

using dragon_optim::CheckedDType;
using dragon_optim::Guarded;
namespace cuda = dragon_optim::cuda;

// That the structures agree field for field is checked in kernels/c_api.cc.
namespace {

const dragon_optim::RMSpropOptions& Of(const dragon_optim_rmsprop_options* options) {
  return *reinterpret_cast<const dragon_optim::RMSpropOptions*>(options);
}
const dragon_optim::RMSpropTensor* Of(const dragon_optim_rmsprop_tensor* tensors) {
  return reinterpret_cast<const dragon_optim::RMSpropTensor*>(tensors);
}
const dragon_optim::AccumulateTensor* Of(const dragon_optim_accumulate_tensor* tensors) {
  return reinterpret_cast<const dragon_optim::AccumulateTensor*>(tensors);
}
const dragon_optim::Gradient* Of(const dragon_optim_gradient* gradients) {
  return reinterpret_cast<const dragon_optim::Gradient*>(gradients);
}
const dragon_optim::ClipTensor* Of(const dragon_optim_clip_tensor* tensors) {
  return reinterpret_cast<const dragon_optim::ClipTensor*>(tensors);
}
const cuda::NormTensor* Of(const dragon_optim_cuda_norm_tensor* tensors) {
  static_assert(sizeof(dragon_optim_cuda_norm_tensor) == sizeof(cuda::NormTensor), "field for field");
  static_assert(offsetof(dragon_optim_cuda_norm_tensor, place) == offsetof(cuda::NormTensor, place), "field for field");
  return reinterpret_cast<const cuda::NormTensor*>(tensors);
}
cudaStream_t StreamOf(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

int dragon_optim_cuda_rmsprop(int dtype, int grad_dtype, const dragon_optim_rmsprop_options* options,
                              const double* numbers, const int32_t* skip, const dragon_optim_rmsprop_tensor* tensors,
                              int64_t count, void* workspace, int64_t workspace_bytes, void* stream) {
  return Guarded([&] {
    cuda::RMSpropUpdate(CheckedDType(dtype), CheckedDType(grad_dtype), Of(options), {numbers, skip}, Of(tensors), count,
                        {workspace, workspace_bytes}, StreamOf(stream));
  });
}

int64_t dragon_optim_cuda_rmsprop_workspace(const dragon_optim_rmsprop_options* options,
                                            const dragon_optim_rmsprop_tensor* tensors, int64_t count) {
  return cuda::RMSpropWorkspace(Of(options), Of(tensors), count);
}

int dragon_optim_cuda_accumulate(int grad_dtype, const dragon_optim_accumulate_tensor* tensors, int64_t count,
                                 void* stream) {
  return Guarded([&] { cuda::Accumulate(CheckedDType(grad_dtype), Of(tensors), count, StreamOf(stream)); });
}

int dragon_optim_cuda_find_non_finite(int grad_dtype, const dragon_optim_gradient* gradients, int64_t count,
                                      int32_t* found, void* stream) {
  return Guarded([&] { cuda::FindNonFinite(CheckedDType(grad_dtype), Of(gradients), count, found, StreamOf(stream)); });
}

int dragon_optim_cuda_squared_norms(int grad_dtype, const dragon_optim_gradient* gradients, int64_t count, double scale,
                                    double* norms, void* workspace, int64_t workspace_bytes, void* stream) {
  return Guarded([&] {
    cuda::SquaredNorms(CheckedDType(grad_dtype), Of(gradients), count, scale, norms, {workspace, workspace_bytes},
                       StreamOf(stream));
  });
}

int64_t dragon_optim_cuda_squared_norms_workspace(const dragon_optim_gradient* gradients, int64_t count) {
  return cuda::SquaredNormsWorkspace(Of(gradients), count);
}

int dragon_optim_cuda_fill(int dtype, void* data, int64_t size, double value, void* stream) {
  return Guarded([&] { cuda::Fill(CheckedDType(dtype), data, size, value, StreamOf(stream)); });
}

int dragon_optim_cuda_norm_terms(int grad_dtype, double order, const dragon_optim_cuda_norm_tensor* tensors,
                                 int64_t count, double* terms, void* workspace, int64_t workspace_bytes, void* stream) {
  return Guarded([&] {
    cuda::NormTerms(CheckedDType(grad_dtype), order, Of(tensors), count, terms, {workspace, workspace_bytes},
                    StreamOf(stream));
  });
}

int64_t dragon_optim_cuda_norm_terms_workspace(const dragon_optim_cuda_norm_tensor* tensors, int64_t count) {
  return cuda::NormTermsWorkspace(Of(tensors), count);
}

int dragon_optim_cuda_norm_of_terms(double order, const double* terms, int64_t count, int dtype, void* norm,
                                    void* stream) {
  return Guarded([&] { cuda::NormOfTerms(order, terms, count, CheckedDType(dtype), norm, StreamOf(stream)); });
}

int dragon_optim_cuda_scale_to_norm(int grad_dtype, const dragon_optim_clip_tensor* tensors, int64_t count,
                                    double max_norm, int norm_dtype, const void* norm, void* stream) {
  return Guarded([&] {
    cuda::ScaleToNorm(CheckedDType(grad_dtype), Of(tensors), count, max_norm, CheckedDType(norm_dtype), norm,
                      StreamOf(stream));
  });
}

int dragon_optim_cuda_scale(int grad_dtype, const dragon_optim_clip_tensor* tensors, int64_t count, double factor,
                            void* stream) {
  return Guarded([&] { cuda::Scale(CheckedDType(grad_dtype), Of(tensors), count, factor, StreamOf(stream)); });
}

int dragon_optim_cuda_clamp(int grad_dtype, const dragon_optim_clip_tensor* tensors, int64_t count, double limit,
                            void* stream) {
  return Guarded([&] { cuda::Clamp(CheckedDType(grad_dtype), Of(tensors), count, limit, StreamOf(stream)); });
}

const char* dragon_optim_cuda_architectures(void) { return DRAGON_OPTIM_CUDA_ARCHITECTURES; }

const char* dragon_optim_cuda_last_error(void) { return dragon_optim::LastError().c_str(); }
