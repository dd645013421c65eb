#include "policies/recall/product_code.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr int kTrainingRows = 1024;
// Rounds of k-means: few centroids are cheap and settle late.
int Rounds(const ProductShape& shape) { return shape.bits <= 4 ? 12 : 5; }

// Deals channels to groups, largest weighted variance first, each to the group whose variances have the smallest
// product so far and that still has room: what a code of fixed length loses is then alike in all groups.
std::vector<uint8_t> DealChannels(const ProductShape& shape, absl::Span<const double> variance) {
  std::vector<int> order(shape.head_dim);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return variance[a] > variance[b]; });
  double least = std::numeric_limits<double>::infinity();
  for (double v : variance) least = std::min(least, v);
  std::vector<std::vector<uint8_t>> groups(shape.groups);
  std::vector<double> filled(shape.groups, 0.0);
  for (int channel : order) {
    int to = -1;
    for (int g = 0; g < shape.groups; ++g) {
      if (static_cast<int>(groups[g].size()) == shape.width()) continue;
      if (to < 0 || filled[g] < filled[to]) to = g;
    }
    groups[to].push_back(static_cast<uint8_t>(channel));
    filled[to] += std::log(variance[channel] / least + 1);
  }
  std::vector<uint8_t> channels;
  for (const std::vector<uint8_t>& group : groups) channels.insert(channels.end(), group.begin(), group.end());
  return channels;
}

// Four lanes, which every machine has; the compiler does not find them in what follows by itself.
constexpr int kLanes = 4;
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Ints = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

Floats LoadLanes(const float* from) {
  Floats lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

Floats SwapPairs(Floats x) { return __builtin_shufflevector(x, x, 1, 0, 3, 2); }
Floats SwapHalves(Floats x) { return __builtin_shufflevector(x, x, 2, 3, 0, 1); }

// The nearest of kCount centroids [width][kCount], half the squared distance less what is the same for all: ties to the
// lower one.
template <int kCount>
int NearestOf(const float* centroids, const float* half_norms, int width, const float* point) {
  constexpr int kVectors = kCount / kLanes;
  Floats distance[kVectors];
  for (int v = 0; v < kVectors; ++v) distance[v] = LoadLanes(half_norms + v * kLanes);
  for (int i = 0; i < width; ++i) {
    for (int v = 0; v < kVectors; ++v) distance[v] -= point[i] * LoadLanes(centroids + i * kCount + v * kLanes);
  }
  // Without a branch for each, which would be guessed wrong every other time.
  Floats low = distance[0];
  Ints nearest = {0, 1, 2, 3};
  for (int v = 1; v < kVectors; ++v) {
    const Ints nearer = distance[v] < low;
    low = nearer ? distance[v] : low;
    nearest = nearer ? Ints{0, 1, 2, 3} + v * kLanes : nearest;
  }
  // The least of the lanes, and of the lanes that have it the lowest centroid.
  const Floats low_of_two = low < SwapPairs(low) ? low : SwapPairs(low);
  const Floats least = low_of_two < SwapHalves(low_of_two) ? low_of_two : SwapHalves(low_of_two);
  const Ints none = {kCount, kCount, kCount, kCount};
  const Ints has_least = low == least;
  nearest = has_least ? nearest : none;
  const int first = std::min(nearest[0], nearest[1]), second = std::min(nearest[2], nearest[3]);
  return std::min(first, second) % kCount;  // of no numbers: the first
}

// Of 16 or 256.
int Nearest(const float* centroids, const float* half_norms, int count, int width, const float* point) {
  return count == 16 ? NearestOf<16>(centroids, half_norms, width, point)
                     : NearestOf<256>(centroids, half_norms, width, point);
}

std::vector<float> HalfNorms(const std::vector<float>& centroids, int count, int width) {
  std::vector<float> norms(count, 0.0f);
  for (int i = 0; i < width; ++i) {
    for (int c = 0; c < count; ++c) {
      const float x = centroids[static_cast<size_t>(i) * count + c];
      norms[c] += 0.5f * x * x;
    }
  }
  return norms;
}

// points: [rows][width]. Returns [width][count].
std::vector<float> KMeans(const std::vector<float>& points, int rows, int width, int count, int rounds) {
  std::vector<float> centroids(static_cast<size_t>(width) * count);
  for (int c = 0; c < count; ++c) {
    const int64_t row = int64_t{c} * rows / count;
    for (int i = 0; i < width; ++i) centroids[static_cast<size_t>(i) * count + c] = points[row * width + i];
  }
  std::vector<double> sum(centroids.size());  // [count][width]
  std::vector<int> members(count);
  for (int round = 0; round < rounds; ++round) {
    const std::vector<float> norms = HalfNorms(centroids, count, width);
    std::fill(sum.begin(), sum.end(), 0.0);
    std::fill(members.begin(), members.end(), 0);
    for (int row = 0; row < rows; ++row) {
      const float* point = points.data() + static_cast<size_t>(row) * width;
      const int c = Nearest(centroids.data(), norms.data(), count, width, point);
      ++members[c];
      for (int i = 0; i < width; ++i) sum[static_cast<size_t>(c) * width + i] += point[i];
    }
    for (int c = 0; c < count; ++c) {
      if (members[c] == 0) continue;  // stays where it was
      for (int i = 0; i < width; ++i) {
        centroids[static_cast<size_t>(i) * count + c] =
            static_cast<float>(sum[static_cast<size_t>(c) * width + i] / members[c]);
      }
    }
  }
  return centroids;
}

// A channel that no query looks at may be coded by any centroid, but must not divide by zero.
std::vector<float> UsableWeights(absl::Span<const float> weight) {
  double square = 0;
  for (float w : weight) square += double{w} * w;
  const float floor = static_cast<float>(1e-3 * std::sqrt(square / static_cast<double>(weight.size())));
  std::vector<float> usable;
  for (float w : weight) usable.push_back(floor > 0 ? std::max(w, floor) : 1.0f);
  return usable;
}

}  // namespace

ProductTables TrainProductTables(const ProductShape& shape, absl::Span<const float> keys,
                                 absl::Span<const float> weight) {
  const int head_dim = shape.head_dim, width = shape.width(), count = shape.centroids();
  TIDEPOOL_CHECK(shape.groups * width == head_dim && (shape.bits == 4 || shape.bits == 8) && head_dim <= 256);
  TIDEPOOL_CHECK(static_cast<int>(weight.size()) == head_dim && !keys.empty() && keys.size() % head_dim == 0);
  const int64_t all = static_cast<int64_t>(keys.size()) / head_dim;
  const int rows = static_cast<int>(std::min<int64_t>(all, kTrainingRows));
  auto key = [&](int row) { return keys.data() + (row * all / rows) * head_dim; };
  ProductTables tables;
  tables.weight = UsableWeights(weight);
  const std::vector<float>& usable = tables.weight;

  std::vector<double> variance(head_dim);
  for (int c = 0; c < head_dim; ++c) {
    double sum = 0, squares = 0;
    for (int row = 0; row < rows; ++row) {
      const double x = double{key(row)[c]} * usable[c];
      sum += x;
      squares += x * x;
    }
    variance[c] = std::max(squares / rows - sum / rows * (sum / rows), 0.0) + 1e-12;
  }

  tables.channel = DealChannels(shape, variance);
  tables.centroid.resize(static_cast<size_t>(head_dim) * count);
  tables.offset.resize(head_dim);
  tables.scale.resize(head_dim);
  std::vector<float> points(static_cast<size_t>(rows) * width);
  for (int g = 0; g < shape.groups; ++g) {
    const uint8_t* channel = tables.channel.data() + static_cast<size_t>(g) * width;
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < width; ++i) points[row * width + i] = key(row)[channel[i]] * usable[channel[i]];
    }
    const std::vector<float> centroids = KMeans(points, rows, width, count, Rounds(shape));
    for (int i = 0; i < width; ++i) {
      const int place = g * width + i;
      const float* values = centroids.data() + static_cast<size_t>(i) * count;
      const auto [low, high] = std::minmax_element(values, values + count);
      tables.offset[place] = *low / usable[channel[i]];
      tables.scale[place] = (*high - *low) / 255.0f / usable[channel[i]];
      for (int c = 0; c < count; ++c) {
        const float level = *high > *low ? (values[c] - *low) / (*high - *low) * 255.0f : 0.0f;
        tables.centroid[static_cast<size_t>(place) * count + c] = static_cast<uint8_t>(std::lround(level));
      }
    }
  }
  return tables;
}

void EncodeProduct(const ProductShape& shape, const ProductTables& tables, const float* keys, int rows,
                   uint8_t* codes) {
  TIDEPOOL_CHECK(rows % kProductTileRows == 0);
  const int width = shape.width(), count = shape.centroids();
  const size_t group_bytes = static_cast<size_t>(kProductTileRows) * shape.bits / 8;
  const size_t tile_bytes = group_bytes * shape.groups;
  std::fill_n(codes, shape.CodeBytes(rows), uint8_t{0});
  std::vector<float> centroids(static_cast<size_t>(width) * count), point(width);
  for (int g = 0; g < shape.groups; ++g) {
    for (int i = 0; i < width; ++i) {
      const int place = g * width + i;
      const float w = tables.weight[tables.channel[place]];
      for (int c = 0; c < count; ++c) {
        const float level = tables.centroid[static_cast<size_t>(place) * count + c];
        centroids[static_cast<size_t>(i) * count + c] = w * (tables.offset[place] + tables.scale[place] * level);
      }
    }
    const std::vector<float> norms = HalfNorms(centroids, count, width);
    for (int row = 0; row < rows; ++row) {
      const float* key = keys + static_cast<size_t>(row) * shape.head_dim;
      for (int i = 0; i < width; ++i) {
        const int channel = tables.channel[g * width + i];
        point[i] = key[channel] * tables.weight[channel];
      }
      const int code = Nearest(centroids.data(), norms.data(), count, width, point.data());
      uint8_t* group = codes + row / kProductTileRows * tile_bytes + g * group_bytes;
      const int lane = row % kProductTileRows;
      if (shape.bits == 8) {
        group[lane] = static_cast<uint8_t>(code);
      } else {
        group[lane % 8] |= static_cast<uint8_t>(lane < 8 ? code : code << 4);
      }
    }
  }
}

void ProductScoreTable(const ProductShape& shape, const ProductTables& tables, const float* query, float* table) {
  const int width = shape.width(), count = shape.centroids();
  for (int g = 0; g < shape.groups; ++g) {
    float* out = table + static_cast<size_t>(g) * count;
    float constant = 0;
    for (int i = 0; i < width; ++i) {
      const int place = g * width + i;
      constant += query[tables.channel[place]] * tables.offset[place];
    }
    std::fill_n(out, count, constant);
    for (int i = 0; i < width; ++i) {
      const int place = g * width + i;
      const float q = query[tables.channel[place]] * tables.scale[place];
      const uint8_t* level = tables.centroid.data() + static_cast<size_t>(place) * count;
      for (int c = 0; c < count; ++c) out[c] += q * static_cast<float>(level[c]);
    }
  }
}

namespace {

int CodeOf(const ProductShape& shape, const uint8_t* codes, int row, int group) {
  const size_t group_bytes = static_cast<size_t>(kProductTileRows) * shape.bits / 8;
  const uint8_t* at = codes + (static_cast<size_t>(row / kProductTileRows) * shape.groups + group) * group_bytes;
  const int lane = row % kProductTileRows;
  return shape.bits == 8 ? at[lane] : at[lane % 8] >> (lane < 8 ? 0 : 4) & 15;
}

}  // namespace

float EstimateProduct(const ProductShape& shape, const float* table, const uint8_t* codes, int row) {
  float sum = 0;
  for (int g = 0; g < shape.groups; ++g) {
    sum += table[static_cast<size_t>(g) * shape.centroids() + CodeOf(shape, codes, row, g)];
  }
  return sum;
}

void RoundScoreTable(const ProductShape& shape, const float* table, RoundedScoreTable& rounded) {
  TIDEPOOL_CHECK(shape.bits == 4);
  constexpr int kEntries = 16, kMost = 127, kLanes = 4;
  std::vector<float> lows(shape.groups);
  float widest = 0;
  rounded.offset = 0;
  for (int g = 0; g < shape.groups; ++g) {
    const float* entries = table + g * kEntries;
    float low[kLanes], high[kLanes];  // lanes: for the compiler
    std::copy_n(entries, kLanes, low);
    std::copy_n(entries, kLanes, high);
    for (int c = kLanes; c < kEntries; c += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        low[lane] = entries[c + lane] < low[lane] ? entries[c + lane] : low[lane];
        high[lane] = entries[c + lane] > high[lane] ? entries[c + lane] : high[lane];
      }
    }
    lows[g] = std::min(std::min(low[0], low[1]), std::min(low[2], low[3]));
    const float most = std::max(std::max(high[0], high[1]), std::max(high[2], high[3]));
    rounded.offset += lows[g];
    widest = std::max(widest, most - lows[g]);
  }
  float sum = 0;  // not a number when any entry is not
  for (int i = 0; i < shape.groups * kEntries; ++i) sum += table[i] * 0;
  rounded.step = widest / kMost;
  rounded.entry.assign(static_cast<size_t>(shape.groups) * kEntries, 0);
  if (!(rounded.step > 0) || !std::isfinite(rounded.step) || std::isnan(sum)) {
    rounded.step = 0;
    return;
  }
  const float inverse = 1 / rounded.step;
  for (int g = 0; g < shape.groups; ++g) {
    for (int c = 0; c < kEntries; ++c) {
      const float level = (table[g * kEntries + c] - lows[g]) * inverse + 0.5f;
      rounded.entry[g * kEntries + c] = static_cast<uint8_t>(static_cast<int>(level < kMost ? level : kMost));
    }
  }
}

float EstimateProduct(const ProductShape& shape, const RoundedScoreTable& table, const uint8_t* codes, int row) {
  int sum = 0;
  for (int g = 0; g < shape.groups; ++g) sum += table.entry[g * 16 + CodeOf(shape, codes, row, g)];
  const float steps = table.step * static_cast<float>(sum);
  return table.offset + steps;
}

}  // namespace tidepool
