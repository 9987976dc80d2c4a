use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const FULL: &str = r#"{
    "sellerOrderId": "4711", "channelId": 2,
    "pickup": {"lat": 12.9716, "lon": 77.5946, "address": "MG Road 1\nBack door", "contactName": "Asha", "phone": "+91 1", "notes": "ring"},
    "drop": {"lat": 12.9352, "lon": 77.6245, "address": null},
    "orderCode": "T3XK", "seller": {"id": 7, "name": "Café"},
    "items": [{"sku": "S", "name": "N", "quantity": 2}, null, {}], "readyAt": "2026-01-27T15:30:00+05:30",
    "externalId": "x-1", "metadata": {"any": [1, 2.5, null, "é"]}, "unheardOf": {"a": [[[1e999]]]}
}"#;

/// The full order with one field, named by a JSON pointer, replaced.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut order: Value = serde_json::from_str(&FULL.replace("1e999", "1")).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    order.pointer_mut(parent).unwrap()[key] = value;
    order.to_string().into_bytes()
}

/// `path code` of every fault.
fn faults(body: &[u8]) -> Vec<String> {
    match parse_order(body) {
        Err(OrderError::Invalid(errors)) => errors.iter().map(|e| format!("{} {}", e.field, e.code)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_every_field() {
    let order = parse_order(FULL.as_bytes()).unwrap();
    assert_eq!(order.seller_order_id.as_str(), "4711");
    assert_eq!(order.channel_id.as_str(), "2");
    assert_eq!((order.pickup.position.lat(), order.pickup.position.lon()), (12.9716, 77.5946));
    assert_eq!(order.pickup.details.address.as_deref(), Some("MG Road 1\nBack door"));
    assert_eq!(order.drop.details, StopDetails::default());
    assert_eq!(order.order_code.as_deref(), Some("T3XK"));
    assert_eq!(order.seller, Some(Seller { id: Some("7".into()), name: Some("Café".into()) }));
    assert_eq!(order.items.unwrap().len(), 2);
    assert_eq!(order.ready_at.unwrap().to_rfc3339(), "2026-01-27T10:00:00+00:00");
    assert_eq!(order.external_id.unwrap().as_str(), "x-1");
    assert_eq!(order.metadata, Some(json!({"any": [1, 2.5, null, "é"]})));
}

#[test]
fn names_every_fault_at_once() {
    assert_eq!(
        faults(b"{}"),
        [
            "sellerOrderId required",
            "channelId required",
            "pickup.lat required",
            "pickup.lon required",
            "drop.lat required",
            "drop.lon required"
        ]
    );
    let body = br#"{"sellerOrderId": "", "channelId": 1.5, "pickup": {"lat": "12.9", "lon": 181, "notes": 1}, "drop": [],
        "items": [{"quantity": 1}, {"quantity": -1, "name": {}}, {"quantity": 1.5}, 3], "readyAt": "noon", "seller": "x"}"#;
    assert_eq!(
        faults(body),
        [
            "sellerOrderId length",
            "channelId type",
            "pickup.lat type",
            "pickup.lon range",
            "pickup.notes type",
            "drop type",
            "seller type",
            "items[3] type",
            "items[1].name type",
            "items[1].quantity range",
            "readyAt form"
        ]
    );
}

#[test]
fn null_is_absent_and_the_last_of_a_repeated_key_counts() {
    assert_eq!(faults(&with("/sellerOrderId", Value::Null)), ["sellerOrderId required"]);
    for optional in ["orderCode", "seller", "items", "readyAt", "externalId", "metadata"] {
        assert!(parse_order(&with(&format!("/{optional}"), Value::Null)).is_ok(), "{optional}");
    }
    let repeated = FULL.replacen('{', r#"{"sellerOrderId": [], "#, 1);
    assert_eq!(parse_order(repeated.as_bytes()).unwrap().seller_order_id.as_str(), "4711");
}

#[test]
fn integers_keep_their_digits_as_ids() {
    let long = "9".repeat(128);
    for (given, kept) in [("0", "0"), ("-0", "0"), ("-12", "-12"), (&long, long.as_str())] {
        let body = FULL.replace(r#""4711""#, given);
        assert_eq!(parse_order(body.as_bytes()).unwrap().seller_order_id.as_str(), kept);
    }
    for (given, code) in [("1.0", "type"), ("1e3", "type"), ("true", "type"), (&"9".repeat(129), "length")] {
        let body = FULL.replace(r#""4711""#, given);
        assert_eq!(faults(body.as_bytes()), [format!("sellerOrderId {code}")]);
    }
}

#[test]
fn numbers_beyond_a_double_are_out_of_range() {
    let body = FULL.replace("12.9716", "1e400").replace("77.6245", "-1e400");
    assert_eq!(faults(body.as_bytes()), ["pickup.lat range", "drop.lon range"]);
    let body = FULL.replace("2.5", "1e400");
    assert_eq!(faults(body.as_bytes()), ["metadata range"]);
    for (given, kept) in [("2.0", 2), ("1e2", 100)] {
        let body = FULL.replace("\"quantity\": 2", &format!("\"quantity\": {given}"));
        assert_eq!(
            parse_order(body.as_bytes()).unwrap().items.unwrap()[0].quantity,
            Some(kept.into()),
            "a whole number all the same"
        );
    }
    let body = FULL.replace("\"quantity\": 2", "\"quantity\": 99999999999999999999");
    assert_eq!(faults(body.as_bytes()), ["items[0].quantity range"]);
}

#[test]
fn refuses_what_postgresql_cannot_hold() {
    for pointer in ["/sellerOrderId", "/pickup/address", "/orderCode", "/seller/name", "/items/0/sku", "/externalId"] {
        let named = pointer[1..].replace("/0", "[0]").replace('/', ".");
        assert_eq!(faults(&with(pointer, json!("a\0b"))), [format!("{named} characters")]);
    }
    for metadata in [json!("\0"), json!({"a": [{"b\0": 1}]}), json!([["\0"]])] {
        assert_eq!(faults(&with("/metadata", metadata)), ["metadata characters"]);
    }
    let half = FULL.replace("T3XK", r"\ud800").replace("é\"]", "\\udc00\"]");
    assert_eq!(faults(half.as_bytes()), ["orderCode characters", "metadata characters"]);
}

#[test]
fn bounds_texts_lists_and_metadata() {
    let metadata_of = |bytes: usize| json!("m".repeat(bytes - 2));
    for (pointer, fits, too_long) in [
        ("/sellerOrderId", json!("é".repeat(128)), json!("é".repeat(129))),
        ("/drop/address", json!("é".repeat(1_000)), json!("é".repeat(1_001))),
        ("/orderCode", json!("c".repeat(128)), json!("c".repeat(129))),
        ("/items", json!(vec![json!({}); 500]), json!(vec![1; 501])),
        ("/metadata", metadata_of(4_096), metadata_of(4_097)),
    ] {
        assert!(parse_order(&with(pointer, fits)).is_ok(), "{pointer}");
        assert_eq!(faults(&with(pointer, too_long)), [format!("{} length", pointer[1..].replace('/', "."))]);
    }
}

#[test]
fn depth_is_bounded_where_it_is_kept() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let metadata = |levels| FULL.replace(r#"{"any": [1, 2.5, null, "é"]}"#, &nested(levels));
    assert!(parse_order(metadata(64).as_bytes()).is_ok());
    assert_eq!(faults(metadata(65).as_bytes()), ["metadata form"]);
    assert_eq!(faults(metadata(20_000).as_bytes()), ["metadata form"]);
    assert!(parse_order(FULL.replace("[[[1e999]]]", &nested(20_000)).as_bytes()).is_ok());
    assert!(matches!(parse_order("[".repeat(60_000).as_bytes()), Err(OrderError::NotJson(_))));
}

#[test]
fn tells_broken_json_from_another_shape() {
    for broken in ["", "{", "nope", "{} {}", "{\"a\":01}", "{'a':1}", "\u{feff}\u{feff}{}", "{\"a\":\"\u{1}\"}"] {
        assert!(matches!(parse_order(broken.as_bytes()), Err(OrderError::NotJson(_))), "{broken:?}");
    }
    assert!(matches!(parse_order(b"{\"a\":\"\xff\"}"), Err(OrderError::NotJson(_))));
    for shape in ["null", "[]", "\"x\"", "12", "true", "1e400"] {
        assert_eq!(faults(shape.as_bytes()), [" type"], "{shape}");
    }
}

#[test]
fn the_shop_of_an_operators_request() {
    let (shop, _) = parse_order_with_shop(&with("/shop", json!("other-shop"))).unwrap();
    assert_eq!(shop, ShopName::parse("other-shop"));
    assert_eq!(parse_order_with_shop(FULL.as_bytes()).unwrap().0, None);
    let Err(OrderError::Invalid(errors)) = parse_order_with_shop(&with("/shop", json!("Other Shop"))) else { panic!() };
    assert_eq!((errors[0].field.as_str(), errors[0].code), ("shop", "form"));
}

#[test]
fn cancellations() {
    let parsed = parse_cancellation(br#"{"sellerOrderId": 12, "channelId": "2", "reason": "out of stock"}"#).unwrap();
    assert_eq!(parsed.seller_order_id.as_str(), "12");
    assert_eq!(parsed.reason.as_deref(), Some("out of stock"));
    let Err(OrderError::Invalid(errors)) = parse_cancellation(br#"{"reason": 1}"#) else { panic!() };
    let named: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(named, ["sellerOrderId", "channelId", "reason"]);
}

#[test]
fn a_repeat_names_the_fields_that_differ_and_another_spelling_is_none() {
    let order = parse_order(FULL.as_bytes()).unwrap();
    let differs = |body: &[u8]| parse_order(body).unwrap().differs(&order.pickup, &order.drop);
    assert!(differs(FULL.replace("12.9716", "1.29716e1").replace("77.6245", "77.62450").as_bytes()).is_empty());
    assert_eq!(differs(FULL.replace("77.6245", "77.6246").as_bytes()), ["drop.lon"]);
    for field in ["pickup/address", "pickup/contactName", "drop/phone", "drop/notes"] {
        assert_eq!(differs(&with(&format!("/{field}"), json!("another"))), [field.replace('/', ".")]);
    }
    assert!(differs(&with("/orderCode", json!("another"))).is_empty(), "neither pickup nor drop");
}

#[test]
fn an_absent_text_a_null_and_an_empty_one_are_the_same_in_a_repeat() {
    let texts = [None, Some(Value::Null), Some(json!(""))];
    let orders = texts.map(|text| {
        let mut body: Value = serde_json::from_slice(&with("/drop/phone", Value::Null)).unwrap();
        body["drop"].as_object_mut().unwrap().remove("phone");
        if let Some(text) = text {
            body["drop"]["phone"] = text;
        }
        parse_order(body.to_string().as_bytes()).unwrap()
    });
    for (one, other) in [(0, 1), (0, 2), (1, 2), (2, 0)] {
        assert!(orders[one].differs(&orders[other].pickup, &orders[other].drop).is_empty(), "{one} {other}");
    }
    let full = parse_order(FULL.replace("\"drop\": {", "\"drop\": {\"phone\": \"1\", ").as_bytes()).unwrap();
    assert_eq!(orders[0].differs(&full.pickup, &full.drop), ["drop.phone"]);
}

#[test]
fn numbers_are_taken_where_shops_send_them_for_texts() {
    let body = FULL.replace("\"T3XK\"", "20260127").replace("\"S\"", "12345678901234567890");
    let body = body.replace("\"drop\": {", "\"drop\": {\"phone\": 919812345678, ");
    let order = parse_order(body.as_bytes()).unwrap();
    assert_eq!(order.order_code.as_deref(), Some("20260127"));
    assert_eq!(order.drop.details.phone.as_deref(), Some("919812345678"));
    assert_eq!(order.items.unwrap()[0].sku.as_deref(), Some("12345678901234567890"));
    for (given, taken) in
        [("9.1981e11", "919810000000"), ("20260127.0", "20260127"), ("-0.0", "0"), ("1.50", "1.50"), ("1e400", "1e400")]
    {
        let order = parse_order(FULL.replace("\"T3XK\"", given).as_bytes()).unwrap();
        assert_eq!(order.order_code.as_deref(), Some(taken), "{given}");
    }
    for (given, code) in [("true", "type"), ("[1]", "type"), (&*"9".repeat(129), "length")] {
        let body = FULL.replace("\"T3XK\"", given);
        assert_eq!(faults(body.as_bytes()), [format!("orderCode {code}")], "{given}");
    }
    assert_eq!(faults(FULL.replace("\"name\": \"N\"", "\"name\": 5").as_bytes()), ["items[0].name type"]);
}

#[test]
fn a_quantity_is_a_positive_number() {
    for (given, kept) in
        [("0.5", json!(0.5)), ("1e-3", json!(0.001)), ("5e-324", json!(5e-324)), ("1e9", json!(1_000_000_000))]
    {
        let body = FULL.replace("\"quantity\": 2", &format!("\"quantity\": {given}"));
        let quantity = parse_order(body.as_bytes()).unwrap().items.unwrap()[0].quantity.clone();
        assert_eq!(json!(quantity), kept, "{given}");
    }
    for (given, code) in [
        ("0", "range"),
        ("-0.0", "range"),
        ("-0.5", "range"),
        ("1e-400", "range"),
        ("1000000000.5", "range"),
        ("1e400", "range"),
        ("\"2\"", "type"),
        ("true", "type"),
    ] {
        let body = FULL.replace("\"quantity\": 2", &format!("\"quantity\": {given}"));
        assert_eq!(faults(body.as_bytes()), [format!("items[0].quantity {code}")], "{given}");
    }
}

#[test]
fn a_byte_order_mark_before_the_body_is_no_part_of_it() {
    assert!(parse_order(format!("\u{feff}{FULL}").as_bytes()).is_ok());
    assert!(parse_cancellation("\u{feff}{\"sellerOrderId\": 1, \"channelId\": 2}".as_bytes()).is_ok());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,140}".prop_map(Value::from),
    ];
    let key = prop_oneof![Just("lat".to_owned()), Just("lon".to_owned()), Just("id".to_owned()), ".{0,5}"];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_order_with_shop(&body);
        let _ = parse_cancellation(&body);
    }

    #[test]
    fn a_broken_order_never_panics_and_refusals_name_fields(
        at in 0..FULL.len(), byte in any::<u8>(),
    ) {
        let mut body = FULL.as_bytes().to_vec();
        body[at] = byte;
        if let Err(OrderError::Invalid(errors)) = parse_order(&body) {
            prop_assert!(!errors.is_empty());
        }
    }

    #[test]
    fn any_value_in_any_field_is_taken_or_named(
        field in prop::sample::select(vec![
            "/sellerOrderId", "/channelId", "/pickup", "/pickup/lat", "/drop/phone", "/orderCode", "/seller", "/items",
            "/items/0", "/readyAt", "/externalId", "/metadata", "/shop",
        ]),
        value in any_json(),
    ) {
        let body = match field {
            "/items/0" => with("/items", Value::Array(vec![value])),
            field => with(field, value),
        };
        if let Err(error) = parse_order_with_shop(&body) {
            let OrderError::Invalid(errors) = error else { panic!("{error}") };
            let root = field[1..].split('/').next().unwrap();
            prop_assert!(!errors.is_empty() && errors.iter().all(|e| e.field.starts_with(root)), "{errors:?}");
        }
    }
}
