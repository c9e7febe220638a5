//! Raw connections to a service (`mode: tcp`): each holds a place for as long as it lasts, as a request does until
//! its answer is over. What is said on them is the service's own affair.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::backend::Backend;
use super::connections::Seat;
use super::dial::dial;
use super::listen::Listening;
use super::place::Place;
use super::revisions::Avoid;
use super::seek::Seeking;
use super::tunnel::carry;
use super::wire::{Wire, WireIo};
use crate::dispatch::Class;
use crate::sync::lock;

/// Serves a client until either side ends. Where no instance can be had within the service's wait, the client's
/// connection is reset.
pub async fn serve(_seat: Seat, listening: Arc<Listening>, client: Rc<Wire>) {
    let routes = Arc::clone(&lock(&listening.routes));
    let found = if listening.is_closed() { None } else { routes.find("", "/") };
    let Some((backend, class)) = found.map(|route| (Arc::clone(&route.backend), route.class)) else {
        return client.abort();
    };
    match connect(&backend, class).await {
        Some((_place, instance)) => carry(WireIo(client), WireIo(instance)).await,
        None => {
            backend.failures.more();
            client.abort();
        }
    }
}

/// A connection to an instance, the next one if one refuses, and the place that it holds.
async fn connect(backend: &Arc<Backend>, class: Class) -> Option<(Place, Rc<Wire>)> {
    let arrived = Instant::now();
    let (ticket, policy) = backend.arrive(arrived);
    let mut avoid = Avoid::default();
    let ends = arrived + policy.wait;
    loop {
        let now = Instant::now();
        let patience = ends.saturating_duration_since(now);
        let seeking = Seeking { ticket, avoid: &avoid, class, bytes: 0, hash: None };
        let place = backend.seek(seeking, now, patience).await.ok()?;
        place.target.requests.more();
        match dial(place.target.address).await {
            Ok(stream) => {
                place.connected();
                place.is_carried();
                return Some((place, Wire::of_target(stream)));
            }
            Err(error) => {
                place.unreachable(&format!("cannot connect to {}: {error}", place.target.address));
                avoid.failed(place.key());
            }
        }
    }
}
