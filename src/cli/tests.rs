//! Tests of the command line as a whole.

use std::collections::HashMap;

use super::*;
use crate::domain::ids::{ApiKeyId, ShopName};

const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
const LEAST: [(&str, &str); 3] =
    [("DATABASE_URL", "postgres://db/tracker"), ("REDIS_URL", "redis://cache"), ("VENDURE_WEBHOOK_SECRET", SIGNING)];

fn run(arguments: &str, environment: &[(&str, &str)]) -> Result<Invocation, CliError> {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    let arguments = std::iter::once("driver-tracker").chain(arguments.split_whitespace());
    parse(arguments, |name| environment.get(name).map(|value| (*value).into()))
}

fn told(arguments: &str, environment: &[(&str, &str)]) -> String {
    let error = run(arguments, environment).expect_err(arguments);
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn clap_finds_nothing_wrong_with_the_commands() {
    command().debug_assert();
}

#[test]
fn help_and_version_end_well_and_show_the_settings() {
    for arguments in ["--help", "--version", "serve --help", "api-key create --help"] {
        assert_eq!(run(arguments, &[]).unwrap_err().exit_code(), 0, "{arguments}");
    }
    let help = run("serve --help", &[]).unwrap_err().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{}", setting.flag())) && help.contains(setting.name), "{setting}");
    }
}

#[test]
fn serve_takes_flags_over_the_environment() {
    let Ok(Invocation::Serve(config)) = run("serve --listen-addr 127.0.0.1:0 --migrate-on-start", &LEAST) else {
        panic!("serve")
    };
    assert_eq!(config.listen_addr.port(), 0);
    assert!(config.migrate_on_start);
    let Ok(Invocation::Serve(config)) = run("serve --migrate-on-start=false", &LEAST) else { panic!("serve") };
    assert!(!config.migrate_on_start);
    assert!(told("serve", &[]).contains("DATABASE_URL is not set"));
    assert!(told("serve --listen-adr x", &[]).contains("--listen-addr"), "clap suggests the nearest flag");
}

#[test]
fn the_file_is_named_by_flag_or_environment() {
    assert!(told("serve --config /nowhere/a.toml", &LEAST).contains("/nowhere/a.toml"));
    let mut environment = LEAST.to_vec();
    environment.push(("DRIVER_TRACKER_CONFIG", "/nowhere/b.toml"));
    assert!(told("serve", &environment).contains("/nowhere/b.toml"));
    assert!(told("serve --config /nowhere/a.toml", &environment).contains("/nowhere/a.toml"), "the flag wins");
}

#[test]
fn commands_on_the_database_need_nothing_else() {
    let url = [("DATABASE_URL", "postgres://db/tracker")];
    assert!(matches!(run("migrate", &url), Ok(Invocation::Migrate(_))));
    assert!(matches!(run("migrate --database-url postgres://db/x", &[]), Ok(Invocation::Migrate(_))));
    assert!(told("migrate", &[]).contains("DATABASE_URL is not set"));
    for arguments in ["api-key --database-url postgres://db/x list", "api-key list --database-url postgres://db/x"] {
        assert!(matches!(run(arguments, &[]), Ok(Invocation::ApiKey(ApiKeyCommand::List, _))), "{arguments}");
    }
}

#[test]
fn keys_have_a_scope_and_shop_keys_a_shop() {
    let url = [("DATABASE_URL", "postgres://db/tracker")];
    let made = |arguments: &str| match run(arguments, &url) {
        Ok(Invocation::ApiKey(asked, _)) => asked,
        other => panic!("{arguments}: {other:?}"),
    };
    let scope = KeyScope::Shop(ShopName::vendure());
    assert_eq!(
        made("api-key create --name till --scope shop --shop vendure"),
        ApiKeyCommand::Create { name: "till".to_owned(), scope }
    );
    let id = ApiKeyId::new();
    assert_eq!(made(&format!("api-key revoke {id}")), ApiKeyCommand::Revoke(id));
    for wrong in [
        "api-key",
        "api-key create --name a",
        "api-key create --scope admin",
        "api-key create --name a --scope shop",
        "api-key create --name a --scope admin --shop vendure",
        "api-key create --name a --scope god",
        "api-key create --name a --scope shop --shop Vendure",
        "api-key revoke 7",
    ] {
        told(wrong, &url);
    }
}

#[test]
fn dev_keeps_what_it_was_given_and_listens_where_it_was_told() {
    let dev = |arguments: &str, environment: &[(&str, &str)]| match run(arguments, environment) {
        Ok(Invocation::Dev(args)) => args,
        other => panic!("{arguments}: {other:?}"),
    };
    let args = dev("dev", &[]);
    assert_eq!((args.drivers, args.prepare, args.listen, args.dir.to_str()), (50, 0, None, Some(".dev")));
    assert_eq!(dev("dev --prepare 7", &[]).prepare, 7);
    let args = dev("dev --drivers 0 --listen 0.0.0.0:8080 --dir /tmp/x --frames-per-second 5", &[]);
    assert_eq!(args.drivers, 0);
    assert_eq!(args.listen, Some(([0, 0, 0, 0], 8080).into()));
    assert_eq!(args.sources.get("FRAMES_PER_SECOND"), Some("5"));
    assert_eq!(dev("dev", &[("LISTEN_ADDR", "127.0.0.1:9")]).listen, Some(([127, 0, 0, 1], 9).into()));
    let mut sources = dev("dev --vendure-webhook-shared-secret mine", &[]).sources;
    for (name, value) in LEAST {
        sources.set(Origin::Preset, name, value);
    }
    sources.set(Origin::Preset, "VENDURE_WEBHOOK_SHARED_SECRET", "made");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.webhook.shared.unwrap().expose(), "mine", "what dev brings gives way");
    told("dev --listen here", &[]);
    told("dev", &[("LISTEN_ADDR", "here")]);
}

#[test]
fn check_config_reports_right_and_wrong_alike() {
    let check = |environment: &[(&str, &str)]| match run("check-config --frames-per-second 5", environment) {
        Ok(Invocation::CheckConfig(check)) => check,
        other => panic!("{other:?}"),
    };
    let good = check(&LEAST);
    assert!(good.problems.is_none());
    let report = good.report.to_string();
    let row = |name: &str| report.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(row("FRAMES_PER_SECOND").contains("flag") && row("FRAMES_PER_SECOND").contains('5'));
    assert!(row("DATABASE_URL").contains("environment"));
    assert!(row("PENDING_SWEEP_MS").contains("default"));
    assert!(row("VENDURE_WEBHOOK_SECRET").contains("[set]"));
    assert!(check(&[]).problems.is_some());
}
