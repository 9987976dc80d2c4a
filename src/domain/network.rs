//! Decides which IP addresses events may be posted to. Internal addresses are refused unless the operator allows them.
//!
//! - The rule is a pure function of an address. It resolves no names.
//! - A caller that connects to a name must check the address that it connects to. Another resolution of the same name may give
//!   another address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whether events may be posted to `ip`: it is not internal, or one of the `allowed` networks contains it.
///
/// An IPv4 address that is mapped into IPv6 (`::ffff:10.0.0.1`) is also compared with the IPv4 networks.
pub fn is_permitted(ip: IpAddr, allowed: &[IpNet]) -> bool {
    !is_internal(ip) || allowed.iter().any(|net| net.contains(&ip) || net.contains(&ip.to_canonical()))
}

/// Whether `ip` is not an ordinary address of the public internet.
///
/// Internal addresses are loopback, private, link-local, shared, multicast and reserved ones, and IPv6 addresses that lead to
/// such an IPv4 address.
///
/// Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and its updates).
pub fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_internal_v4(ip),
        IpAddr::V6(ip) => is_internal_v6(ip),
    }
}

fn is_internal_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    match a {
        // "This network", private, loopback.
        0 | 10 | 127 => true,
        // Shared address space of carriers (RFC 6598).
        100 => (64..128).contains(&b),
        // Link-local. Clouds have their metadata services here.
        169 => b == 254,
        172 => (16..32).contains(&b),
        // IETF protocol assignments, documentation, the retired 6to4 relay, private.
        192 => matches!((b, c), (0, 0) | (0, 2) | (88, 99) | (168, _)),
        // Benchmarking, documentation.
        198 => matches!(b, 18 | 19) || (b, c) == (51, 100),
        203 => (b, c) == (0, 113),
        // Multicast, reserved, broadcast.
        224.. => true,
        _ => false,
    }
}

fn is_internal_v6(ip: Ipv6Addr) -> bool {
    if let Some(v4) = embedded_v4(ip) {
        return is_internal_v4(v4);
    }
    let [first, second, ..] = ip.segments();
    // Only 2000::/3 is allocated to the public internet. This excludes unspecified, loopback, unique local (fc00::/7),
    // link-local (fe80::/10), site-local (fec0::/10), multicast (ff00::/8), discard (100::/64), and the local NAT64 prefix
    // (64:ff9b:1::/48).
    if first & 0xe000 != 0x2000 {
        return true;
    }
    match first {
        // IETF protocol assignments and documentation. `embedded_v4` handles Teredo.
        0x2001 => second < 0x0200 || second == 0x0db8,
        // Documentation, 3fff::/20.
        0x3fff => second < 0x1000,
        _ => false,
    }
}

/// Returns the IPv4 address that receives packets to `ip`, if the IPv6 address contains one.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // Mapped, ::ffff:0:0/96.
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        // IPv4-compatible, ::/96. :: and ::1 belong to 0.0.0.0/8, so they are internal.
        [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        // Translated, ::ffff:0:0:0/96.
        [0, 0, 0, 0, 0xffff, 0, high, low] => v4(high, low),
        // NAT64, 64:ff9b::/96.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4, 2002::/16.
        [0x2002, high, low, ..] => v4(high, low),
        // Teredo, 2001::/32. The last 32 bits are the client's address, inverted.
        [0x2001, 0, _, _, _, _, high, low] => v4(!high, !low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_inside_a_network_are_internal() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001:2::1",
            "3fff::1",
            "2002:a00:1::1",
            "2002:7f00:1::1",
            "2001:0:4136:e378:8000:63bf:f5ff:fffe",
            "5f00::1",
        ] {
            assert!(is_internal(ip(text)), "{text}");
        }
    }

    #[test]
    fn addresses_of_the_public_internet_are_not() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2001:200::1",
        ] {
            assert!(!is_internal(ip(text)), "{text}");
        }
    }

    #[test]
    fn a_network_that_is_allowed_opens_only_itself() {
        let allowed: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "8.8.8.8"] {
            assert!(is_permitted(ip(text), &allowed), "{text}");
        }
        for text in ["10.2.0.1", "::ffff:10.2.0.1", "127.0.0.1", "fc00::1", "2002:a01:203::1"] {
            assert!(!is_permitted(ip(text), &allowed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_disguise(bits: u32, rest: u16) {
            let v4 = Ipv4Addr::from(bits);
            let [high, low] = [(bits >> 16) as u16, bits as u16];
            let judged = is_internal(IpAddr::V4(v4));
            for disguise in [
                v4.to_ipv6_mapped(),
                v4.to_ipv6_compatible(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, rest, 0, 0, 0, rest),
                Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, rest, !high, !low),
            ] {
                prop_assert_eq!(is_internal(IpAddr::V6(disguise)), judged, "{}", disguise);
            }
        }

        #[test]
        fn std_never_knows_better(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let known = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            prop_assert!(!known || is_internal(IpAddr::V4(v4)));
        }

        #[test]
        fn special_ipv6_is_internal(bits: u128) {
            let v6 = Ipv6Addr::from(bits);
            let known = v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast();
            prop_assert!(!known || is_internal(IpAddr::V6(v6)));
        }

        #[test]
        fn an_address_is_permitted_where_it_is_allowed_by_name(bits: u128) {
            let address = IpAddr::V6(Ipv6Addr::from(bits));
            prop_assert!(is_permitted(address, &[IpNet::from(address)]));
            prop_assert_eq!(is_permitted(address, &[]), !is_internal(address));
        }
    }
}
