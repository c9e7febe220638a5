//! To the API behind: requests that are not plain, as they came, and its answers as they come.

use std::path::Path;
use std::rc::Rc;

use http::{Request, Response, StatusCode, Version, header};

use super::answer::{Answer, problem};
use super::behind::{Asked, Behind, Kept, Passed};

/// Headers that are about one connection.
const OF_CONNECTION: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "expect"];

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
    match behind.send(request).await {
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
