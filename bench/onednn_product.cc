#include "bench/onednn_product.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

namespace tidepool {

using dnnl::memory;

struct OneDnnProduct::Impl {
  Impl(Type type, int64_t rows, int64_t columns, int64_t count, size_t bytes)
      : engine(dnnl::engine::kind::cpu, 0),
        stream(engine),
        description(Describe(type, rows, columns, count), engine),
        matmul(description),
        x(description.src_desc(), engine),
        out(description.dst_desc(), engine) {
    const bool floats = type == Type::kFloat;
    Fill(x, floats);
    const auto number = floats ? memory::data_type::f32 : memory::data_type::s8;
    memory plain({{columns, rows}, number, memory::format_tag::ba}, engine);
    Fill(plain, floats);
    const size_t copies = std::max<size_t>(1, bytes / plain.get_desc().get_size());
    for (size_t i = 0; i < copies; ++i) {
      weights.emplace_back(description.weights_desc(), engine);
      dnnl::reorder(plain, weights.back()).execute(stream, plain, weights.back());
    }
    stream.wait();
  }

  static dnnl::matmul::desc Describe(Type type, int64_t rows, int64_t columns, int64_t count) {
    const bool floats = type == Type::kFloat;
    const auto in = floats ? memory::data_type::f32 : memory::data_type::s8;
    const auto result = floats ? memory::data_type::f32 : memory::data_type::s32;
    return {memory::desc({count, columns}, in, memory::format_tag::ab),
            memory::desc({columns, rows}, in, memory::format_tag::any),
            memory::desc({count, rows}, result, memory::format_tag::ab)};
  }

  static void Fill(const memory& with_ones, bool floats) {
    const size_t size = with_ones.get_desc().get_size();
    if (floats) {
      std::fill_n(static_cast<float*>(with_ones.get_data_handle()), size / sizeof(float), 1.0f);
    } else {
      std::memset(with_ones.get_data_handle(), 1, size);
    }
  }

  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::matmul::primitive_desc description;
  dnnl::matmul matmul;
  memory x, out;
  std::vector<memory> weights;
  size_t next = 0;
};

OneDnnProduct::OneDnnProduct(Type type, int64_t rows, int64_t columns, int64_t count, size_t bytes)
    : impl_(std::make_unique<Impl>(type, rows, columns, count, bytes)) {}

OneDnnProduct::~OneDnnProduct() = default;

void OneDnnProduct::Run() {
  const memory& weights = impl_->weights[impl_->next];
  impl_->matmul.execute(impl_->stream,
                        {{DNNL_ARG_SRC, impl_->x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, impl_->out}});
  impl_->stream.wait();
  impl_->next = (impl_->next + 1) % impl_->weights.size();
}

const char* OneDnnProduct::implementation() const { return impl_->description.impl_info_str(); }

}  // namespace tidepool
