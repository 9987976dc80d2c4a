use super::super::recorded::Trace;
use super::*;
use crate::domain::position::Position;

const ZERO: Duration = Duration::ZERO;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(lat: f64, lon: f64) -> Position {
    Position::new(lat, lon).unwrap()
}

fn agent(speed: f64) -> (Agent, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::new(vec!["d".to_owned()]));
    (Agent::new(0, Mover::roaming(at(12.97, 77.59), 1.0, speed, 1, None), ledger.clone()), ledger)
}

fn welcome(on_duty: bool, deliveries: &Value) -> String {
    json!({"type": "welcome", "sessionId": "s", "driver": {"id": "d", "onDuty": on_duty, "capacity": 1},
        "deliveries": deliveries, "offers": [], "heartbeatIntervalMs": 2000, "ttlMs": 30000})
    .to_string()
}

fn delivery(assignment: &str, status: &str) -> Value {
    json!({"id": "x", "assignmentId": assignment, "status": status, "sellerOrderId": "o-1",
        "pickup": {"lat": 12.971, "lon": 77.591}, "drop": {"lat": 12.975, "lon": 77.595}})
}

fn assignment(message: &str) -> String {
    json!({"type": "assignment", "messageId": message, "delivery": delivery("a", "ASSIGNED")}).to_string()
}

/// Takes the frames that the agent sends.
fn sent_frames(agent: &mut Agent) -> Vec<Value> {
    agent.take_outgoing().iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

fn types(frames: &[Value]) -> Vec<&str> {
    frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect()
}

fn ok(frame: &Value) -> String {
    json!({"type": "ok", "ref": frame["ref"], "status": frame["status"]}).to_string()
}

/// Advances time until the agent sends a frame of this type.
fn wait_for(agent: &mut Agent, now: &mut Duration, kind: &str) -> Value {
    for _ in 0..10_000 {
        if let Some(frame) = sent_frames(agent).into_iter().find(|frame| frame["type"] == kind) {
            return frame;
        }
        *now = agent.deadline(*now).max(*now);
        agent.on_time(*now);
    }
    panic!("the agent never sent {kind}");
}

#[test]
fn a_driver_goes_on_duty_delivers_an_order_and_leaves() {
    let (mut agent, ledger) = agent(1.0);
    agent.on_time(ZERO);
    assert!(sent_frames(&mut agent).is_empty(), "the agent sends nothing before welcome");
    agent.on_text(ZERO, &welcome(false, &json!([])));
    let frames = sent_frames(&mut agent);
    assert_eq!(types(&frames), ["heartbeat", "status"], "the heartbeat with the position comes before the status");
    assert!(frames[0]["lat"].is_number() && frames[1]["status"] == "AVAILABLE");
    agent.on_text(
        ZERO,
        &json!({"type": "ok", "ref": frames[1]["ref"], "status": "AVAILABLE", "onDuty": true}).to_string(),
    );
    assert_eq!(agent.deadline(ZERO), s(2), "the interval is the one of welcome");
    agent.on_text(ZERO, r#"{"type":"config","heartbeatIntervalMs":1000,"ttlMs":9000}"#);
    assert_eq!(agent.deadline(ZERO), s(1));

    assert!(ledger.order_posted("o-1", ZERO, at(12.971, 77.591)));
    agent.on_text(s(1), &assignment("m-1"));
    let frames = sent_frames(&mut agent);
    assert!(types(&frames).contains(&"ack"), "{frames:?}");
    agent.on_text(s(1), &assignment("m-1"));
    assert_eq!(
        types(&sent_frames(&mut agent)),
        ["ack"],
        "a repeated command is acknowledged again and not carried out twice"
    );

    let mut now = s(1);
    for expected in ["PICKED_UP", "IN_TRANSIT", "DELIVERED"] {
        let update = wait_for(&mut agent, &mut now, "delivery.update");
        assert_eq!(update["status"], expected);
        assert_eq!((&update["deliveryId"], &update["assignmentId"]), (&json!("x"), &json!("a")));
        agent.on_text(now, &ok(&update));
    }
    assert!(now > s(60), "two drives and two stops take more than a minute: {now:?}");
    let progress = ledger.tick(now, false);
    assert_eq!((progress.orders_assigned, progress.orders_delivered, progress.errors), (1, 1, 0));

    agent.leave(now);
    let status = wait_for(&mut agent, &mut now, "status");
    assert_eq!(status["status"], "OFFLINE");
    assert!(!agent.is_done(now));
    agent.on_text(now, &ok(&status));
    assert!(agent.is_done(now));
}

#[test]
fn errors_are_handled_by_the_rules_of_the_protocol() {
    let (mut agent, ledger) = agent(1000.0);
    agent.on_text(ZERO, &welcome(true, &json!([delivery("a", "PICKED_UP")])));
    let mut now = ZERO;
    let update = wait_for(&mut agent, &mut now, "delivery.update");
    assert_eq!(update["status"], "IN_TRANSIT", "the agent continues at the status of the delivery");
    let unavailable = json!({"type": "error", "ref": update["ref"], "code": "unavailable", "message": "", "retryable": true,
        "retryAfterMs": 3000});
    agent.on_text(now, &unavailable.to_string());
    let refused_at = now;
    let again = wait_for(&mut agent, &mut now, "delivery.update");
    assert_eq!((&again["status"], now - refused_at), (&json!("IN_TRANSIT"), s(3)));
    let closed =
        json!({"type": "error", "ref": again["ref"], "code": "assignment_closed", "message": "", "retryable": false});
    agent.on_text(now, &closed.to_string());
    assert!(agent.jobs.is_empty());

    agent.on_text(now, r#"{"type":"error","seq":1,"code":"fix_too_fast","message":"","retryable":false}"#);
    agent.on_text(now, "not json");
    agent.on_text(now, r#"{"type":"fanfare"}"#);
    let report = {
        ledger.tick(now, true);
        ledger.report(1, 1.0)
    };
    assert_eq!(report.fixes_refused["fix_too_fast"], 1);
    assert_eq!(
        report.errors.keys().collect::<Vec<_>>(),
        ["frame: assignment_closed", "frame: unavailable", "frame: unreadable"]
    );
}

#[test]
fn welcome_replaces_an_answer_that_was_lost_with_the_socket() {
    let (mut agent, ledger) = agent(1000.0);
    assert!(ledger.order_posted("o-1", ZERO, at(12.971, 77.591)));
    agent.on_text(ZERO, &welcome(true, &json!([delivery("a", "IN_TRANSIT")])));
    let mut now = ZERO;
    assert_eq!(wait_for(&mut agent, &mut now, "delivery.update")["status"], "DELIVERED");
    agent.session_lost(now);
    agent.on_text(now, &welcome(true, &json!([delivery("a", "IN_TRANSIT")])));
    assert_eq!(
        wait_for(&mut agent, &mut now, "delivery.update")["status"],
        "DELIVERED",
        "the service had not recorded it"
    );
    agent.session_lost(now);
    agent.on_text(now, &welcome(true, &json!([])));
    assert_eq!(ledger.tick(now, false).orders_delivered, 1, "the service had recorded it");
}

#[test]
fn commands_of_operators_are_carried_out() {
    let (mut agent, _) = agent(1.0);
    agent.on_text(ZERO, &welcome(true, &json!([])));
    agent.on_text(ZERO, &assignment("m-1"));
    let cancelled = |assignment| {
        json!({"type": "assignment.cancelled", "messageId": "m-2", "deliveryId": "x", "assignmentId": assignment,
            "reason": "…"})
        .to_string()
    };
    agent.on_text(ZERO, &cancelled("an older one"));
    assert_eq!(agent.jobs.len(), 1);
    agent.on_text(
        ZERO,
        &json!({"type": "delivery", "messageId": "m-3", "delivery": delivery("a", "PICKED_UP")}).to_string(),
    );
    assert_eq!(agent.jobs[0].delivery.status, Stage::PickedUp);
    agent.on_text(ZERO, &cancelled("a"));
    assert!(agent.jobs.is_empty());
    sent_frames(&mut agent);
    agent.on_text(ZERO, r#"{"type":"status","status":"OFFLINE","onDuty":false,"reason":"operator"}"#);
    agent.on_time(s(1));
    assert!(!types(&sent_frames(&mut agent)).contains(&"status"), "the agent accepts the duty that an operator sets");
    agent.on_text(s(1), r#"{"type":"reconnect","afterMs":1500}"#);
    assert_eq!(agent.take_reconnect_after(), Some(Duration::from_millis(1500)));
}

#[test]
fn a_driver_with_a_recording_goes_off_duty_in_breaks_and_at_its_end() {
    let ledger = Arc::new(Ledger::new(vec!["d".to_owned()]));
    let fixes = vec![
        (0.0, at(12.970, 77.590)),
        (100.0, at(12.971, 77.590)),
        (1000.0, at(12.972, 77.590)),
        (1100.0, at(12.973, 77.590)),
    ];
    let mut agent = Agent::new(0, Mover::traced(Trace::new("t", fixes).unwrap(), 10.0, 1), ledger);
    agent.on_text(ZERO, &welcome(false, &json!([])));
    let mut now = ZERO;
    let mut changed_at_s = Vec::new();
    for expected in ["AVAILABLE", "OFFLINE", "AVAILABLE", "OFFLINE"] {
        let status = wait_for(&mut agent, &mut now, "status");
        assert_eq!(status["status"], expected);
        changed_at_s.push(now.as_secs());
        agent.on_text(now, &ok(&status));
    }
    assert_eq!(changed_at_s, [0, 10, 100, 110]);
    assert!(agent.is_done(now));
}

#[test]
fn a_driver_with_a_recording_skips_in_transit() {
    let ledger = Arc::new(Ledger::new(vec!["d".to_owned()]));
    let fixes = (0..1000).map(|i| (f64::from(i) * 100.0, at(12.97, 77.59))).collect();
    let mut agent = Agent::new(0, Mover::traced(Trace::new("t", fixes).unwrap(), 10.0, 1), ledger);
    agent.on_text(ZERO, &welcome(true, &json!([])));
    agent.on_text(ZERO, &assignment("m-1"));
    let mut now = ZERO;
    for expected in ["PICKED_UP", "DELIVERED"] {
        let update = wait_for(&mut agent, &mut now, "delivery.update");
        assert_eq!(update["status"], expected);
        agent.on_text(now, &ok(&update));
    }
    assert!(agent.jobs.is_empty() && now > s(8), "{now:?}");
}
