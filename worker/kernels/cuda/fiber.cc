#include "worker/kernels/cuda/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define TIDEPOOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TIDEPOOL_ASAN 1
#endif
#endif
#ifdef TIDEPOOL_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace tidepool::cuda {
namespace {

constexpr size_t kStackBytes = size_t{64} << 10;

size_t GuardBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// A page below the stack that may not be touched.
char* MapStack() {
  void* base = mmap(nullptr, kStackBytes + GuardBytes(), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  TIDEPOOL_CHECK(base != MAP_FAILED);
  TIDEPOOL_CHECK(mprotect(base, GuardBytes(), PROT_NONE) == 0);
  return static_cast<char*>(base) + GuardBytes();
}

void Enter(Fiber* fiber) {
  fiber->Main();
  TIDEPOOL_CHECK(false);
}

#if defined(__x86_64__)

// Saves what a called function must keep, and goes on where `to` was saved. Some 3 ns, where swapcontext makes a
// system call.
extern "C" void TidepoolSwitchStack(void** from, void* to);
asm(R"(
.text
.p2align 4
.globl TidepoolSwitchStack
.type TidepoolSwitchStack, @function
TidepoolSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size TidepoolSwitchStack, .-TidepoolSwitchStack
.globl TidepoolEnterFiber
.type TidepoolEnterFiber, @function
TidepoolEnterFiber:
  movq %r12, %rdi
  callq *%r13
  ud2
.size TidepoolEnterFiber, .-TidepoolEnterFiber
)");
extern "C" void TidepoolEnterFiber();

void SwitchStack(void** from, void** to) { TidepoolSwitchStack(from, *to); }

void* PrepareStack(char* stack, Fiber* fiber) {
  auto* top = reinterpret_cast<void**>(stack + kStackBytes - 72);  // 16-byte aligned above it, where Enter is called
  *top = reinterpret_cast<void*>(TidepoolEnterFiber);
  top[-1] = nullptr;                         // rbp
  top[-2] = nullptr;                         // rbx
  top[-3] = fiber;                           // r12
  top[-4] = reinterpret_cast<void*>(Enter);  // r13
  top[-5] = nullptr;
  top[-6] = nullptr;
  return top - 6;
}
void FreeContexts(void*, void*) {}

#else

void SwitchStack(void** from, void** to) {
  if (*from == nullptr) *from = new ucontext_t;
  TIDEPOOL_CHECK(swapcontext(static_cast<ucontext_t*>(*from), static_cast<ucontext_t*>(*to)) == 0);
}

void EnterParts(uint32_t high, uint32_t low) {
  Enter(reinterpret_cast<Fiber*>(static_cast<uintptr_t>(uint64_t{high} << 32 | low)));
}

void* PrepareStack(char* stack, Fiber* fiber) {
  auto* context = new ucontext_t;
  TIDEPOOL_CHECK(getcontext(context) == 0);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = kStackBytes;
  context->uc_link = nullptr;
  const auto address = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(fiber));
  makecontext(context, reinterpret_cast<void (*)()>(EnterParts), 2, static_cast<uint32_t>(address >> 32),
              static_cast<uint32_t>(address));
  return context;
}
void FreeContexts(void* a, void* b) {
  delete static_cast<ucontext_t*>(a);
  delete static_cast<ucontext_t*>(b);
}

#endif

}  // namespace

Fiber::Fiber() : stack_(MapStack()) {}

Fiber::~Fiber() {
  FreeContexts(fiber_context_, caller_context_);
  munmap(stack_ - GuardBytes(), kStackBytes + GuardBytes());
}

void Fiber::Start(void (*body)(void*), void* argument) {
  TIDEPOOL_CHECK(done_);
  body_ = body;
  argument_ = argument;
  done_ = false;
  FreeContexts(fiber_context_, nullptr);
  fiber_context_ = PrepareStack(stack_, this);
  fake_stack_ = nullptr;
}

void Fiber::Main() {
#ifdef TIDEPOOL_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &caller_stack_, &caller_stack_size_);
#endif
  body_(argument_);
  done_ = true;
#ifdef TIDEPOOL_ASAN
  __sanitizer_start_switch_fiber(nullptr, caller_stack_, caller_stack_size_);
#endif
  SwitchStack(&fiber_context_, &caller_context_);
}

void Fiber::Resume() {
#ifdef TIDEPOOL_ASAN
  void* mine = nullptr;
  __sanitizer_start_switch_fiber(&mine, stack_, kStackBytes);
#endif
  SwitchStack(&caller_context_, &fiber_context_);
#ifdef TIDEPOOL_ASAN
  __sanitizer_finish_switch_fiber(mine, nullptr, nullptr);
#endif
}

void Fiber::Yield() {
#ifdef TIDEPOOL_ASAN
  __sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_stack_size_);
#endif
  SwitchStack(&fiber_context_, &caller_context_);
#ifdef TIDEPOOL_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_size_);
#endif
}

}  // namespace tidepool::cuda
