//! Where hyper's own tasks run, of clients and of instances that speak HTTP/2.

use std::future::Future;

/// Runs hyper's tasks on the worker that they belong to.
#[derive(Clone, Copy)]
pub struct OnThisWorker;

impl<F> hyper::rt::Executor<F> for OnThisWorker
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
