//! Sockets of Unix.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::ServeError;
use crate::api::error::ApiError;
use crate::api::host::{ApiLimits, Host};
use crate::api::router;
use crate::node::home::{CONTROL, CONTROL_NEW};

/// More than this many are not even told so.
const MAX_TURNED_AWAY: usize = 16;
/// How long who is turned away may take.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);
/// Pause after an accept that failed, as when there are no file descriptors left.
const RETRY: Duration = Duration::from_millis(100);
/// Longer paths do not fit the address of a socket everywhere.
const MAX_PATH_BYTES: usize = 90;

/// A path that is short enough for an address, as long as the value lives.
struct Short {
    path: PathBuf,
    // a long path is reached through it
    _folder: Option<File>,
}

impl Short {
    fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= MAX_PATH_BYTES || !cfg!(target_os = "linux") {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(folder)?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&folder);
        let path = PathBuf::from(format!("/proc/self/fd/{number}/{name}"));
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// A connection to the process that serves a data folder.
pub(in crate::api) async fn call(folder: &Path) -> io::Result<UnixStream> {
    let short = Short::of(folder, CONTROL)?;
    UnixStream::connect(&short.path).await
}

/// The control socket of a data folder, removed when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The socket's file, as long as it is this one.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = |about: fs::Metadata| (about.dev(), about.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(same) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl ControlSocket {
    /// Offers the socket in a data folder, whose store this process must have open.
    ///
    /// # Errors
    /// Somebody else answers there, or the file system failed.
    pub async fn bind(folder: &Path) -> Result<Self, ServeError> {
        let path = folder.join(CONTROL);
        match fs::symlink_metadata(&path) {
            Ok(about) if !about.file_type().is_socket() => return Err(ServeError::Occupied(path)),
            Ok(_) if call(folder).await.is_ok() => return Err(ServeError::Taken(path)),
            _ => {}
        }
        let failed = |source| ServeError::File { path: path.clone(), source };
        let (listener, file) = listen(folder, &path).map_err(failed)?;
        Ok(Self { listener, file: SocketFile { path, file } })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers requests until `stop` becomes true; requests that run then have a few seconds to
    /// end.
    pub async fn serve(self, host: Arc<Host>, mut stop: watch::Receiver<bool>) {
        let ApiLimits { max_connections, head_deadline, farewell, .. } = *host.limits();
        let places = Arc::new(Semaphore::new(max_connections));
        let (router, server) = (router(Arc::clone(&host)), server(head_deadline));
        let refusals = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
        let mut connections = JoinSet::new();
        let stopping = stop.clone();
        loop {
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let (server, router, stop) = (server.clone(), router.clone(), stopping.clone());
                connections.spawn(async move {
                    serve_connection(&server, stream, router, stop).await;
                    drop(place);
                });
            } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                let server = server.clone();
                connections.spawn(async move {
                    let _ = timeout(REFUSAL_DEADLINE, turn_away(server, stream)).await;
                    drop(place);
                });
            }
        }
        // nobody new finds it
        drop(self);
        host.close();
        let _ = timeout(farewell, async { while connections.join_next().await.is_some() {} }).await;
    }
}

/// A socket that nobody else could ever open: it is made in a folder of its own, and moved.
fn listen(folder: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let made_in = folder.join(CONTROL_NEW);
    match fs::remove_dir_all(&made_in) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&made_in)?;
    let bound = (|| {
        let listener = UnixListener::bind(&Short::of(&made_in, CONTROL)?.path)?;
        let new = made_in.join(CONTROL);
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        let about = fs::symlink_metadata(&new)?;
        fs::rename(&new, path)?;
        Ok((listener, (about.dev(), about.ino())))
    })();
    let _ = fs::remove_dir_all(&made_in);
    bound
}

fn server(head_deadline: Duration) -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(head_deadline);
    server
}

async fn serve_connection(
    server: &http1::Builder,
    stream: UnixStream,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn turn_away(mut server: http1::Builder, stream: UnixStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<Response, std::convert::Infallible>(ApiError::Busy.into_response())
    });
    server.keep_alive(false);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
