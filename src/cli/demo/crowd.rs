//! Many clients at once, each a task.

use std::future::Future;
use std::panic::resume_unwind;

use futures_util::{StreamExt, stream};
use tokio_util::task::AbortOnDropHandle;

/// Runs `client` for every number below `count`, so many at once; what became of each, in no order.
pub(super) async fn crowd<T, F>(count: usize, at_once: usize, client: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    stream::iter(0..count)
        .map(|number| AbortOnDropHandle::new(tokio::spawn(client(number))))
        .buffer_unordered(at_once)
        // Nobody aborts one that is awaited, so it can only have panicked.
        .map(|joined| joined.unwrap_or_else(|error| resume_unwind(error.into_panic())))
        .collect()
        .await
}
