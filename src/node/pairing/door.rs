//! Where nodes that come to pair are met.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Paired, PairingError, Tries, receive};
use crate::net::{CloseCode, Connection};
use crate::node::access::Access;
use crate::types::NodeId;

/// Strangers met at once; more are told that the node is busy.
const MAX_MET: usize = 8;
/// How long a joiner may take to close the connection once it was answered.
const FAREWELL: Duration = Duration::from_secs(2);

/// Meets those who come to pair: few at once, and each address a few times a minute.
#[derive(Debug)]
pub struct Door {
    tries: Mutex<Tries>,
    places: Semaphore,
}

impl Default for Door {
    fn default() -> Self {
        Self { tries: Mutex::default(), places: Semaphore::new(MAX_MET) }
    }
}

impl Door {
    /// Meets one, from [`Endpoint::accept_pairing`](crate::net::Endpoint::accept_pairing).
    ///
    /// # Errors
    /// As [`receive`]; [`PairingError::Busy`] if it came too often.
    pub async fn meet(
        &self,
        access: &Access,
        own: NodeId,
        connection: Connection,
    ) -> Result<Paired, PairingError> {
        let address = connection.remote_address().ip();
        let tries = || self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.places.try_acquire();
        if place.is_err() || !tries().take(address, Instant::now()) {
            connection.close(CloseCode::Busy, "");
            return Err(PairingError::Busy);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let met = receive(access, own, connection.clone(), now).await;
        if met.is_ok() {
            tries().give_back(address);
        }
        // closing first could take the answer away from a joiner that has not read it
        let _ = timeout(FAREWELL, connection.closed()).await;
        connection.close(CloseCode::Done, "");
        met
    }
}
