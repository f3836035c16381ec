// SPDX-License-Identifier: BSD-2-Clause
//
// Norms of a list of gradients, in the summation order that gradient.h promises.

#ifndef DRAGON_OPTIM_KERNELS_CPU_NORM_H_
#define DRAGON_OPTIM_KERNELS_CPU_NORM_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/work_list.h"
#include "kernels/dtype.h"
#include "kernels/gradient.h"

namespace dragon_optim {

// The squared norm of each round(scale * gradient). The result lives until the same thread's next call.
const std::vector<double>& SquaredNorms(DType grad_dtype, double scale, const std::vector<Gradient>& gradients,
                                        int threads);

// Lives from call to call, so that a step that was made once allocates nothing.
struct NormScratch {
  std::vector<WorkPosition> starts;
  std::vector<int64_t> first_block;  // of each gradient, in block_terms
  std::vector<double> block_terms;
};

// terms[i] = combine(combine(first, block_term(block 0 of gradient i)), block_term(block 1)) ..., in index order.
// block_term(data, size) is called in parallel.
template <typename BlockTerm, typename Combine>
void BlockTerms(DType grad_dtype, const Gradient* gradients, int64_t count, int threads, const BlockTerm& block_term,
                double first, const Combine& combine, double* terms) {
  thread_local NormScratch scratch;
  scratch.first_block.assign(1, 0);
  for (int64_t i = 0; i < count; ++i) {
    scratch.first_block.push_back(scratch.first_block.back() + (gradients[i].size + kNormBlock - 1) / kNormBlock);
  }
  scratch.block_terms.resize(scratch.first_block.back());
  const int64_t item_size = ItemSize(grad_dtype);
  const int64_t* first_block = scratch.first_block.data();
  double* block_terms = scratch.block_terms.data();
  // A part holds whole blocks, so that no block is added up in two pieces.
  const WorkList<Gradient> work(gradients, count, kNormBlock, threads, scratch.starts);
  work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block += kNormBlock) {
      const int64_t size = end - block < kNormBlock ? end - block : kNormBlock;
      const void* grad = static_cast<const char*>(gradients[i].grad) + block * item_size;
      block_terms[first_block[i] + block / kNormBlock] = block_term(grad, size);
    }
  });
  for (int64_t i = 0; i < count; ++i) {
    terms[i] = first;
    for (int64_t block = first_block[i]; block < first_block[i + 1]; ++block) {
      terms[i] = combine(terms[i], block_terms[block]);
    }
  }
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_NORM_H_
