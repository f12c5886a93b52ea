//! Takes a census: has the kernel list the sockets, and counts them. Blocks as [`diag`](super::diag) does.

use std::io;

use super::count::{Count, Leg, filter};
use super::diag::dump;
use super::filter::Filter;
use super::ports::Route;
use super::socket::{State, States};

/// The sockets of these legs, and what the ports of these routes are taken by.
///
/// # Errors
/// What [`dump`] says.
pub fn take(legs: &[Leg], routes: &[Route]) -> io::Result<Count> {
    let mut count = Count::new(legs, routes);
    if let Some(filter) = filter(legs, routes) {
        dump(States::CONNECTED, &filter, &mut |socket| count.add(socket))?;
    }
    if !routes.is_empty() {
        let listening = States::of(&[State::Listen]);
        dump(listening, &Filter::all(), &mut |socket| {
            count.add_listening(socket.local);
        })?;
    }
    Ok(count)
}
