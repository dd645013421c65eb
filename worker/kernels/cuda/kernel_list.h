// All kernels, so that a launch is a number and its arguments: the device side and the emulator instantiate the same
// lists.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_KERNEL_LIST_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_KERNEL_LIST_H_

#include <string>
#include <string_view>
#include <type_traits>

#include "worker/kernels/cuda/attend_body.h"
#include "worker/kernels/cuda/best_logits_body.h"
#include "worker/kernels/cuda/mat_tile_body.h"
#include "worker/kernels/cuda/mat_vec_body.h"
#include "worker/kernels/cuda/merge_rows_body.h"
#include "worker/kernels/cuda/move_rows_body.h"
#include "worker/kernels/cuda/pack_rows_body.h"
#include "worker/kernels/cuda/prefill_body.h"
#include "worker/kernels/cuda/recall_body.h"
#include "worker/kernels/cuda/rotate_store_body.h"
#include "worker/kernels/cuda/rows_body.h"
#include "worker/kernels/cuda/score_rows_body.h"

namespace tidepool::cuda {

template <class... Kernels>
struct KernelList {
  static constexpr int kCount = sizeof...(Kernels);
};

template <class A, class B>
struct JoinedLists;
template <class... A, class... B>
struct JoinedLists<KernelList<A...>, KernelList<B...>> {
  using Type = KernelList<A..., B...>;
};
template <class A, class B>
using Join = typename JoinedLists<A, B>::Type;

template <class Kernel, class List>
struct IndexIn;
template <class Kernel, class... Rest>
struct IndexIn<Kernel, KernelList<Kernel, Rest...>> : std::integral_constant<int, 0> {};
template <class Kernel, class First, class... Rest>
struct IndexIn<Kernel, KernelList<First, Rest...>>
    : std::integral_constant<int, 1 + IndexIn<Kernel, KernelList<Rest...>>::value> {};

using RowKernels =
    KernelList<Embed, Dequantize, PrepareRows, AddBias, RotateAndStore, MergeSplits, MarkBirths, MoveRows,
               UpdateEntries, BestLogits, ScanCodes, SumShares, FindBestRows, PackGroups, CopyPages, MovePackedRows,
               MeasureKeys, MixRows, AlikeRows<2>, AlikeRows<4>, AlikeRows<8>, AlikeRows<16>, AlikeRows<32>,
               ScoreRows<2>, ScoreRows<4>, ScoreRows<8>, ScoreRows<16>, ScoreRows<32>>;
using PrefillKernels =
    KernelList<FlashPrefill<2>, FlashPrefill<4>, FlashPrefill<8>, FlashPrefill<16>, FlashPrefill<32>, FlashPacked<2>,
               FlashPacked<4>, FlashPacked<8>, FlashPacked<16>, FlashPacked<32>, FlashColumnSums<2>, FlashColumnSums<4>,
               FlashColumnSums<8>, FlashColumnSums<16>, FlashColumnSums<32>>;

template <int kLanes>
using AttendOf =
    KernelList<AttendSplit<kLanes, 1>, AttendSplit<kLanes, 2>, AttendSplit<kLanes, 4>, AttendSplit<kLanes, 8>>;
using AttendKernels = Join<Join<Join<AttendOf<2>, AttendOf<4>>, Join<AttendOf<8>, AttendOf<16>>>, AttendOf<32>>;
template <int kLanes>
using AttendPackedOf =
    KernelList<AttendPacked<kLanes, 1>, AttendPacked<kLanes, 2>, AttendPacked<kLanes, 4>, AttendPacked<kLanes, 8>>;
using AttendPackedKernels =
    Join<Join<Join<AttendPackedOf<2>, AttendPackedOf<4>>, Join<AttendPackedOf<8>, AttendPackedOf<16>>>,
         AttendPackedOf<32>>;

template <MatrixFormat kFormat>
using FloatMatVecOf = KernelList<MatVec<kFormat, 1, 32>, MatVec<kFormat, 4, 32>, MatVec<kFormat, 8, 32>,
                                 MatVec<kFormat, 1, 128>, MatVec<kFormat, 4, 128>, MatVec<kFormat, 8, 128>>;
using FloatMatVecKernels = Join<Join<FloatMatVecOf<MatrixFormat::kF32>, FloatMatVecOf<MatrixFormat::kF16>>,
                                FloatMatVecOf<MatrixFormat::kBF16>>;
template <MatrixFormat kFormat>
using MatVecOf = KernelList<MatVec<kFormat, 1, 32>, MatVec<kFormat, 1, 128>, MatTile<kFormat, 1>, MatTile<kFormat, 2>,
                            MatTile<kFormat, 4>, MatTile<kFormat, 8>>;
using NibbleMatVecKernels = Join<Join<MatVecOf<MatrixFormat::kNibbles>, MatVecOf<MatrixFormat::kNibblesMinimum>>,
                                 MatVecOf<MatrixFormat::kNibblesK>>;
using ByteMatVecKernels = Join<Join<MatVecOf<MatrixFormat::kBytes>, MatVecOf<MatrixFormat::kBytesMinimum>>,
                               Join<MatVecOf<MatrixFormat::kBytesK>, MatVecOf<MatrixFormat::kBytesK16>>>;

using AllKernels =
    Join<Join<Join<Join<Join<RowKernels, AttendKernels>, AttendPackedKernels>, PrefillKernels>, FloatMatVecKernels>,
         Join<NibbleMatVecKernels, ByteMatVecKernels>>;

template <class Kernel>
inline constexpr int kKernelId = IndexIn<Kernel, AllKernels>::value;

// As the compiler writes its type, template arguments and all.
template <class Kernel>
std::string_view NameOf() {
  const std::string_view whole = __PRETTY_FUNCTION__;
  const size_t at = whole.find("Kernel = ") + 9;
  return whole.substr(at, whole.find_first_of(";]", at) - at);
}
template <class... Kernels>
std::string_view NameIn(KernelList<Kernels...>, int kernel) {
  static const std::string_view kNames[] = {NameOf<Kernels>()...};
  return kNames[kernel];
}
// Such as MatVec<MatrixFormat::kNibblesK, 1, 128>.
inline std::string KernelName(int kernel) {
  std::string name(NameIn(AllKernels(), kernel));
  for (const std::string_view space : {"tidepool::", "cuda::"}) {
    for (size_t at = name.find(space); at != std::string::npos; at = name.find(space)) name.erase(at, space.size());
  }
  return name;
}

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_KERNEL_LIST_H_
