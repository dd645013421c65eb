// The running threshold that says when a row is worth recalling, one for each (layer, kv head): recall.md section 6,
// after D2O's exponential average and ECHO's prediction of the k-th best score.
#ifndef TIDEPOOL_POLICIES_RECALL_EMA_THRESHOLD_H_
#define TIDEPOOL_POLICIES_RECALL_EMA_THRESHOLD_H_

namespace tidepool {

struct EmaThreshold {
  bool started = false;
  float theta = 0;

  // `kth`: this step's k-th largest weight, k the number of recall slots. The first one starts the average:
  // theta_0 = kth_0, theta_{t+1} = beta * theta_t + (1 - beta) * kth_t.
  void Update(float kth, float beta) {
    theta = started ? beta * theta + (1 - beta) * kth : kth;
    started = true;
  }
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RECALL_EMA_THRESHOLD_H_
