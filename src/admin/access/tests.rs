#![allow(clippy::unwrap_used)]

use super::*;

const LOOPBACK: Caller = Caller::Ip(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
const ELSEWHERE: Caller = Caller::Ip(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn access(token: Option<&str>) -> Access {
    let listen = Address::Name("mill.example".to_owned(), 9900);
    Access::new(token.map(str::to_owned), &listen)
}

#[test]
fn who_is_let_in() {
    let mapped = Caller::Ip("::ffff:127.0.0.1".parse().unwrap());
    let v6 = Caller::Ip(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
    let open = access(None);
    let locked = access(Some("s3cret"));
    let none = headers(&[]);
    for caller in [LOOPBACK, mapped, v6, Caller::Unix] {
        assert_eq!(open.judge(caller, true, &none), Ok(()), "{caller:?}");
        assert_eq!(locked.judge(caller, true, &none), Ok(()), "{caller:?}");
    }
    assert_eq!(open.judge(ELSEWHERE, false, &none), Err(Denial::NotLocal));
    assert_eq!(locked.judge(ELSEWHERE, false, &none), Err(Denial::NoToken));
    for (given, verdict) in [
        ("Bearer s3cret", Ok(())),
        ("bearer s3cret", Ok(())),
        ("Bearer s3cre", Err(Denial::NoToken)),
        ("Bearer s3cret ", Ok(())), // A field's value has no space at its end (RFC 9110, 5.5).
        ("Bearer s3creT", Err(Denial::NoToken)),
        ("Bearer", Err(Denial::NoToken)),
        ("Basic s3cret", Err(Denial::NoToken)),
    ] {
        let given = headers(&[("authorization", given.trim_end())]);
        assert_eq!(locked.judge(ELSEWHERE, true, &given), verdict, "{given:?}");
    }
    let given = headers(&[("authorization", "Bearer ")]);
    assert_eq!(open.judge(ELSEWHERE, true, &given), Err(Denial::NotLocal));
}

#[test]
fn what_a_proxy_passed_on_is_not_local() {
    for name in FORWARDED {
        let passed_on = headers(&[(name, "127.0.0.1")]);
        let verdict = access(None).judge(LOOPBACK, false, &passed_on);
        assert_eq!(verdict, Err(Denial::NotLocal), "{name}");
    }
}

#[test]
fn a_local_request_names_this_host_as_no_page_can() {
    for (host, right) in [
        ("127.0.0.1:9900", true),
        ("[::1]:9900", true),
        ("localhost:9900", true),
        ("LOCALHOST", true),
        ("mill.example:9900", true),
        ("rebound.example:9900", false),
        ("localhost.example", false),
        ("127.0.0.1.example", false),
        ("", false),
    ] {
        let named = headers(&[("host", host)]);
        let verdict = access(None).judge(LOOPBACK, false, &named);
        assert_eq!(verdict.is_ok(), right, "{host}");
    }
    let strange = headers(&[("host", "anything")]);
    assert_eq!(access(None).judge(Caller::Unix, false, &strange), Ok(()));
}

#[test]
fn no_page_of_another_origin_changes_anything() {
    let host = ("host", "127.0.0.1:9900");
    for (name, value, right) in [
        ("origin", "http://127.0.0.1:9900", true),
        ("origin", "http://127.0.0.1:3000", false),
        ("origin", "http://evil.example", false),
        ("origin", "null", false),
        ("sec-fetch-site", "none", true),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "cross-site", false),
    ] {
        let made = headers(&[host, (name, value)]);
        let verdict = access(None).judge(LOOPBACK, true, &made);
        assert_eq!(verdict.is_ok(), right, "{name}: {value}");
        let verdict = access(None).judge(LOOPBACK, false, &made);
        assert_eq!(verdict, Ok(()), "looking changes nothing");
    }
}
