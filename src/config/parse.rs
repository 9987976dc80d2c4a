//! Parses the text of one value into its type.
//!
//! Invariants: the functions are pure. An error is the rest of a sentence that begins with the setting's name ("must be …").
//!
//! Must not: repeat the value in an error, because these functions do not know which values are secret.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use url::{Host, Url};

use super::secret::Secret;
use crate::domain::postgres_url;
use crate::domain::webhook_secret::{self, SecretError};

/// A value, or the requirement that it does not meet.
pub(super) type Parsed<T> = Result<T, String>;

/// The most entries of a list.
const MAX_ENTRIES: usize = 256;

/// The longest delay between two tries of an event.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

/// A whole number within bounds.
pub(super) fn number(text: &str, range: RangeInclusive<u64>) -> Parsed<u64> {
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {} to {}", range.start(), range.end())),
    }
}

/// A finite number within bounds.
pub(super) fn decimal(text: &str, range: RangeInclusive<f64>) -> Parsed<f64> {
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {} to {}", range.start(), range.end())),
    }
}

/// `true` or `false`, or one of their usual synonyms.
pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// Text of 1 to 64 letters, digits and `. _ : -`. It is safe in a Redis key, a log line and a column.
pub(super) fn name(text: &str) -> Parsed<String> {
    let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
    if fits && (1..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 64 letters, digits and the characters . _ : -".to_owned())
}

/// An address and a port.
pub(super) fn socket_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

/// The entries of a list, separated by commas and trimmed. Empty entries are left out.
pub(super) fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// Parses every entry of a list.
pub(super) fn list<T>(text: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<Vec<T>> {
    if entries(text).count() > MAX_ENTRIES {
        return Err(format!("must have at most {MAX_ENTRIES} entries"));
    }
    entries(text)
        .enumerate()
        .map(|(index, entry)| {
            parse(entry).map_err(|must| format!("has a wrong entry, number {}: each {must}", index + 1))
        })
        .collect()
}

/// A network as CIDR. A single address is a network of one address. Bits beyond the prefix are dropped.
pub(super) fn network(text: &str) -> Parsed<IpNet> {
    let lone = text.parse::<IpAddr>().map(IpNet::from);
    let net = lone.or_else(|_| text.parse::<IpNet>());
    net.map(|net| net.trunc()).map_err(|_| "must be a network such as 10.0.0.0/8 or fd00::/8".to_owned())
}

/// A web origin, as browsers write it in `Origin`: scheme, host, and the port unless it is the scheme's default.
pub(super) fn origin(text: &str) -> Parsed<String> {
    let must = || "must be an origin such as https://app.example.com, without path; \"*\" is not taken".to_owned();
    let url = Url::parse(text).map_err(|_| must())?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(must)?;
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !bare || has_user(&url) || host.contains('*') {
        return Err(must());
    }
    let origin = url.origin();
    if origin.is_tuple() {
        return Ok(origin.ascii_serialization());
    }
    // Apps in a web view use their own schemes, such as capacitor://localhost.
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{}://{host}{port}", url.scheme()))
}

/// The URL of PostgreSQL. It may name several servers.
pub(super) fn database_url(text: &str) -> Parsed<Secret<String>> {
    postgres_url::servers(text)?;
    Ok(Secret::new(text.to_owned()))
}

/// The URL of Redis.
pub(super) fn redis_url(text: &str) -> Parsed<Secret<String>> {
    let must = "must be a URL such as redis://user:password@host:6379/0, or rediss:// for TLS";
    if text.contains(',') {
        return Err(
            "names several servers; that is for a Redis Cluster, which is not supported yet: name one".to_owned()
        );
    }
    let url = Url::parse(text).map_err(|_| format!("{must}; special characters in the password are written as %XX"))?;
    if !matches!(url.scheme(), "redis" | "rediss") {
        return Err(format!("{must}: its scheme is not redis or rediss"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{must}: it names no host"));
    }
    Ok(Secret::new(text.to_owned()))
}

/// An http(s) URL with a host and without a user, query or fragment.
pub(super) fn public_url(text: &str) -> Parsed<Url> {
    let url = web_url(text, "https://track.example.com")?;
    if url.query().is_some() {
        return Err("must have no query: links are made by adding to it".to_owned());
    }
    Ok(url)
}

/// An http(s) URL with a host and without a user or fragment.
pub(super) fn web_url(text: &str, example: &str) -> Parsed<Url> {
    let url = Url::parse(text).map_err(|_| format!("must be a URL such as {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("must be an http:// or https:// URL such as {example}"));
    }
    if has_user(&url) {
        return Err("must not hold a user or password: take what stands before the @ out of it".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must have no fragment: take the # and what follows it out".to_owned());
    }
    Ok(url)
}

/// The literal address of a URL, if the URL has an address and not a name.
pub(super) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
        Host::Domain(_) => None,
    }
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// A secret of Standard Webhooks 1.0: `whsec_` and base64 of 24 to 64 bytes.
pub(super) fn signing_secret(text: &str) -> Parsed<Secret<String>> {
    let must = "must be whsec_ and the base64 of 24 to 64 bytes (openssl rand -base64 32 makes the second part)";
    match webhook_secret::signing_key(text) {
        Ok(_) => Ok(Secret::new(text.to_owned())),
        Err(SecretError::Length(bytes)) => Err(format!("{must}; it has {bytes} bytes")),
        Err(_) => Err(must.to_owned()),
    }
}

/// A key that other secrets are derived from.
pub(super) fn secrets_key(text: &str) -> Parsed<Secret<String>> {
    match STANDARD.decode(text) {
        Ok(key) if (32..=64).contains(&key.len()) => Ok(Secret::new(text.to_owned())),
        _ => Err("must be the base64 of 32 to 64 bytes (openssl rand -base64 32 makes one)".to_owned()),
    }
}

/// A secret that is sent unchanged in a header.
pub(super) fn shared_secret(text: &str) -> Parsed<Secret<String>> {
    let must = "must be at most 1024 visible ASCII characters without spaces, since it is sent in a header";
    webhook_secret::check_shared(text).map(|()| Secret::new(text.to_owned())).map_err(|_| must.to_owned())
}

/// A duration: a whole number and a unit (ms, s, m or h).
pub fn duration(text: &str) -> Result<Duration, String> {
    let must = || "must be a whole number and a unit, ms, s, m or h, such as 30s".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| must())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(must()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(must)
}

/// The delays before each try of an event.
pub(super) fn retry_schedule(text: &str) -> Parsed<Vec<Duration>> {
    let schedule = list(text, |entry| match duration(entry) {
        Ok(delay) if delay > MAX_RETRY_DELAY => Err("must be at most 168h".to_owned()),
        other => other,
    })?;
    if (1..=50).contains(&schedule.len()) {
        return Ok(schedule);
    }
    Err("must have 1 to 50 entries such as 0s,5s,5m,30m,2h".to_owned())
}

/// A filter in the form of `RUST_LOG`. The subscriber's own parser checks it.
pub(super) fn log_filter(text: &str) -> Parsed<String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err("must be a level (error, warn, info, debug, trace) or a list such as info,driver_tracker=debug"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "-1s", "1.5h", "5 s", "5d", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn schedules_are_bounded() {
        assert_eq!(retry_schedule("0s, 5s").unwrap(), [Duration::ZERO, Duration::from_secs(5)]);
        assert!(retry_schedule(&vec!["1s"; 51].join(",")).is_err());
        assert!(retry_schedule(",").is_err());
        assert!(retry_schedule("169h").unwrap_err().contains("168h"));
    }

    #[test]
    fn networks_may_be_lone_addresses_and_lose_host_bits() {
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(network("::1").unwrap().to_string(), "::1/128");
        assert!(network("10.0.0.0/33").is_err());
        assert!(network("localhost").is_err());
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        assert_eq!(origin("https://App.Example.com:443/").unwrap(), "https://app.example.com");
        assert_eq!(origin("http://localhost:3000").unwrap(), "http://localhost:3000");
        assert_eq!(origin("capacitor://localhost").unwrap(), "capacitor://localhost");
        for bad in ["*", "null", "https://*.example.com", "https://a.example/x", "https://u@a.example", "example.com"] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signing_secrets_have_24_to_64_bytes() {
        for (bytes, good) in [(23, false), (24, true), (64, true), (65, false)] {
            let text = format!("whsec_{}", STANDARD.encode(vec![7u8; bytes]));
            assert_eq!(signing_secret(&text).is_ok(), good, "{bytes} bytes");
        }
        assert!(signing_secret(&STANDARD.encode([7u8; 32])).is_err());
        assert!(signing_secret("whsec_!!!").is_err());
    }

    #[test]
    fn literal_addresses_are_seen_in_every_spelling() {
        for text in ["http://127.0.0.1/", "http://0x7f.1/", "http://2130706433/"] {
            assert_eq!(literal_address(&web_url(text, "").unwrap()), Some(IpAddr::from([127, 0, 0, 1])), "{text}");
        }
        assert_eq!(literal_address(&web_url("http://[::1]:9/", "").unwrap()), Some("::1".parse().unwrap()));
        assert_eq!(literal_address(&web_url("http://shop.example/", "").unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,80}") {
            let _ = (duration(&text), retry_schedule(&text), list(&text, network), list(&text, origin));
            let _ = (database_url(&text), redis_url(&text), public_url(&text), signing_secret(&text));
            let _ = (socket_address(&text), name(&text), shared_secret(&text), boolean(&text));
        }
    }
}
