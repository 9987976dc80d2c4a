//! Finds the client address of a request: the peer's address, or the address that a trusted proxy reports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::HttpRequest;
use ipnet::IpNet;

/// The address of the client. `X-Forwarded-For` counts only when a trusted proxy sent it. It is read backwards, up to
/// the first address that is not a trusted proxy: the client itself wrote everything before that address.
pub fn of(request: &HttpRequest, trusted: &[IpNet]) -> IpAddr {
    let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
    let lines = request.headers().get_all("x-forwarded-for");
    // A hop that is not text is one that cannot be read; what a proxy appended to it still counts.
    let hops = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let hops: Vec<&str> = hops.map(|hop| std::str::from_utf8(hop).unwrap_or_default()).collect();
    resolve(peer, &hops, trusted)
}

fn resolve(peer: IpAddr, hops: &[&str], trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    for hop in hops.iter().rev() {
        if !is_trusted(client) {
            break;
        }
        match parse_hop(hop.trim()) {
            Some(address) => client = address.to_canonical(),
            None => break,
        }
    }
    client
}

/// Parses an address as proxies write it: bare, in brackets, or with a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, hops: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        resolve(peer.parse().unwrap(), hops, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &["1.2.3.4", " 198.51.100.1", "10.9.9.9"]), "198.51.100.1");
    }

    #[test]
    fn a_hop_that_is_not_text_hides_no_later_one() {
        use actix_web::http::header::{HeaderName, HeaderValue};
        let line = HeaderValue::from_bytes(b"\xff, 198.51.100.1").unwrap();
        let request = actix_web::test::TestRequest::default()
            .peer_addr("10.0.0.1:1".parse().unwrap())
            .insert_header((HeaderName::from_static("x-forwarded-for"), line))
            .to_http_request();
        assert_eq!(of(&request, &["10.0.0.0/8".parse().unwrap()]).to_string(), "198.51.100.1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_search() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1", "unknown"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["198.51.100.1:80"]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }
}
