//! How a request reaches the router.

use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use tower::ServiceExt as _;

use super::CallError;

/// The router itself, or the socket where a process serves it.
#[derive(Clone)]
pub(super) enum Transport {
    Here(Router),
    #[cfg(unix)]
    Socket(PathBuf),
}

impl Transport {
    /// The socket in a data folder, if somebody answers there.
    #[cfg(unix)]
    pub(super) async fn connect(folder: &Path) -> Option<Self> {
        crate::api::serve::call(folder).await.ok()?;
        Some(Self::Socket(folder.into()))
    }

    #[cfg(not(unix))]
    pub(super) async fn connect(_: &Path) -> Option<Self> {
        None
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response, CallError> {
        match self {
            Self::Here(router) => match router.clone().oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            },
            #[cfg(unix)]
            Self::Socket(folder) => over_socket(folder, request).await,
        }
    }
}

/// One connection for each request: they cost little here.
#[cfg(unix)]
async fn over_socket(folder: &Path, request: Request<Body>) -> Result<Response, CallError> {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;

    let stream = crate::api::serve::call(folder).await;
    let stream = stream.map_err(|error| CallError::Lost(error.to_string()))?;
    let lost = |error: hyper::Error| CallError::Lost(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // it ends when the answer was read or is dropped
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(lost)?;
    Ok(response.map(Body::new))
}
