//! Tests of failures at startup: an invalid configuration exits with 2 and a message, a failure that may be temporary
//! with 1.

use super::support::node::Env;
use super::support::plan::WEBHOOK_SECRET;
use super::support::*;
use driver_tracker::dev::servers::PrivateRedis;

/// A setting and its value; `None` removes the setting.
type Change<'a> = (&'a str, Option<&'a str>);

fn env(changes: &[Change<'_>]) -> Env {
    let mut env: Vec<(String, String)> = [
        ("DATABASE_URL", "postgres://nobody:sesame-of-the-database@127.0.0.1:1/none"),
        ("REDIS_URL", "redis://127.0.0.1:1"),
        ("VENDURE_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ("LISTEN_ADDR", "127.0.0.1:0"),
        ("METRICS_ADDR", "127.0.0.1:0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    for (name, value) in changes {
        env.retain(|(existing, _)| existing != name);
        env.extend(value.map(|value| ((*name).to_owned(), value.to_owned())));
    }
    env
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_configuration_is_refused_with_a_message_that_names_the_setting() {
    let own_network =
        [("VENDURE_EVENTS_URL", Some("http://127.0.0.1:9/x")), ("VENDURE_EVENTS_SECRET", Some(WEBHOOK_SECRET))];
    let cases: Vec<(Vec<Change<'_>>, &str)> = vec![
        (vec![("DATABASE_URL", None)], "DATABASE_URL"),
        (vec![("DATABASE_URL", Some("mysql://x"))], "DATABASE_URL"),
        (vec![("REDIS_URL", None)], "REDIS_URL"),
        (vec![("REDIS_URL", Some("http://x"))], "REDIS_URL"),
        (vec![("VENDURE_WEBHOOK_SECRET", None)], "VENDURE_WEBHOOK_SECRET"),
        (vec![("VENDURE_WEBHOOK_SECRET", Some("not-a-secret"))], "VENDURE_WEBHOOK_SECRET"),
        (vec![("VENDURE_WEBHOOK_SECRET", Some("whsec_c2hvcnQ="))], "VENDURE_WEBHOOK_SECRET"),
        (vec![("VENDURE_EVENTS_URL", Some("https://shop.example.com/x"))], "VENDURE_EVENTS_SECRET"),
        (own_network.to_vec(), "EVENTS_ALLOWED_NETWORKS"),
        (vec![("EVENTS_RETRY_SCHEDULE", Some("soon"))], "EVENTS_RETRY_SCHEDULE"),
        (vec![("HEARTBEAT_TTL_MS", Some("9000")), ("POSITION_FLUSH_MS", Some("9000"))], "POSITION_FLUSH_MS"),
        (vec![("HEARTBEAT_TTL_MS", Some("5000"))], "HEARTBEAT_TTL_MS"),
        (vec![("LISTEN_ADDR", Some("somewhere"))], "LISTEN_ADDR"),
        (vec![("RUST_LOG", Some("driver_tracker=shout"))], "RUST_LOG"),
    ];
    let runs = cases.iter().map(|(changes, names)| async move {
        let out = node::run(&["serve"], &env(changes)).await;
        let output_text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{changes:?}: {output_text}");
        assert!(output_text.contains(names), "{changes:?}: the message names {names}: {output_text}");
        assert!(!output_text.contains("sesame-of-the-database"), "no secret is printed: {output_text}");
    });
    for run in runs {
        run.await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_refuses_a_database_without_the_schema_unless_it_may_migrate() {
    let url = servers::empty_database().await;
    let redis = servers::shared_redis().url();
    let prefix = format!("refusals{}-{}:", std::process::id(), servers::next_number());
    let changes = [
        ("DATABASE_URL", Some(url.as_str())),
        ("REDIS_URL", Some(redis.as_str())),
        ("REDIS_KEY_PREFIX", Some(prefix.as_str())),
        ("LOG_FORMAT", Some("json")),
    ];
    let out = node::run(&["serve"], &env(&changes)).await;
    let output_text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert_eq!(out.status.code(), Some(2), "{output_text}");
    assert!(output_text.contains("migrate"), "the message says what to do: {output_text}");

    let mut willing = env(&changes);
    willing.push(("MIGRATE_ON_START".to_owned(), "true".to_owned()));
    let mut node = Node::start(&willing).await;
    node.wait_for_health("ok").await;
    node.kill9().await;
    // A second migration changes nothing.
    let again = node::run(&["migrate"], &env(&changes)).await;
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    servers::drop_database(&url).await;
}

/// Returns the URL of the same database for another user.
fn for_user(url: &str, user: &str, password: &str) -> String {
    let mut url = url::Url::parse(url).expect("the URL is valid");
    url.set_username(user).expect("the URL accepts a user");
    url.set_password(Some(password)).expect("the URL accepts a password");
    url.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_a_right_is_refused_with_a_message_that_has_the_statement_to_run() {
    let url = servers::empty_database().await;
    let user = format!("few_rights_{}_{}", std::process::id(), servers::next_number());
    let mut conn = servers::connect(&url).await;
    let create_user = format!("CREATE ROLE {user} LOGIN PASSWORD 'sesame-of-the-user'");
    servers::execute(&mut conn, create_user).await;
    servers::execute(&mut conn, "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned()).await;
    let as_user = for_user(&url, &user, "sesame-of-the-user");
    let wrong_password = for_user(&url, &user, "not-the-password");
    let no_database = format!("{}_of_nobody", as_user);
    let run = async |command: &str, url: &str, needles: &[&str]| {
        let out = node::run(&[command], &env(&[("DATABASE_URL", Some(url))])).await;
        let output_text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "{command} {url}");
        for needle in needles {
            assert!(output_text.contains(needle), "{command}: the message contains {needle}: {output_text}");
        }
        assert!(
            !output_text.contains("sesame-of-the-user") && !output_text.contains("not-the-password"),
            "{output_text}"
        );
    };
    let name = url::Url::parse(&url).expect("a URL").path()[1..].to_owned();
    servers::execute(&mut conn, format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")).await;
    for command in ["migrate", "serve"] {
        run(command, &as_user, &["lacks the right CONNECT on the database", &name, "GRANT CONNECT ON DATABASE"]).await;
    }
    servers::execute(&mut conn, format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC")).await;
    let grant = format!("GRANT CREATE ON SCHEMA public TO {user}");
    run("migrate", &as_user, &["lacks the right CREATE on the schema public", &grant]).await;
    for command in ["migrate", "serve"] {
        run(command, &wrong_password, &["refused the user or the password in DATABASE_URL", &user]).await;
        run(command, &no_database, &["does not exist", "CREATE DATABASE"]).await;
    }
    // The statement in the message is sufficient.
    servers::execute(&mut conn, grant.clone()).await;
    let migrated = node::run(&["migrate"], &env(&[("DATABASE_URL", Some(&as_user))])).await;
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));

    // Another user neither owns the tables nor has rights on them.
    let other = format!("{user}_b");
    servers::execute(&mut conn, format!("CREATE ROLE {other} LOGIN PASSWORD 'sesame-of-the-user'")).await;
    let as_other = for_user(&url, &other, "sesame-of-the-user");
    let grant_tables = format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {other}");
    run("serve", &as_other, &["may not read the table", "in the schema public", &grant_tables]).await;
    servers::execute(&mut conn, format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {other}")).await;
    run("serve", &as_other, &["lacks a right", "permission denied", "GRANT SELECT"]).await;
    servers::execute(&mut conn, format!("GRANT CREATE ON SCHEMA public TO {other}")).await;
    // A migration that changes a table needs the owner of the table.
    let unapply = "DELETE FROM _sqlx_migrations WHERE version >= 8; DROP INDEX outbox_of_shop".to_owned();
    servers::execute(&mut conn, unapply).await;
    servers::execute(&mut conn, format!("GRANT INSERT, UPDATE ON _sqlx_migrations TO {other}")).await;
    run("migrate", &as_other, &["lacks a right", "migrate as the owner of the tables"]).await;
    drop(conn);
    servers::drop_database(&url).await;
    let mut conn = servers::connect(&servers::shared_postgres().url("postgres")).await;
    servers::execute(&mut conn, format!("DROP ROLE {other}; DROP ROLE {user}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_concurrent_migrations_succeed_and_an_invalid_index_is_rebuilt() {
    let url = servers::empty_database().await;
    let changes = [("DATABASE_URL", Some(url.as_str()))];
    let environment = env(&changes);
    for done in join_all((0..2).map(|_| node::run(&["migrate"], &environment))).await {
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let mut conn = servers::connect(&url).await;
    // The state that an interrupted index build leaves.
    let broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'outbox_due_of_shop'::regclass";
    servers::execute(&mut conn, broken.to_owned()).await;
    assert_eq!(node::run(&["migrate"], &environment).await.status.code(), Some(0));
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    let invalid: i64 = sqlx::query_scalar(invalid).fetch_one(&mut conn).await.unwrap();
    assert_eq!(invalid, 0);
    drop(conn);
    servers::drop_database(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_is_refused_only_when_it_requires_a_newer_program() {
    let world = World::start().await;
    let mut conn = servers::connect(&world.database_url).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99990101000000, 'from the future', true, '\\x00', 0)";
    servers::execute(&mut conn, newer.to_owned()).await;
    let mut beside = world.start_node().await;
    beside.wait_for_health("ok").await;
    beside.kill9().await;
    let minimum = "UPDATE database_identity SET min_program_schema = 99990101000000";
    servers::execute(&mut conn, minimum.to_owned()).await;
    let out = node::run(&["serve"], &world.env_with(&[])).await;
    assert_eq!(out.status.code(), Some(2));
    let output_text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(output_text.contains("newer"), "the message says why: {output_text}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_config_prints_the_effective_settings_without_secrets() {
    let good = node::run(&["check-config"], &env(&[])).await;
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stderr));
    let output_text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        !output_text.contains("sesame-of-the-database")
            && !output_text.contains(WEBHOOK_SECRET.trim_start_matches("whsec_")),
        "{output_text}"
    );
    let bad = node::run(&["check-config"], &env(&[("REDIS_URL", None)])).await;
    assert_eq!(bad.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_redis_cluster_is_refused_unless_the_setting_says_that_it_is_none() {
    let world = World::with().nodes(0).start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = std::env::temp_dir().join(format!("driver-tracker-nodes-{}.conf", uuid::Uuid::new_v4()));
    let arguments = ["--cluster-enabled", "yes", "--cluster-config-file", nodes.to_str().expect("a plain path")];
    let cluster = tokio::task::block_in_place(|| {
        PrivateRedis::start_with(&dir.path().join("redis"), None, &arguments).expect("a Redis in cluster mode")
    });
    let url = cluster.url();
    let refused =
        node::run(&["serve"], &env(&[("DATABASE_URL", Some(&world.database_url)), ("REDIS_URL", Some(&url))])).await;
    let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{sentence}");
    assert!(sentence.contains("Redis Cluster"), "{sentence}");
    tokio::task::block_in_place(|| cluster.stop());
    let _ = std::fs::remove_file(nodes);
    world.finish().await;
}
