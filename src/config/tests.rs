//! Tests of precedence, of reporting all problems at once, of secrets, and of every invalid combination.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::domain::plausibility::FixRules;

const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
const PASSWORD: &str = "hunter2";

/// The settings that `serve` requires, and then `more` as if from the environment.
fn sources(more: &[(&str, &str)]) -> Sources {
    let mut sources = Sources::new();
    let least = [
        ("DATABASE_URL", "postgres://app:hunter2@db/tracker"),
        ("REDIS_URL", "redis://app:hunter2@cache:6379/0"),
        ("VENDURE_WEBHOOK_SECRET", SIGNING),
    ];
    for (name, value) in least {
        sources.set(Origin::Preset, name, value);
    }
    for (name, value) in more {
        sources.set(Origin::Environment, name, value);
    }
    sources
}

fn load(more: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::load(&sources(more))
}

/// Asserts that these values are refused with one sentence that holds all of `words`.
fn refused(more: &[(&str, &str)], words: &[&str]) {
    let errors = load(more).expect_err(&format!("{more:?} should be refused"));
    assert_eq!(errors.sentences().len(), 1, "{errors}");
    for word in words {
        assert!(errors.to_string().contains(word), "{word:?} is not in: {errors}");
    }
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = load(&[]).unwrap();
    assert_eq!(config.database.max_connections, 16);
    assert_eq!(config.redis.cluster, RedisCluster::Auto);
    assert_eq!(config.redis.key_prefix, "");
    assert_eq!(config.listen_addr.to_string(), "127.0.0.1:8080");
    assert_eq!(config.metrics_addr.to_string(), "127.0.0.1:9464");
    assert_eq!(config.public_url("0.0.0.0:81".parse().unwrap()).as_str(), "http://127.0.0.1:81/");
    assert_eq!(config.public_url("[::1]:81".parse().unwrap()).as_str(), "http://[::1]:81/");
    assert_eq!(config.events.retry_schedule.len(), 10);
    assert_eq!(config.events.retry_schedule[9], Duration::from_secs(24 * 3600));
    assert_eq!(config.limits.orders_per_second, 1000);
    assert_eq!(config.limits.frames_per_second, 20);
    assert_eq!(config.limits.connections_per_address, 20_000);
    assert_eq!(config.limits.auth_failures_per_minute, 100);
    assert_eq!(config.heartbeat.interval, Duration::from_secs(5));
    assert_eq!(config.heartbeat.ttl, Duration::from_secs(30));
    assert_eq!(config.heartbeat.offline_after, Duration::from_secs(900));
    assert_eq!(config.heartbeat.position_max_age, Duration::from_secs(120));
    assert_eq!(config.heartbeat.position_flush, Duration::from_secs(10));
    assert_eq!(config.assignment.wait, Duration::from_millis(250));
    assert!((config.assignment.search_max_radius_m - 10_000.0).abs() < f64::EPSILON);
    assert_eq!(config.assignment.pending_sweep, Duration::from_secs(1));
    assert_eq!(config.assignment.region_resolution, h3o::Resolution::Five);
    assert_eq!(config.shutdown.delay, Duration::from_secs(5));
    assert_eq!(config.shutdown.grace, Duration::from_secs(20));
    assert_eq!(config.log, LogConfig { format: LogFormat::Auto, filter: "info".to_owned() });
    assert!(!config.migrate_on_start);
    assert_ne!(config.node_id, load(&[]).unwrap().node_id, "two processes of one host have two names");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let name = "DATABASE_MAX_CONNECTIONS";
    let connections = |sources: &Sources| Config::load(sources).unwrap().database.max_connections;
    let file = sources(&[]).with_file_text(Path::new("t.toml"), "database_max_connections = 3");
    assert_eq!(connections(&file), 3);
    let environment = file.clone().with_environment(|asked| (asked == name).then(|| "4".into()));
    assert_eq!(connections(&environment), 4);
    let mut flag = environment.clone();
    flag.set(Origin::Flag, name, "5");
    assert_eq!(connections(&flag), 5);
}

#[test]
fn an_empty_value_counts_as_not_given() {
    let file =
        sources(&[("DATABASE_MAX_CONNECTIONS", " ")]).with_file_text(Path::new("t.toml"), "redis_key_prefix = ''");
    let config = Config::load(&file).unwrap();
    assert_eq!((config.database.max_connections, config.redis.key_prefix.as_str()), (16, ""));
}

#[test]
fn all_problems_are_told_at_once() {
    let file = Sources::new().with_file_text(
        Path::new("t.toml"),
        "database_urll = 'x'\nlisten_addr = 'here'\nheartbeat_ttl_ms = 10\nlog_format = 'xml'\nregion_resolution = 11",
    );
    let errors = Config::load(&file).unwrap_err();
    let told = errors.to_string();
    for word in [
        "database_urll",
        "DATABASE_URL is not set",
        "REDIS_URL is not set",
        "LISTEN_ADDR (file) must be an address and a port",
        "HEARTBEAT_TTL_MS (file)",
        "LOG_FORMAT (file)",
        "REGION_RESOLUTION (file)",
        "no webhook secret",
    ] {
        assert!(told.contains(word), "{word:?} is not in: {told}");
    }
    assert_eq!(errors.sentences().len(), 8, "{told}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_beside_the_others() {
    let sources = Sources::new().with_file(Path::new("/nowhere/driver-tracker.toml"));
    let told = Config::load(&sources).unwrap_err().to_string();
    assert!(told.contains("/nowhere/driver-tracker.toml cannot be read") && told.contains("REDIS_URL is not set"));
}

#[test]
fn maintenance_needs_the_database_alone() {
    let mut sources = Sources::new();
    assert!(MaintenanceConfig::load(&sources).is_err());
    sources.set(Origin::Flag, "DATABASE_URL", "postgres://db/tracker");
    sources.set(Origin::Flag, "REDIS_URL", "nonsense");
    assert_eq!(MaintenanceConfig::load(&sources).unwrap().database.max_connections, 16);
}

#[test]
fn secrets_stay_out_of_debug_and_of_the_report() {
    let given = sources(&[
        ("VENDURE_WEBHOOK_SHARED_SECRET", PASSWORD),
        ("VENDURE_EVENTS_URL", "https://shop.example/events?token=hunter2"),
        ("VENDURE_EVENTS_SECRET", SIGNING),
        ("VENDURE_EVENTS_SHARED_SECRET", PASSWORD),
    ]);
    let config = Config::load(&given).unwrap();
    let report = Report::new(&given).to_string();
    for shown in [format!("{config:?} {config:#?}"), format!("{given:?}"), report.clone()] {
        assert!(!shown.contains(PASSWORD) && !shown.contains(&SIGNING[6..]), "{shown}");
    }
    assert!(report.contains("postgres://[redacted]@db/tracker"), "{report}");
    let secret = report.lines().find(|line| line.contains("VENDURE_EVENTS_SECRET")).unwrap();
    assert!(secret.contains("environment") && secret.contains("[set]"), "{secret}");
    assert!(Report::new(&Sources::new()).to_string().contains("[not set]"));
}

#[test]
fn secrets_stay_out_of_errors() {
    for setting in SETTINGS.iter().filter(|setting| setting.is_secret()) {
        for bad in ["hunter2\u{7}", "hunter2://hunter2@x,hunter2", "whsec_hunter2", "http://hunter2:hunter2@ho st/"] {
            let given = sources(&[(setting.name, bad)]);
            let told = Config::load(&given).err().map(|errors| format!("{errors} {errors:?}")).unwrap_or_default();
            assert!(!told.contains(PASSWORD), "{told}");
            assert!(!Report::new(&given).to_string().contains("hunter2@"), "{setting}");
        }
    }
}

#[test]
fn values_that_are_plain_are_repeated_in_the_sentence() {
    refused(
        &[("DATABASE_MAX_CONNECTIONS", "many")],
        &["DATABASE_MAX_CONNECTIONS (environment)", "2 to 1000", "\"many\""],
    );
}

#[test]
fn heartbeats_must_fit_each_other() {
    refused(&[("POSITION_FLUSH_MS", "30000")], &["POSITION_FLUSH_MS is 30000", "below 30000"]);
    refused(&[("HEARTBEAT_TTL_MS", "14999")], &["HEARTBEAT_TTL_MS is 14999", "at least 15000"]);
    refused(&[("OFFLINE_AFTER_MS", "29999")], &["OFFLINE_AFTER_MS is 29999", "at least 30000"]);
    refused(&[("HEARTBEAT_TTL_MS", "3600001")], &["300 to 3600000"]);
    refused(&[("HEARTBEAT_INTERVAL_BUSY_MS", "5001")], &["HEARTBEAT_INTERVAL_BUSY_MS is 5001", "at most 5000"]);
    refused(&[("HEARTBEAT_INTERVAL_IDLE_MS", "4999")], &["HEARTBEAT_INTERVAL_IDLE_MS is 4999", "at least 5000"]);
    refused(&[("HEARTBEAT_INTERVAL_IDLE_MS", "10001")], &["HEARTBEAT_INTERVAL_IDLE_MS is 10001", "at most 10000"]);
    let intervals = |given: &[(&str, &str)]| {
        let heartbeat = load(given).unwrap().heartbeat;
        [heartbeat.interval_busy, heartbeat.interval, heartbeat.interval_idle].map(|every| every.as_millis())
    };
    assert_eq!(intervals(&[]), [2500, 5000, 10_000]);
    assert_eq!(intervals(&[("HEARTBEAT_TTL_MS", "90000")]), [2500, 5000, 15_000]);
    assert_eq!(intervals(&[("HEARTBEAT_TTL_MS", "15000")]), [2500, 5000, 5000], "no slower than the TTL allows");
    assert_eq!(intervals(&[("HEARTBEAT_INTERVAL_MS", "100")]), [100, 100, 300]);
    assert!(
        load(&[("HEARTBEAT_TTL_MS", "15000"), ("OFFLINE_AFTER_MS", "15000"), ("POSITION_FLUSH_MS", "14999")]).is_ok()
    );
}

#[test]
fn each_refusal_of_a_fix_has_its_setting_and_can_be_off() {
    let rules = |given: &[(&str, &str)]| load(given).unwrap().heartbeat.fix_rules;
    assert_eq!(rules(&[]), FixRules::default());
    let off = [("FIX_MAX_FUTURE_MS", "0"), ("FIX_MAX_INACCURACY_M", "0"), ("FIX_REFUSE_ZERO", "false")];
    assert_eq!(
        rules(&off),
        FixRules { max_future: None, max_inaccuracy_m: None, refuse_zero: false, ..FixRules::default() }
    );
    let strict = rules(&[("FIX_MAX_FUTURE_MS", "1500"), ("FIX_MAX_INACCURACY_M", "25")]);
    assert_eq!(strict.max_future, Some(chrono::TimeDelta::milliseconds(1500)));
    assert_eq!(strict.max_inaccuracy_m, Some(25.0));
    refused(&[("FIX_MAX_INACCURACY_M", "-1")], &["FIX_MAX_INACCURACY_M", "0 to 100000"]);
}

#[test]
fn orders_need_a_secret() {
    let mut without = Sources::new();
    without.set(Origin::Flag, "DATABASE_URL", "postgres://db/tracker");
    without.set(Origin::Flag, "REDIS_URL", "redis://cache");
    let told = Config::load(&without).unwrap_err();
    assert!(told.sentences().len() == 1 && told.to_string().contains("VENDURE_WEBHOOK_SHARED_SECRET"), "{told}");
    without.set(Origin::Flag, "VENDURE_WEBHOOK_SHARED_SECRET", PASSWORD);
    assert!(Config::load(&without).is_ok());
    refused(&[("VENDURE_WEBHOOK_SECRET", "whsec_c2hvcnQ=")], &["VENDURE_WEBHOOK_SECRET", "number 1", "5 bytes"]);
    let rotating = format!("{SIGNING}, {SIGNING}");
    assert_eq!(load(&[("VENDURE_WEBHOOK_SECRET", &rotating)]).unwrap().webhook.secrets.len(), 2);
}

#[test]
fn events_need_a_secret_and_a_place_that_is_allowed() {
    let url = ("VENDURE_EVENTS_URL", "https://shop.example/events");
    let secret = ("VENDURE_EVENTS_SECRET", SIGNING);
    refused(&[url], &["VENDURE_EVENTS_URL is set without a secret", "VENDURE_EVENTS_SECRET"]);
    assert!(load(&[url, secret]).is_ok());
    assert!(load(&[url, ("VENDURE_EVENTS_SHARED_SECRET", PASSWORD)]).is_ok());
    assert!(load(&[secret]).unwrap().events.url.is_none());
    for bad in ["http://127.0.0.1:9/", "http://0x7f.1/", "http://[::ffff:10.0.0.1]/", "http://169.254.169.254/"] {
        refused(&[("VENDURE_EVENTS_URL", bad), secret], &["EVENTS_ALLOWED_NETWORKS"]);
    }
    assert!(
        load(&[("VENDURE_EVENTS_URL", "http://127.0.0.1:9/"), secret, ("EVENTS_ALLOWED_NETWORKS", "127.0.0.0/8")])
            .is_ok()
    );
    assert!(
        load(&[("VENDURE_EVENTS_URL", "http://localhost:9/"), secret]).is_ok(),
        "a name is judged when it is resolved"
    );
    refused(&[("VENDURE_EVENTS_URL", "https://user:pw@shop.example/"), secret], &["user or password"]);
    refused(&[("VENDURE_EVENTS_URL", "ftp://shop.example/"), secret], &["http:// or https://"]);
    refused(&[("EVENTS_RETRY_SCHEDULE", "0s,soon")], &["number 2", "30s"]);
}

#[test]
fn addresses_must_be_of_their_kind() {
    refused(&[("DATABASE_URL", "mysql://db/x")], &["DATABASE_URL", "postgres"]);
    refused(&[("DATABASE_URL", "postgres://db1,,db2/x")], &["DATABASE_URL", "empty entry"]);
    refused(&[("DATABASE_URL", "postgres://db/x?target_session_attrs=any")], &["DATABASE_URL", "read-write"]);
    assert!(load(&[("DATABASE_URL", "postgres://u:p@db1:1,db2:2/x?target_session_attrs=read-write")]).is_ok());
    assert!(load(&[("DATABASE_URL", "postgresql:///x?host=/run/postgresql")]).is_ok());
    refused(&[("REDIS_URL", "http://cache/")], &["REDIS_URL", "redis or rediss"]);
    refused(&[("REDIS_URL", "redis://a,redis://b")], &["REDIS_URL", "Cluster"]);
    refused(&[("REDIS_CLUSTER", "on")], &["not supported yet"]);
    refused(&[("REDIS_KEY_PREFIX", "{tag}")], &["REDIS_KEY_PREFIX"]);
    refused(&[("METRICS_ADDR", "127.0.0.1:8080")], &["both want port 8080"]);
    refused(&[("METRICS_ADDR", "0.0.0.0:8080")], &["both want port 8080"]);
    assert!(load(&[("LISTEN_ADDR", "127.0.0.1:0"), ("METRICS_ADDR", "127.0.0.1:0")]).is_ok());
    refused(&[("PUBLIC_URL", "track.example.com")], &["PUBLIC_URL"]);
    refused(&[("ALLOWED_ORIGINS", "https://a.example,*")], &["number 2"]);
    refused(&[("TRUSTED_PROXIES", "10.0.0.0/99")], &["TRUSTED_PROXIES"]);
    refused(&[("NODE_ID", "two words")], &["NODE_ID"]);
    refused(&[("SHUTDOWN_GRACE_MS", "99")], &["100 to 600000"]);
    refused(&[("RUST_LOG", "info,=,")], &["RUST_LOG"]);
}
