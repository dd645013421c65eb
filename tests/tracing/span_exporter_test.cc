// What the exporter does when the collector does not take its spans. tests/e2e/tracing_test.py has one that does.
#include "tracing/span_exporter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace tidepool {
namespace {

const OtlpEndpoint kNobody{"127.0.0.1", "1", "/v1/traces"};

TEST(SpanExporterTest, WhatTheQueueHasNoRoomForIsDroppedAndCounted) {
  Mutex mutex;
  CondVar changed;
  bool held = true, reached = false;
  std::atomic<int> made = 0;
  SpanExporter exporter(kNobody, {});  // ends before what its thread uses
  exporter.Export([&] {
    MutexLock lock(&mutex);
    reached = true;
    changed.SignalAll();
    while (held) changed.Wait(&mutex);
    return std::vector<Span>(1);
  });
  {
    MutexLock lock(&mutex);
    while (!reached) changed.Wait(&mutex);
  }
  for (size_t i = 0; i < kMaxQueuedTraces + 3; ++i) {
    exporter.Export([&made] {
      ++made;
      return std::vector<Span>(1);
    });
  }
  EXPECT_EQ(exporter.Stats().dropped, 3);
  EXPECT_EQ(made, 0) << "spans are made by the exporter's thread";
  MutexLock lock(&mutex);
  held = false;
  changed.SignalAll();
}

TEST(SpanExporterTest, WhatTheCollectorDoesNotTakeIsDroppedAndCountedAtLast) {
  SpanExporter exporter(kNobody, {});
  for (int i = 0; i < 5; ++i) {
    exporter.Export([] { return std::vector<Span>(1); });
  }
  while (exporter.Stats().dropped < 5) std::this_thread::yield();
  EXPECT_EQ(exporter.Stats().dropped, 5);
  EXPECT_EQ(exporter.Stats().exported, 0);
}

}  // namespace
}  // namespace tidepool
