// SPDX-License-Identifier: BSD-2-Clause
//
// Dragon includes it. There is nothing in it that is not in cuda_runtime.h here.
