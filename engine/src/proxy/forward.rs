//! A request from its head to the head of its answer, stage by stage: [`admit`](super::admit),
//! [`outbound`](super::outbound), [`deliver`](super::deliver), which seeks places and makes
//! [`attempt`](super::attempt)s.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;

use super::admit::{Admitted, admit};
use super::answer::AnswerBody;
use super::client::ClientState;
use super::deadline::Deadline;
use super::deliver::deliver;
use super::grpc;
use super::head::Framing;
use super::inflow::Inflow;
use super::outbound::Outbound;
use super::problem::{Problem, Reason};
use crate::observe::record::Record;
use crate::observe::trace::Trace;

/// Answers a request; never fails, since every failure is an answer.
pub async fn answer(client: Rc<ClientState>, request: Request<Inflow>) -> Response<AnswerBody> {
    let (mut parts, incoming) = request.into_parts();
    let exchange = client.exchange();
    let stamps = &client.listening.common.stamps;
    stamps.see(&parts.headers);
    let is_grpc = grpc::is_grpc(&parts.headers);
    let record = Record::new(&client.listening.common.access_log, client.peer, &parts.method, parts.uri.path());
    let trace = Trace::of(&mut parts.headers);
    record.belongs_to(trace);
    match respond(&client, &record, trace, parts, incoming).await {
        Ok(mut response) => {
            record.answered(response.status(), None);
            stamps.write(response.headers_mut());
            if client.listening.ends_connections() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response.body_mut().ends_with(exchange, record);
            response
        }
        Err(problem) => {
            let ends = matches!(problem.reason, Reason::BadRequest | Reason::BodyTooSlow)
                || client.wire.has_lost_place()
                || client.listening.ends_connections();
            let refusal = if is_grpc { grpc::refusal(&problem) } else { problem.response(&trace) };
            let (mut parts, text) = refusal.into_parts();
            record.answered(parts.status, Some(problem.reason.word()));
            stamps.write(&mut parts.headers);
            if ends {
                parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let mut body = AnswerBody::new(Bytes::from(text).into());
            body.ends_with(exchange, record);
            Response::from_parts(parts, body)
        }
    }
}

async fn respond(
    client: &Rc<ClientState>,
    record: &Record,
    trace: Trace,
    parts: Parts,
    incoming: Inflow,
) -> Result<Response<AnswerBody>, Problem> {
    let framing = incoming.size_hint().exact().map_or(Framing::Chunked, Framing::Length);
    let Admitted { host, backend, class } = admit(client, &parts, framing)?;
    record.routed(&backend.counted);
    let mut outbound = Outbound::of_head(client, trace, parts, framing, &host);
    if framing != Framing::Length(0) {
        Box::pin(outbound.receive(client, record, incoming, framing)).await?;
    }
    outbound.class = class;
    outbound.deadline = Deadline::read(&outbound.headers, record.began());
    let answered = deliver(&backend, client, &outbound, record).await;
    answered.map_err(|problem| {
        backend.failures.more();
        problem.at(backend.name())
    })
}
