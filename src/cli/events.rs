//! Parses the arguments of `events`.

use chrono::{DateTime, Utc};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::usage;
use crate::domain::event::{OutboundType, Selection};
use crate::domain::ids::{DeliveryId, EventId, ShopName};
use crate::domain::moment::parse_moment;

/// A command on events to shops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventsCommand {
    /// List at most this many of the selected events, the newest first.
    List(Selection, u32),
    /// Print an event with its tries and its body.
    Show(EventId),
    /// Post these events again.
    Replay(Vec<EventId>),
    /// Post all selected events again.
    ReplayAll(Selection),
}

pub(super) fn command() -> Command {
    Command::new("events")
        .about("List, show or replay events to shops")
        .long_about(
            "Lists, shows and replays events to shops, straight in the database; a running service posts what is replayed. \
             Needs DATABASE_URL alone.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list())
        .subcommand(
            Command::new("show")
                .about("Print an event as JSON: its tries, and the body that is posted")
                .arg(id().required(true)),
        )
        .subcommand(replay())
}

fn list() -> Command {
    Command::new("list")
        .about("List events, the newest first: id, type, shop, delivery, sequence, state, when written")
        .arg(state("Only events in this state"))
        .args(filters())
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("N")
                .value_parser(value_parser!(u32).range(1..=1_000_000))
                .default_value("50")
                .help("At most so many"),
        )
}

fn replay() -> Command {
    Command::new("replay")
        .about("Post events again, those named or all that fit; prints how many")
        .long_about(
            "Makes events pending again; their ids, sequences and bodies stay. Names events by their ids, or takes all dead ones \
             that fit (--all, narrowed by the other flags). Events that are not dead need --shop or --delivery.",
        )
        .arg(id().num_args(0..).action(ArgAction::Append).conflicts_with_all(["all", "state", "shop", "delivery", "type", "from", "to"]))
        .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("All that fit"))
        .arg(state("Instead of dead ones, those in this state"))
        .args(filters())
}

fn id() -> Arg {
    Arg::new("id").value_name("ID").value_parser(value_parser!(EventId)).help("An event's id")
}

fn state(help: &'static str) -> Arg {
    Arg::new("state").long("state").value_name("STATE").value_parser(["pending", "delivered", "dead"]).help(help)
}

fn filters() -> [Arg; 5] {
    let filter = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    [
        filter("shop", "SHOP", "Only of this shop").value_parser(super::api_key::parse_shop),
        filter("delivery", "ID", "Only of this delivery").value_parser(value_parser!(DeliveryId)),
        filter("type", "TYPE", "Only of this type, such as DELIVERY_DELIVERED_V1").value_parser(parse_type),
        filter("from", "TIME", "Only written at this time (RFC 3339) or later").value_parser(parse_time),
        filter("to", "TIME", "Only written before this time").value_parser(parse_time),
    ]
}

impl EventsCommand {
    pub(super) fn from_matches(name: &str, matches: &ArgMatches) -> Result<Self, clap::Error> {
        match name {
            "list" => Ok(Self::List(selection(matches), matches.get_one::<u32>("limit").copied().unwrap_or(50))),
            "show" => matches.get_one("id").copied().map(Self::Show).ok_or_else(|| usage("an id is missing")),
            _ => {
                let ids: Vec<EventId> = matches.get_many("id").into_iter().flatten().copied().collect();
                let chosen = selection(matches);
                match (ids.is_empty(), matches.get_flag("all")) {
                    (false, _) => Ok(Self::Replay(ids)),
                    (true, false) => Err(usage("name the events by their ids, or say --all")),
                    (true, true) => replayable(chosen).map(Self::ReplayAll),
                }
            }
        }
    }
}

fn selection(matches: &ArgMatches) -> Selection {
    Selection {
        state: matches.get_one::<String>("state").and_then(|text| text.parse().ok()),
        shop: matches.get_one::<ShopName>("shop").map(|shop| shop.as_str().to_owned()),
        delivery_id: matches.get_one("delivery").copied(),
        kind: matches.get_one("type").copied(),
        from: matches.get_one("from").copied(),
        to: matches.get_one("to").copied(),
    }
}

fn replayable(which: Selection) -> Result<Selection, clap::Error> {
    if which.may_be_replayed() {
        return Ok(which);
    }
    Err(usage("events that are not dead are replayed of one shop or delivery: add --shop or --delivery"))
}

fn parse_type(text: &str) -> Result<OutboundType, String> {
    let names = OutboundType::ALL.map(OutboundType::as_str);
    OutboundType::parse(text).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    parse_moment(text).ok_or_else(|| "must be a time such as 2026-01-27T10:00:00Z".to_owned())
}
