//! Asks a service whether it has nothing more to say to the client before.
//!
//! A service that reads and answers in order can't answer the probe before everything that it still
//! owed, so an answer with nothing before it shows that nothing was owed.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Poll, ready};
use std::time::Instant;

use tokio::io::ReadBuf;
use tokio::time::timeout_at;

use super::crossing::is_crossed;
use crate::close::classify::{Loss, loss};
use crate::transport::Transport;

/// What a probe showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// Exactly the expected bytes came back.
    Answered,
    /// Other bytes came, or more.
    Wrong,
    /// Not all of them came in time.
    Late,
    /// The service's FIN came.
    Fin,
    /// The service's RST came.
    Reset,
    /// The service vanished.
    Vanished,
}

/// Sends `send` and holds what comes back against `expect`, until `deadline`.
pub async fn probe(
    service: &mut Transport,
    send: &[u8],
    expect: &[u8],
    deadline: Instant,
) -> Probed {
    let asking = async {
        if let Err(error) = write(service, send).await {
            return lost(&error);
        }
        let asked_bytes = send.len() as u64;
        let answered = read(service, expect, asked_bytes).await;
        answered.unwrap_or_else(|it| lost(&it))
    };
    timeout_at(deadline.into(), asking)
        .await
        .unwrap_or(Probed::Late)
}

async fn write(service: &mut Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = poll_fn(|context| service.poll_write(context, bytes, &[])).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[count..];
    }
    Ok(())
}

async fn read(service: &mut Transport, mut expect: &[u8], asked_bytes: u64) -> io::Result<Probed> {
    poll_fn(|context| {
        // On the stack of the poll, so that a connection that waits holds no buffer.
        let mut scratch = [MaybeUninit::uninit(); SCRATCH_BYTES];
        loop {
            let mut came = ReadBuf::uninit(&mut scratch);
            if ready!(service.poll_read(context, &mut came))? == 0 {
                return Poll::Ready(Ok(Probed::Fin));
            }
            // Whatever they look like: they were under way before the probe was there.
            if is_crossed(service, asked_bytes) {
                return Poll::Ready(Ok(Probed::Wrong));
            }
            match expect.strip_prefix(came.filled()) {
                Some([]) => return Poll::Ready(Ok(Probed::Answered)),
                Some(left) => expect = left,
                None => return Poll::Ready(Ok(Probed::Wrong)),
            }
        }
    })
    .await
}

fn lost(error: &io::Error) -> Probed {
    match loss(error) {
        Loss::Reset => Probed::Reset,
        Loss::Vanished => Probed::Vanished,
    }
}

const SCRATCH_BYTES: usize = 512;
