//! Addresses to listen on and to dial, and lists of them.
//!
//! Spelling only: whether a name resolves or a path exists is found out when it is used.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use ::config::{Value as Written, ValueKind};

use super::checked::{Address, Endpoint};
use super::value::{Fault, Kind, Value, fault, shown, whole};

const WEIGHT_MAX: u64 = 256;
/// `sun_path` holds 108 bytes, the last of them 0 (unix(7)).
const UNIX_PATH_MAX: usize = 107;
/// A host name's length (RFC 1035 section 2.3.4).
const HOST_NAME_MAX: usize = 253;
pub(super) const ADDRESS_FORMS: &str = "IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH";
pub(super) const ENDPOINT_FORM: &str = "an address or { address = \"…\", weight = 1 }";

/// Reads an address to listen on.
pub(super) fn address(text: &str) -> Result<Address, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("has no path"),
            _ if path.contains('\0') => Err("has a zero byte in its path"),
            _ if path.len() > UNIX_PATH_MAX => Err("has a path over 107 bytes"),
            _ => Ok(Address::Unix(PathBuf::from(path))),
        };
    }
    if text.starts_with('[') {
        return text
            .parse::<SocketAddrV6>()
            .map(|address| Address::Ip(SocketAddr::V6(address)))
            .map_err(|_| "is not an address");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("has no port");
    };
    if host.contains(':') {
        return Err("is IPv6 without brackets");
    }
    let port = match port.parse::<u16>() {
        Ok(number) if port.bytes().all(|digit| digit.is_ascii_digit()) => number,
        _ => return Err("has no port from 0 to 65535"),
    };
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Ip((ip, port).into()));
    }
    if is_host_name(host) {
        return Ok(Address::Name(host.to_owned(), port));
    }
    Err("is not an address")
}

/// Reads a list of addresses to dial.
pub(super) fn endpoints(list: &[Written]) -> Result<Value, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (index, written) in list.iter().enumerate() {
        match endpoint(written) {
            Ok(endpoint)
                if endpoints
                    .iter()
                    .any(|other| other.address == endpoint.address) =>
            {
                let value = format!("\"{}\"", endpoint.address);
                let place = format!("[{index}]");
                faults.push(fault(
                    &place,
                    value,
                    "stands there twice",
                    "each address once".to_owned(),
                ));
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(found) => faults.extend(found.into_iter().map(|fault| Fault {
                place: format!("[{index}]{}", fault.place),
                ..fault
            })),
        }
    }
    if list.is_empty() {
        faults.push(fault(
            "",
            "[]".to_owned(),
            "is empty",
            Kind::Endpoints.allowed(),
        ));
    }
    if faults.is_empty() {
        Ok(Value::Endpoints(endpoints))
    } else {
        Err(faults)
    }
}

/// A list in one text: `10.0.0.1:80, 10.0.0.2:80`.
pub(super) fn listed(text: &str) -> Vec<Written> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Written::new(None, item))
        .collect()
}

fn endpoint(written: &Written) -> Result<Endpoint, Vec<Fault>> {
    let table = match &written.kind {
        ValueKind::String(text) => {
            let address = dialled(text).map_err(|reason| vec![bad_address("", text, reason)])?;
            return Ok(Endpoint { address, weight: 1 });
        }
        ValueKind::Table(table) => table,
        _ => {
            let allowed = format!("{ENDPOINT_FORM}, with {ADDRESS_FORMS}");
            return Err(vec![fault(
                "",
                shown(written),
                "is of the wrong type",
                allowed,
            )]);
        }
    };
    let mut faults = Vec::new();
    let mut address = None;
    let mut weight = 1;
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(key, _)| key.as_str());
    for (key, value) in keys {
        match (key.as_str(), &value.kind) {
            ("address", ValueKind::String(text)) => match dialled(text) {
                Ok(read) => address = Some(read),
                Err(reason) => faults.push(bad_address(".address", text, reason)),
            },
            ("address", _) => {
                let allowed = ADDRESS_FORMS.to_owned();
                faults.push(fault(
                    ".address",
                    shown(value),
                    "is of the wrong type",
                    allowed,
                ));
            }
            ("weight", _) => match whole(value).and_then(|number| u32::try_from(number).ok()) {
                Some(number) if (1..=WEIGHT_MAX).contains(&u64::from(number)) => weight = number,
                _ => {
                    let allowed = format!("a whole number from 1 to {WEIGHT_MAX}");
                    faults.push(fault(".weight", shown(value), "is out of bounds", allowed));
                }
            },
            (other, _) => {
                let place = format!(".{other}");
                faults.push(fault(
                    &place,
                    shown(value),
                    "there is no such key",
                    ENDPOINT_FORM.to_owned(),
                ));
            }
        }
    }
    if address.is_none() && !table.contains_key("address") {
        faults.push(fault(
            "",
            shown(written),
            "has no address",
            ENDPOINT_FORM.to_owned(),
        ));
    }
    match address {
        Some(address) if faults.is_empty() => Ok(Endpoint { address, weight }),
        _ => Err(faults),
    }
}

/// An address to dial: unlike one to listen on, it needs a port.
fn dialled(text: &str) -> Result<Address, &'static str> {
    match address(text)? {
        Address::Ip(ip) if ip.port() == 0 => Err("has port 0"),
        Address::Name(_, 0) => Err("has port 0"),
        address => Ok(address),
    }
}

fn is_host_name(host: &str) -> bool {
    let last = host
        .trim_end_matches('.')
        .rsplit('.')
        .next()
        .unwrap_or_default();
    host.len() <= HOST_NAME_MAX
        && !last.is_empty()
        // A name that ends in a number is an IPv4 address gone wrong.
        && !last.bytes().all(|letter| letter.is_ascii_digit())
        && host.trim_end_matches('.').split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_'))
        })
}

fn bad_address(place: &str, text: &str, reason: &str) -> Fault {
    fault(place, format!("{text:?}"), reason, ADDRESS_FORMS.to_owned())
}
