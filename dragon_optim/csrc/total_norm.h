// SPDX-License-Identifier: BSD-2-Clause
//
// The norm of gradients of several dtypes, on the device that they lie on: Begin, Add for each dtype, then Read and
// Write.

#ifndef DRAGON_OPTIM_CSRC_TOTAL_NORM_H_
#define DRAGON_OPTIM_CSRC_TOTAL_NORM_H_

#include <cstdint>
#include <vector>

#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/tensors.h"
#include "kernels/clip.h"

#ifdef USE_CUDA
#include "dragon_optim/csrc/cuda/total_norm.h"
#endif

namespace dragon_optim {

template <class Context>
class TotalNorm;

template <>
class TotalNorm<dragon::CPUContext> {
 public:
  explicit TotalNorm(Device<dragon::CPUContext>&) {}

  void Begin(double order, size_t count) {
    order_ = order;
    terms_.resize(count);
  }

  // `places` are those of the gradients among all: the order in which their terms are taken.
  void Add(DType dtype, const std::vector<Gradient>& gradients, const std::vector<int64_t>& places) {
    terms_of_dtype_.resize(gradients.size());
    NormTerms(dtype, order_, gradients.data(), static_cast<int64_t>(gradients.size()), NumThreads(),
              terms_of_dtype_.data());
    for (size_t i = 0; i < places.size(); ++i) terms_[static_cast<size_t>(places[i])] = terms_of_dtype_[i];
  }

  // The norm, rounded to float32 or float64.
  double Read(DType dtype) const {
    const double norm = NormOfTerms(order_, terms_.data(), static_cast<int64_t>(terms_.size()));
    return dtype == DType::kFloat64 ? norm : static_cast<float>(norm);
  }

  void Write(DType dtype, void* result) const {
    const double norm = Read(dtype);
    if (dtype == DType::kFloat64) {
      *static_cast<double*>(result) = norm;
    } else {
      *static_cast<float*>(result) = static_cast<float>(norm);
    }
  }

 private:
  double order_ = 2;
  std::vector<double> terms_, terms_of_dtype_;
};

#ifdef USE_CUDA
template <>
class TotalNorm<dragon::CUDAContext> : public CudaTotalNorm {
 public:
  using CudaTotalNorm::CudaTotalNorm;
};
#endif

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_TOTAL_NORM_H_
