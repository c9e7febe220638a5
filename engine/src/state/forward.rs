//! To the API behind: requests that are not plain, as they came, and its answers as they come.
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
use http::{Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::serve::{Answer, problem};

/// A connection that was idle for longer is not used again: the API closes them after five seconds, and a request
/// on its way then would have an unknown outcome.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// Headers that are about one connection.
const OF_CONNECTION: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "expect"];

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
    async fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: tokio::task::spawn_local(connection), used: Instant::now() })
    }

    fn is_fresh(&self) -> bool {
        self.sender.is_ready() && self.used.elapsed() < IDLE_MAX
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Asks the API at `path`, and gives its answer.
pub async fn forward(path: &Path, kept: &Kept, mut request: Request<Asked>) -> Response<Answer> {
    let known = kept.borrow_mut().take().filter(Behind::is_fresh);
    let mut behind = match known {
        Some(behind) => behind,
        None => match Behind::connect(path).await {
            Ok(behind) => behind,
            Err(error) => {
                let detail = format!("nothing was done: the node does not answer ({error})");
                return problem(StatusCode::SERVICE_UNAVAILABLE, "not-done", &detail);
            }
        },
    };
    *request.version_mut() = Version::HTTP_11;
    for name in OF_CONNECTION {
        request.headers_mut().remove(name);
    }
    match behind.sender.send_request(request).await {
        Ok(response) => {
            let mut response = response.map(|body| Answer::Passed(Passed::new(body, behind, Rc::clone(kept))));
            for name in OF_CONNECTION {
                response.headers_mut().remove(name);
            }
            response.headers_mut().remove(header::DATE);
            response
        }
        Err(error) => {
            let detail = format!("the outcome is unknown, it may have been done: the node broke off ({error})");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "maybe-done", &detail)
        }
    }
}

/// The body of an answer of the API's.
pub struct Passed {
    body: Incoming,
    behind: Option<Behind>,
    kept: Kept,
}

impl Passed {
    fn new(body: Incoming, behind: Behind, kept: Kept) -> Self {
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
