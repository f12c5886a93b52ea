//! HTTP/1.1 and HTTP/1.0 message framing (RFC 9112).
