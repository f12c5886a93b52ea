//! A service that answers one request at length and then ends the connection first.
//!
//! In order it says FIN, and the kernel delivers what is still on its way. With `SO_LINGER` 0, the folk
//! remedy against TIME_WAIT (socket(7)), the close throws that away and sends an RST. Outside
//! `crate::close` only this file sets the option: the remedy is shown here, not used.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::answer_to;
use crate::stats::counter::Counter;

/// The body of an answer.
pub(super) const ANSWER_BYTES: usize = 256 * 1024;
const REQUEST_BYTES_MAX: usize = 4096;

/// How the service ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// With a FIN behind the answer.
    Normal,
    /// With `SO_LINGER` 0.
    LingerZero,
}

/// Accepts until it is dropped.
pub(super) async fn serve(listener: TcpListener, connects: &Counter, close: Close) {
    loop {
        // A connect that failed while it waited is its client's to notice.
        if let Ok((stream, _)) = listener.accept().await {
            connects.increment();
            tokio::spawn(connection(stream, close));
        }
    }
}

async fn connection(mut stream: TcpStream, close: Close) {
    // A client that went away or sent no request gets no answer, and sees that itself.
    let Ok(Some(number)) = request(&mut stream).await else {
        return;
    };
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    response.extend(long_answer_to(number));
    if stream.write_all(&response).await.is_ok() && close == Close::LingerZero {
        // Fails only where the client has reset the connection already.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

/// The number of the client whose request it is.
async fn request(stream: &mut TcpStream) -> io::Result<Option<usize>> {
    let mut bytes = Vec::with_capacity(512);
    while bytes.len() < REQUEST_BYTES_MAX && stream.read_buf(&mut bytes).await? > 0 {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => {
                let number = request.path.and_then(|path| path.strip_prefix("/client/"));
                return Ok(number.and_then(|number| number.parse().ok()));
            }
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// The one right answer to client `number`: nobody else's is like it, from its first line on.
pub(super) fn long_answer_to(number: usize) -> Vec<u8> {
    let line = answer_to(number).into_bytes();
    let mut answer = line.repeat(ANSWER_BYTES.div_ceil(line.len()));
    answer.truncate(ANSWER_BYTES);
    answer
}
