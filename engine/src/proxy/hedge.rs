//! A second try beside a first one that takes long ("The Tail at Scale", Dean and Barroso 2013). Only for requests
//! that may be sent twice, only to an idle place of another instance while nobody waits, and only for a small
//! share of the requests: where work is scarce or waits for something that all instances share, a copy makes it
//! worse.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::{Answered, Lost, attempt};
use super::client::ClientState;
use super::outbound::Outbound;
use super::place::Place;
use super::problem::Reason;

/// How often at most a place is looked for while there is none.
const LOOK_EACH_MIN: Duration = Duration::from_millis(5);

/// Makes a try, and beside it a second one when the first has given no answer `after` so long, as soon as `second`
/// has a place for it. The first good answer wins; the other try is given up, and its connection closed.
///
/// # Errors
/// How the last of them ended.
pub async fn race(
    client: &ClientState,
    outbound: &Outbound,
    first: Place,
    ends: Option<(Instant, Reason)>,
    after: Duration,
    mut second: impl FnMut() -> Option<Place>,
) -> Result<Answered, Lost> {
    let mut first = pin!(attempt(Some(client), outbound, first, ends));
    let mut pause = after;
    let place = loop {
        if let Ok(ended) = tokio::time::timeout(pause, first.as_mut()).await {
            return ended;
        }
        if let Some(place) = second() {
            break place;
        }
        pause = (after / 4).max(LOOK_EACH_MIN);
    };
    let mut second = pin!(attempt(Some(client), outbound, place, ends));
    tokio::select! {
        biased;
        ended = &mut first => better(ended, second).await,
        ended = &mut second => better(ended, first).await,
    }
}

/// What ended first, unless it failed: then the other one may do better.
async fn better(
    ended: Result<Answered, Lost>,
    other: impl Future<Output = Result<Answered, Lost>>,
) -> Result<Answered, Lost> {
    match ended {
        Ok(answered) if !answered.parts.status.is_server_error() => Ok(answered),
        failed => match (other.await, failed) {
            (Ok(answered), _) => Ok(answered),
            (Err(_), failed @ Ok(_)) => failed,
            (Err(last), Err(first)) => Err(both(first, last)),
        },
    }
}

/// How two tries ended that both did without an answer: as the last one, but what went out by either may have happened.
fn both(first: Lost, last: Lost) -> Lost {
    match last {
        Lost::TooLate { sent } => Lost::TooLate { sent: sent || first.went_out() },
        Lost::Unsent => first,
        _ => last,
    }
}
