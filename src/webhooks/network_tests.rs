use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use proptest::prelude::*;

fn check(text: &str, allowed: &[&str]) -> Result<(), UrlRefusal> {
    let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
    check_url(&Url::parse(text).unwrap(), &allowed)
}

#[test]
fn every_kind_of_inner_address_is_forbidden() {
    for ip in [
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
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "2002:c0a8:101::1",
        "2001::1",
        "2001:0:a00:1:0:0:f5ff:fffe",
        "2001:2::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "5f00::1",
        "4000::1",
    ] {
        assert!(!is_permitted(ip.parse().unwrap(), &[]), "{ip}");
    }
}

#[test]
fn the_public_internet_is_permitted() {
    for ip in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
    ] {
        assert!(is_permitted(ip.parse().unwrap(), &[]), "{ip}");
    }
}

#[test]
fn configuration_allows_a_network_and_no_more() {
    let allowed: Vec<IpNet> = ["10.1.0.0/16", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect();
    for ip in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"] {
        assert!(is_permitted(ip.parse().unwrap(), &allowed), "{ip}");
    }
    for ip in ["10.2.0.1", "::ffff:10.2.0.1", "64:ff9b::a01:203", "127.0.0.1", "fc00::1"] {
        assert!(!is_permitted(ip.parse().unwrap(), &allowed), "{ip}");
    }
}

#[test]
fn every_spelling_of_a_literal_address_is_seen() {
    for url in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://0/",
        "http://%31%32%37.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "https://[0:0:0:0:0:0:0:1]:8443/hook",
        "http://[::127.0.0.1]/",
    ] {
        assert!(matches!(check(url, &[]), Err(UrlRefusal::Forbidden(_))), "{url} {:?}", check(url, &[]));
    }
    assert_eq!(check("http://2130706433/", &["127.0.0.0/8"]), Ok(()));
    assert_eq!(check("http://93.184.215.14/", &[]), Ok(()));
    assert_eq!(check("https://shop.example/hook?x=1", &[]), Ok(()));
}

#[test]
fn other_schemes_and_users_are_refused() {
    assert_eq!(check("ftp://shop.example/", &[]), Err(UrlRefusal::Scheme));
    assert_eq!(check("file:///etc/passwd", &[]), Err(UrlRefusal::Scheme));
    assert_eq!(check("https://user@shop.example/", &[]), Err(UrlRefusal::Userinfo));
    assert_eq!(check("https://:secret@shop.example/", &[]), Err(UrlRefusal::Userinfo));
    let refusal = check("https://user:secret@127.0.0.1/", &[]).unwrap_err();
    assert!(!refusal.to_string().contains("secret"));
}

#[tokio::test]
async fn a_name_is_judged_by_what_it_resolves_to() {
    let url = Url::parse("http://localhost:1/").unwrap();
    assert_eq!(check_url(&url, &[]), Ok(()));
    let refusal = check_url_resolving(&url, &[]).await.unwrap_err();
    assert!(matches!(&refusal, UrlRefusal::ResolvesToForbidden { name, .. } if name == "localhost"), "{refusal}");
    let allowed: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap()];
    let permitted = resolve_permitted("localhost", 80, &allowed).await.unwrap();
    assert!(permitted.iter().all(|address| address.ip() == Ipv4Addr::LOCALHOST), "{permitted:?}");
    let nowhere = Url::parse("http://nowhere.invalid/").unwrap();
    assert!(matches!(check_url_resolving(&nowhere, &[]).await, Err(UrlRefusal::Unresolved { .. })));
}

#[test]
fn a_name_that_answers_both_ways_or_another_way_each_time_leads_nowhere_inside() {
    let answer = |ips: &[&str]| {
        let found = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 443)).collect();
        permitted_of("rebinding.example", found, &[])
    };
    let outside: SocketAddr = "93.184.215.14:443".parse().unwrap();
    assert_eq!(answer(&["10.0.0.1", "93.184.215.14", "::ffff:127.0.0.1"]), Ok(vec![outside]));
    // It was outside when it was checked, and is inside when it is connected to: the same question is asked then.
    assert!(answer(&["93.184.215.14"]).is_ok());
    assert!(matches!(answer(&["169.254.169.254"]), Err(UrlRefusal::ResolvesToForbidden { .. })));
    assert!(matches!(answer(&[]), Err(UrlRefusal::Unresolved { .. })));
}

proptest! {
    #[test]
    fn an_ipv4_address_in_disguise_is_judged_as_itself(bits in any::<u32>()) {
        let ip = Ipv4Addr::from(bits);
        let permitted = is_permitted(ip.into(), &[]);
        prop_assert_eq!(is_permitted(ip.to_ipv6_mapped().into(), &[]), permitted);
        let nat64 = Ipv6Addr::from((0x64_ff9b_u128 << 96) | u128::from(bits));
        prop_assert_eq!(is_permitted(nat64.into(), &[]), permitted);
        let six_to_four = Ipv6Addr::from((0x2002_u128 << 112) | (u128::from(bits) << 80) | 1);
        prop_assert_eq!(is_permitted(six_to_four.into(), &[]), permitted);
    }
}
