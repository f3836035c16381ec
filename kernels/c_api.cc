// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/c_api.h"

#include <cstddef>
#include <string>

#include "kernels/c_errors.h"
#include "kernels/clip.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/gradient.h"
#include "kernels/rmsprop.h"
#include "kernels/rmsprop_backward.h"

namespace dragon_optim {
namespace {

static_assert(sizeof(dragon_optim_rmsprop_options) == sizeof(RMSpropOptions), "field for field");
static_assert(offsetof(dragon_optim_rmsprop_options, decoupled_weight_decay) ==
                  offsetof(RMSpropOptions, decoupled_weight_decay),
              "field for field");
static_assert(sizeof(dragon_optim_rmsprop_tensor) == sizeof(RMSpropTensor), "field for field");
static_assert(offsetof(dragon_optim_rmsprop_tensor, master_param) == offsetof(RMSpropTensor, master_param),
              "field for field");
static_assert(sizeof(dragon_optim_rmsprop_backward_tensor) == sizeof(RMSpropBackwardTensor), "field for field");
static_assert(offsetof(dragon_optim_rmsprop_backward_tensor, to_grad_avg) ==
                  offsetof(RMSpropBackwardTensor, to_grad_avg),
              "field for field");
static_assert(sizeof(dragon_optim_rmsprop_options_gradient) == sizeof(RMSpropOptionsGradient), "field for field");
static_assert(offsetof(dragon_optim_rmsprop_options_gradient, clip_value) ==
                  offsetof(RMSpropOptionsGradient, clip_value),
              "field for field");
static_assert(sizeof(dragon_optim_gradient) == sizeof(Gradient), "field for field");
static_assert(sizeof(dragon_optim_accumulate_tensor) == sizeof(AccumulateTensor), "field for field");
static_assert(offsetof(dragon_optim_accumulate_tensor, first) == offsetof(AccumulateTensor, first), "field for field");
static_assert(sizeof(dragon_optim_clip_tensor) == sizeof(ClipTensor), "field for field");

}  // namespace
}  // namespace dragon_optim

using dragon_optim::CheckedDType;
using dragon_optim::Guarded;

int dragon_optim_rmsprop(int dtype, int grad_dtype, const dragon_optim_rmsprop_options* options,
                         const dragon_optim_rmsprop_tensor* tensors, int64_t count, int threads) {
  return Guarded([&] {
    dragon_optim::RMSpropUpdate(CheckedDType(dtype), CheckedDType(grad_dtype),
                                *reinterpret_cast<const dragon_optim::RMSpropOptions*>(options),
                                reinterpret_cast<const dragon_optim::RMSpropTensor*>(tensors), count, threads);
  });
}

int dragon_optim_rmsprop_backward(int dtype, const dragon_optim_rmsprop_options* options,
                                  const dragon_optim_rmsprop_backward_tensor* tensors, int64_t count, int threads,
                                  dragon_optim_rmsprop_options_gradient* to_options) {
  return Guarded([&] {
    dragon_optim::RMSpropBackward(CheckedDType(dtype), *reinterpret_cast<const dragon_optim::RMSpropOptions*>(options),
                                  reinterpret_cast<const dragon_optim::RMSpropBackwardTensor*>(tensors), count, threads,
                                  reinterpret_cast<dragon_optim::RMSpropOptionsGradient*>(to_options));
  });
}

int dragon_optim_accumulate(int grad_dtype, const dragon_optim_accumulate_tensor* tensors, int64_t count, int threads) {
  return Guarded([&] {
    dragon_optim::Accumulate(CheckedDType(grad_dtype), reinterpret_cast<const dragon_optim::AccumulateTensor*>(tensors),
                             count, threads);
  });
}

int dragon_optim_squared_norm(int grad_dtype, const void* grad, int64_t size, double scale, int threads,
                              double* result) {
  return Guarded([&] { *result = dragon_optim::SquaredNorm(CheckedDType(grad_dtype), grad, size, scale, threads); });
}

int dragon_optim_has_non_finite(int grad_dtype, const dragon_optim_gradient* gradients, int64_t count, int threads,
                                int32_t* found) {
  return Guarded([&] {
    *found = dragon_optim::HasNonFinite(CheckedDType(grad_dtype),
                                        reinterpret_cast<const dragon_optim::Gradient*>(gradients), count, threads);
  });
}

int dragon_optim_norm_terms(int grad_dtype, double order, const dragon_optim_gradient* gradients, int64_t count,
                            int threads, double* terms) {
  return Guarded([&] {
    dragon_optim::NormTerms(CheckedDType(grad_dtype), order, reinterpret_cast<const dragon_optim::Gradient*>(gradients),
                            count, threads, terms);
  });
}

int dragon_optim_norm_of_terms(double order, const double* terms, int64_t count, double* norm) {
  return Guarded([&] { *norm = dragon_optim::NormOfTerms(order, terms, count); });
}

int dragon_optim_scale(int grad_dtype, const dragon_optim_clip_tensor* tensors, int64_t count, double factor,
                       int threads) {
  return Guarded([&] {
    dragon_optim::Scale(CheckedDType(grad_dtype), reinterpret_cast<const dragon_optim::ClipTensor*>(tensors), count,
                        factor, threads);
  });
}

int dragon_optim_clamp(int grad_dtype, const dragon_optim_clip_tensor* tensors, int64_t count, double limit,
                       int threads) {
  return Guarded([&] {
    dragon_optim::Clamp(CheckedDType(grad_dtype), reinterpret_cast<const dragon_optim::ClipTensor*>(tensors), count,
                        limit, threads);
  });
}

int dragon_optim_fill(int dtype, void* data, int64_t size, double value) {
  return Guarded([&] { dragon_optim::Fill(CheckedDType(dtype), data, size, value); });
}

int dragon_optim_half_to_float(const void* source, void* destination, int64_t size) {
  return Guarded([&] { dragon_optim::HalfToFloat(source, destination, size); });
}

int dragon_optim_float_to_half(const void* source, void* destination, int64_t size) {
  return Guarded([&] { dragon_optim::FloatToHalf(source, destination, size); });
}

const char* dragon_optim_isa(void) {
  const char* name = nullptr;
  Guarded([&] { name = dragon_optim::ActiveKernels().name; });
  return name;
}

int dragon_optim_set_isa(const char* name) {
  return Guarded([&] { dragon_optim::SetIsa(name == nullptr ? "" : name); });
}

const char* dragon_optim_compiled_isas(void) {
  static const std::string names = dragon_optim::CompiledIsas();
  return names.c_str();
}

const char* dragon_optim_supported_isas(void) {
  static const std::string names = dragon_optim::SupportedIsas();
  return names.c_str();
}

const char* dragon_optim_last_error(void) { return dragon_optim::LastError().c_str(); }
