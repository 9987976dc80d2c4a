//! Parses the arguments of `doctor`.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// How to report the differences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DoctorArgs {
    /// Whether to print one JSON object.
    pub as_json: bool,
    /// How many ids of each kind to print.
    pub shown: usize,
}

pub(super) fn command() -> Command {
    Command::new("doctor")
        .about("Compare Redis with PostgreSQL, changing neither, and say what differs")
        .long_about(
            "Reads what PostgreSQL and Redis say of every driver and prints what differs; whatever differs is looked at twice, \
             some seconds apart, since changes are on their way all the time. Needs DATABASE_URL and REDIS_URL. Ends with 0 \
             when nothing differs, 1 when something does, 2 when the two could not be compared.",
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"))
        .arg(
            Arg::new("show")
                .long("show")
                .value_name("N")
                .value_parser(value_parser!(u32).range(0..=1_000_000))
                .default_value("10")
                .help("How many ids of each kind to print"),
        )
}

impl DoctorArgs {
    pub(super) fn from_matches(matches: &ArgMatches) -> Self {
        let shown = matches.get_one::<u32>("show").copied().unwrap_or(10);
        Self { as_json: matches.get_flag("json"), shown: shown as usize }
    }
}
