//! How long a peer is waited for that is to take the last words.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long last words may take to reach the peer.
const FAREWELL: Duration = Duration::from_secs(5);
/// The same once this end is to stop: a peer that is there has them within a round trip or two,
/// and one that is not must not hold up who presses Ctrl-C.
const HASTE: Duration = Duration::from_secs(1);

/// What came of work that waits for the peer alone, if the peer took its part in time.
pub(crate) async fn farewell<T>(
    mut stop: watch::Receiver<bool>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        done = timeout(FAREWELL, work) => done.ok(),
        () = hurried(&mut stop) => None,
    }
}

/// Waits until this end has been stopping for as long as a peer that is there needs.
pub(crate) async fn hurried(stop: &mut watch::Receiver<bool>) {
    stopped(stop).await;
    sleep(HASTE).await;
}

/// Waits until this end is to stop; for ever if nobody is left who could say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_stops_waits_less_and_who_does_not_stop_waits_all_the_same() {
        let stop = watch::Sender::new(false);
        let taken = farewell(stop.subscribe(), std::future::ready(7)).await;
        assert_eq!(taken, Some(7));
        stop.send_replace(true);
        let taken = farewell(stop.subscribe(), sleep(Duration::from_millis(20))).await;
        assert_eq!(taken, Some(()), "a peer that is there has its time");
        let silent = std::future::pending::<()>();
        assert_eq!(farewell(stop.subscribe(), silent).await, None);
        // nobody is left who could say that it is to stop
        let receiver = watch::Sender::new(false).subscribe();
        let slow = sleep(HASTE + Duration::from_millis(100));
        assert_eq!(farewell(receiver, slow).await, Some(()));
    }
}
