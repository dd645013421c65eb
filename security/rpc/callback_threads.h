// gRPC's threads of callbacks, for as long as the process lives.
#ifndef TIDEPOOL_SECURITY_RPC_CALLBACK_THREADS_H_
#define TIDEPOOL_SECURITY_RPC_CALLBACK_THREADS_H_

namespace tidepool {

// gRPC 1.51 ends these threads with the last channel that has used them. Calls hold their channel until they are gone,
// which may be in such a thread: it would wait for itself, and the process aborts (grpc/grpc#32584). From the first
// call of this on there is always one more channel.
void KeepCallbackThreads();

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RPC_CALLBACK_THREADS_H_
