//! The heartbeat of a data worker: proof that its runtime still turns, and by how much it lags.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::WorkerMetrics;

/// Between two heartbeats.
const PERIOD: Duration = Duration::from_secs(1);

/// Beats once a second on the runtime it is polled by, until `stop` is over. The lag is how much later than
/// asked the timer fired: the time that other work kept the thread.
pub async fn pulse(worker: Arc<WorkerMetrics>, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    worker.beat(Duration::ZERO);
    loop {
        let due = Instant::now() + PERIOD;
        tokio::select! {
            () = stop.as_mut() => return,
            () = tokio::time::sleep_until(due) => worker.beat(Instant::now().saturating_duration_since(due)),
        }
    }
}
