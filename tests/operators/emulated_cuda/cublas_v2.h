// SPDX-License-Identifier: BSD-2-Clause

#ifndef EMULATED_CUBLAS_H_
#define EMULATED_CUBLAS_H_

#include <cuda_runtime.h>

using cublasHandle_t = void*;
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS };
enum cublasPointerMode_t { CUBLAS_POINTER_MODE_HOST };
enum cublasMath_t { CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH };

cublasStatus_t cublasCreate(cublasHandle_t* handle);
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);

#endif  // EMULATED_CUBLAS_H_
