//! What may stand behind the `?` of a path. A name that is not known, or a value that can't be, is said
//! to be so: an answer to something else than was asked is worse than none.

use crate::stats::recorder::Filter;

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Where nothing is said.
    pub(super) usual: usize,
    /// At most.
    pub(super) max: usize,
}

/// `limit=N`.
pub(super) fn limit(query: &str, bounds: Bounds) -> Result<usize, String> {
    let mut asked = bounds.usual;
    for (name, value) in pairs(query) {
        match name {
            "limit" => asked = number_up_to(name, &value, bounds.max)?,
            _ => return Err(format!("{name:?} is not asked for here; limit may be")),
        }
    }
    Ok(asked)
}

/// Which records, and how many of them.
pub(super) fn records(query: &str, bounds: Bounds) -> Result<(Filter, usize), String> {
    let mut filter = Filter::default();
    let mut asked = bounds.usual;
    for (name, value) in pairs(query) {
        match name {
            "limit" => asked = number_up_to(name, &value, bounds.max)?,
            _ => filter.narrow(name, &value)?,
        }
    }
    Ok((filter, asked))
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        (name, value.into_owned())
    })
}

fn number_up_to(name: &str, value: &str, max: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|&number| number <= max);
    number.ok_or_else(|| format!("{name} is a number up to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { usual: 10, max: 20 };

    #[test]
    fn a_limit_has_a_limit_and_an_unknown_name_is_said() {
        assert_eq!(limit("", BOUNDS), Ok(10));
        assert_eq!(limit("limit=20", BOUNDS), Ok(20));
        for query in ["limit=21", "limit=", "limit", "listener=web"] {
            assert!(limit(query, BOUNDS).is_err(), "{query}");
        }
        let (filter, asked) = records("limit=5&upstream=a%62c", BOUNDS).unwrap_or_default();
        assert_eq!((filter.upstream.as_deref(), asked), (Some("abc"), 5));
        assert!(records("colour=red", BOUNDS).is_err());
    }
}
