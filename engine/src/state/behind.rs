//! A connection to the API behind, and where it is until it can be used again: in the body of an answer, or kept.
//!
//! Each client's connection has one of its own to the API, for it asks one thing at a time. A client that goes away
//! takes that connection with it, so that the API sees it go, whatever it was waiting for.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// A connection that was idle for longer is not used again: the API closes them after five seconds, and a request
/// on its way then would have an unknown outcome.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// Where the connection to the API is kept between two requests of a client.
pub type Kept = Rc<RefCell<Option<Behind>>>;

/// A body on its way to the API: as it comes, or already here.
pub type Asked = Either<Incoming, Full<Bytes>>;

/// A connection to the API; dropped, it is closed.
pub struct Behind {
    sender: SendRequest<Asked>,
    driver: JoinHandle<hyper::Result<()>>,
    used: Instant,
}

impl Behind {
    /// A new connection to the API at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: tokio::task::spawn_local(connection), used: Instant::now() })
    }

    /// Whether it may be used for another request.
    pub fn is_fresh(&self) -> bool {
        self.sender.is_ready() && self.used.elapsed() < IDLE_MAX
    }

    /// Asks, and gives the head of the answer.
    ///
    /// # Errors
    /// The connection broke; the request may have arrived.
    pub async fn send(&mut self, request: Request<Asked>) -> hyper::Result<Response<Incoming>> {
        self.sender.send_request(request).await
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The body of an answer of the API's.
pub struct Passed {
    body: Incoming,
    behind: Option<Behind>,
    kept: Kept,
}

impl Passed {
    /// The body of the answer that has begun to come in over `behind`, which is in `kept` again after its end.
    pub fn new(body: Incoming, behind: Behind, kept: Kept) -> Self {
        let mut passed = Self { body, behind: Some(behind), kept };
        passed.keep_if_ended();
        passed
    }

    fn keep_if_ended(&mut self) {
        if self.body.is_end_stream()
            && let Some(mut behind) = self.behind.take()
        {
            behind.used = Instant::now();
            *self.kept.borrow_mut() = Some(behind);
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let passed = self.get_mut();
        let frame = ready!(Pin::new(&mut passed.body).poll_frame(cx));
        passed.keep_if_ended();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
