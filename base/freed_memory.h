// What a process does with memory that it has freed.
#ifndef TIDEPOOL_BASE_FREED_MEMORY_H_
#define TIDEPOOL_BASE_FREED_MEMORY_H_

namespace tidepool {

// Keeps up to some 256 MiB of freed memory for what comes next, where glibc would give most of it back to the kernel at
// once: values and network buffers of some 100 KiB to 8 MiB come and go all the time, and the kernel's first touch of a
// page costs more than all that is done with its bytes (docs/performance-cache.md). For a main, before it has threads.
void KeepFreedMemory();

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_FREED_MEMORY_H_
