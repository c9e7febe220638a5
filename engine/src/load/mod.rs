//! Load on an HTTP service, and what came of it: a closed loop (each connection asks again as soon as it is
//! answered) or an open one (requests come at a rate, whether answers come or not).
//!
//! In an open loop a request's latency counts from the moment it was meant to go out, so that a service that
//! stalls is charged for the requests that had to wait for it ("coordinated omission", Tene 2013). Requests that
//! found no free connection until the end are counted as unsent.

mod pace;
mod plan;
mod report;
mod worker;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

pub use plan::Plan;

use pace::Pace;
use report::Recorder;

/// How often the request to stop is looked at.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// Puts the load on in this thread until its duration is over or `stop` is set; gives the report as JSON.
///
/// # Errors
/// In words: the plan names no address, or this machine refuses a thread what it needs.
pub fn run(plan: Plan, stop: &Arc<AtomicBool>) -> Result<String, String> {
    let address = plan.resolve()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let start = Instant::now();
        let stopped = Rc::new(Cell::new(false));
        let recorder = Rc::new(RefCell::new(Recorder::new(start, plan.series, plan.samples)));
        let pace = plan.rate.map(|rate| Rc::new(Pace::new(start, rate, plan.seed)));
        let plan = Rc::new(plan);
        let workers: Vec<_> = (0..plan.connections)
            .map(|_| {
                tokio::task::spawn_local(worker::work(
                    Rc::clone(&plan),
                    address,
                    pace.clone(),
                    Rc::clone(&recorder),
                    Rc::clone(&stopped),
                ))
            })
            .collect();
        let pacer = pace.clone().map(|pace| {
            let stopped = Rc::clone(&stopped);
            tokio::task::spawn_local(async move { pace.run(&stopped).await })
        });
        // A thread that was kept waiting may find the time over before anyone has asked once.
        tokio::task::yield_now().await;
        let over = plan.duration.map(|duration| start + duration);
        while !stop.load(Ordering::Relaxed) && over.is_none_or(|over| Instant::now() < over) {
            let look = over.map_or(STOP_LOOK, |over| (over - Instant::now()).min(STOP_LOOK));
            tokio::time::sleep(look).await;
        }
        stopped.set(true);
        if let Some(pacer) = pacer {
            let ended = pacer.await.map_err(|error| format!("the pace's task failed: {error}"))?;
            ended.map_err(|error| format!("no timer: {error}"))?;
        }
        for worker in workers {
            worker.await.map_err(|error| format!("a connection's task failed: {error}"))?;
        }
        recorder.borrow_mut().note_unsent(pace.map_or(0, |pace| pace.unsent()));
        let report = recorder.borrow().to_json();
        Ok(report)
    })
}
