use proptest::prelude::*;
use standardwebhooks::Webhook;

use super::*;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const BODY: &[u8] = br#"{"sellerOrderId":"1"}"#;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_760_000_000, 0).unwrap()
}

fn secrets(texts: &[&str]) -> Vec<SigningSecret> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn signing(texts: &[&str]) -> InboundCredentials {
    InboundCredentials { signing: secrets(texts), shared: None }
}

fn signed<'a>(id: &'a str, timestamp: &'a str, signature: &'a str) -> InboundHeaders<'a> {
    InboundHeaders {
        webhook_id: Some(id),
        webhook_timestamp: Some(timestamp),
        webhook_signature: Some(signature),
        shared_secret: None,
    }
}

#[test]
fn signs_as_the_standards_own_example() {
    let body = br#"{"email":"test@example.com","username":"test_user"}"#;
    assert_eq!(
        sign(&secrets(&[SECRET]), "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body),
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
    );
}

#[test]
fn secrets_are_checked_and_never_shown() {
    let refusal = |text: &str| text.parse::<SigningSecret>().unwrap_err();
    assert_eq!(refusal(""), SecretError::Empty);
    assert_eq!(refusal("C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), SecretError::Prefix);
    assert_eq!(refusal("whsec_!!!"), SecretError::Base64);
    let of_length = |bytes: usize| format!("whsec_{}", BASE64.encode(vec![7; bytes]));
    assert_eq!(refusal(&of_length(23)), SecretError::Length(23));
    assert_eq!(refusal(&of_length(65)), SecretError::Length(65));
    assert!(of_length(24).parse::<SigningSecret>().is_ok() && of_length(64).parse::<SigningSecret>().is_ok());
    assert!(OTHER.trim_end_matches('=').parse::<SigningSecret>().is_ok());
    assert_eq!(OTHER.parse::<SigningSecret>().unwrap().expose(), OTHER);
    assert_eq!(SigningSecret::parse_list(&format!("{SECRET}, {OTHER}")).unwrap().len(), 2);
    assert_eq!(SigningSecret::parse_list(&format!("{SECRET},")).unwrap_err(), SecretError::Empty);

    let shared = |text: &str| text.parse::<SharedSecret>();
    assert_eq!(shared("").unwrap_err(), SecretError::Empty);
    assert_eq!(shared("with space").unwrap_err(), SecretError::SharedCharacters);
    assert_eq!(shared(&"x".repeat(1_025)).unwrap_err(), SecretError::SharedTooLong);
    let both = InboundCredentials { signing: secrets(&[SECRET]), shared: shared("hunter2").ok() };
    let shown = format!("{both:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("C2FV") && shown.contains("redacted"), "{shown}");
}

#[test]
fn any_of_several_signatures_and_secrets_will_do() {
    let timestamp = now().timestamp().to_string();
    let both = sign(&secrets(&[OTHER, SECRET]), "m", now().timestamp(), BODY);
    assert_eq!(both.split(' ').count(), 2);
    for good in [signing(&[SECRET]), signing(&[OTHER]), signing(&[OTHER, SECRET])] {
        assert_eq!(good.verify(&signed("m", &timestamp, &both), BODY, now()), Ok(()));
    }
    let one = sign(&secrets(&[SECRET]), "m", now().timestamp(), BODY);
    assert_eq!(signing(&[OTHER, SECRET]).verify(&signed("m", &timestamp, &one), BODY, now()), Ok(()));
    let among_others = format!("v1a,xyz v1,AAAA {one} v2,{one}");
    assert_eq!(signing(&[SECRET]).verify(&signed("m", &timestamp, &among_others), BODY, now()), Ok(()));
    let none = signing(&[OTHER]).verify(&signed("m", &timestamp, &one), BODY, now());
    assert_eq!(none, Err(CredentialRefusal::Mismatch));
}

#[test]
fn id_time_and_body_are_all_signed() {
    let timestamp = now().timestamp().to_string();
    let later = (now().timestamp() + 1).to_string();
    let signature = sign(&secrets(&[SECRET]), "m", now().timestamp(), BODY);
    let shop = signing(&[SECRET]);
    let mismatch = Err(CredentialRefusal::Mismatch);
    assert_eq!(shop.verify(&signed("n", &timestamp, &signature), BODY, now()), mismatch);
    assert_eq!(shop.verify(&signed("m", &later, &signature), BODY, now()), mismatch);
    assert_eq!(shop.verify(&signed("m", &timestamp, &signature), b"{}", now()), mismatch);
    assert_eq!(signing(&[]).verify(&signed("m", &timestamp, &signature), BODY, now()), mismatch);
}

#[test]
fn time_may_be_off_by_five_minutes_either_way() {
    for (off_s, expected) in
        [(-300, Ok(())), (300, Ok(())), (-301, Err(CredentialRefusal::Stale)), (301, Err(CredentialRefusal::Stale))]
    {
        let at = now().timestamp() + off_s;
        let signature = sign(&secrets(&[SECRET]), "m", at, BODY);
        let text = at.to_string();
        assert_eq!(signing(&[SECRET]).verify(&signed("m", &text, &signature), BODY, now()), expected, "{off_s}");
    }
}

#[test]
fn unreadable_headers_are_told_apart() {
    let timestamp = now().timestamp().to_string();
    let signature = sign(&secrets(&[SECRET]), "m", now().timestamp(), BODY);
    let verify = |headers: InboundHeaders<'_>| signing(&[SECRET]).verify(&headers, BODY, now());
    let malformed = Err(CredentialRefusal::Malformed);
    for bad in ["", "+1760000000", "1760000000.0", "x", "99999999999999999999"] {
        assert_eq!(verify(signed("m", bad, &signature)), malformed, "{bad}");
    }
    for bad in ["", "v1", "v1,", "v1,AAAA", "v2,AAAA", &signature[3..]] {
        assert_eq!(verify(signed("m", &timestamp, bad)), malformed, "{bad}");
    }
    assert_eq!(verify(signed("", &timestamp, &signature)), malformed);
    let missing = Err(CredentialRefusal::Missing);
    assert_eq!(verify(InboundHeaders::default()), missing);
    assert_eq!(verify(InboundHeaders { webhook_id: None, ..signed("m", &timestamp, &signature) }), missing);
    assert_eq!(verify(InboundHeaders { webhook_timestamp: None, ..signed("m", &timestamp, &signature) }), missing);
}

#[test]
fn a_signature_is_judged_alone() {
    let shop = InboundCredentials { signing: secrets(&[SECRET]), shared: "hunter2".parse().ok() };
    let shared = InboundHeaders { shared_secret: Some("hunter2"), ..Default::default() };
    assert_eq!(shop.verify(&shared, BODY, now()), Ok(()));
    let id_alone = InboundHeaders { webhook_id: Some("m"), ..shared };
    assert_eq!(shop.verify(&id_alone, BODY, now()), Ok(()));
    let timestamp = now().timestamp().to_string();
    let wrong = sign(&secrets(&[OTHER]), "m", now().timestamp(), BODY);
    let both = InboundHeaders { shared_secret: Some("hunter2"), ..signed("m", &timestamp, &wrong) };
    assert_eq!(shop.verify(&both, BODY, now()), Err(CredentialRefusal::Mismatch));
    let empty = InboundHeaders { webhook_signature: Some(""), ..both };
    assert_eq!(shop.verify(&empty, BODY, now()), Err(CredentialRefusal::Malformed));
    for wrong in ["", "hunter", "hunter22", "Hunter2"] {
        let headers = InboundHeaders { shared_secret: Some(wrong), ..Default::default() };
        assert_eq!(shop.verify(&headers, BODY, now()), Err(CredentialRefusal::Mismatch), "{wrong}");
        assert_eq!(signing(&[SECRET]).verify(&headers, BODY, now()), Err(CredentialRefusal::Mismatch), "{wrong}");
    }
}

#[test]
fn an_unknown_shop_refuses_even_its_own_decoy() {
    let decoy = SigningSecret { key: vec![0; 32] };
    let timestamp = now().timestamp().to_string();
    let signature = sign(&[decoy], "m", now().timestamp(), BODY);
    let headers = signed("m", &timestamp, &signature);
    assert_eq!(verify_unknown_shop(&headers, BODY, now()), CredentialRefusal::Mismatch);
    let shared = InboundHeaders { shared_secret: Some("decoy"), ..Default::default() };
    assert_eq!(verify_unknown_shop(&shared, BODY, now()), CredentialRefusal::Mismatch);
    assert_eq!(verify_unknown_shop(&InboundHeaders::default(), BODY, now()), CredentialRefusal::Missing);
}

proptest! {
    #[test]
    fn an_independent_library_agrees_both_ways(
        key in prop::collection::vec(any::<u8>(), 24..=64), id in "[a-zA-Z0-9_-]{1,40}", body in ".{0,200}",
    ) {
        let secret = format!("whsec_{}", BASE64.encode(&key));
        let (ours, theirs) = (secrets(&[&secret]), Webhook::new(&secret).unwrap());
        let now = Utc::now();
        let timestamp = now.timestamp().to_string();

        let signature = sign(&[secrets(&[OTHER]), ours].concat(), &id, now.timestamp(), body.as_bytes());
        prop_assert!(signature.ends_with(&theirs.sign(&id, now.timestamp(), body.as_bytes()).unwrap()));
        let mut map = reqwest::header::HeaderMap::new();
        map.insert("webhook-id", id.parse().unwrap());
        map.insert("webhook-timestamp", timestamp.parse().unwrap());
        map.insert("webhook-signature", signature.parse().unwrap());
        prop_assert!(theirs.verify(body.as_bytes(), &map).is_ok());

        let their_signature = theirs.sign(&id, now.timestamp(), body.as_bytes()).unwrap();
        let headers = signed(&id, &timestamp, &their_signature);
        prop_assert_eq!(signing(&[OTHER, &secret]).verify(&headers, body.as_bytes(), now), Ok(()));
    }

    #[test]
    fn no_headers_panic(id in ".{0,20}", timestamp in ".{0,20}", signature in "(v1,)?.{0,60}") {
        let _ = signing(&[SECRET]).verify(&signed(&id, &timestamp, &signature), BODY, now());
    }
}
