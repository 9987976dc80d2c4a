//! Parses the arguments of `api-key`.

use clap::{Arg, ArgMatches, Command, value_parser};

use super::usage;
use crate::domain::ids::{ApiKeyId, ShopName};

/// The most characters of a key's name.
const MAX_NAME_CHARS: usize = 100;

/// A command on API keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiKeyCommand {
    /// Create a key and print only the key on standard output.
    Create {
        /// The key's name in lists. 1 to 100 characters.
        name: String,
        /// The key's scope.
        scope: KeyScope,
    },
    /// List the keys without their secrets.
    List,
    /// Revoke a key.
    Revoke(ApiKeyId),
}

/// What an API key may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyScope {
    /// Everything.
    Admin,
    /// Everything that only reads.
    Read,
    /// The deliveries and events of one shop.
    Shop(ShopName),
}

impl KeyScope {
    /// The scope's name in the database.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Read => "read",
            Self::Shop(_) => "shop",
        }
    }
}

pub(super) fn command() -> Command {
    Command::new("api-key")
        .about("Make, list or revoke the keys of the API")
        .long_about("Makes, lists and revokes API keys, straight in the database. Needs DATABASE_URL alone.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(create())
        .subcommand(Command::new("list").about("List the keys: id, name, scope, when made and revoked; never the key"))
        .subcommand(
            Command::new("revoke").about("Make a key worthless, at once and for ever").arg(
                Arg::new("id")
                    .value_name("ID")
                    .required(true)
                    .value_parser(value_parser!(ApiKeyId))
                    .help("The key's id, as list shows it"),
            ),
        )
}

fn create() -> Command {
    Command::new("create")
        .about("Make a key and print it, alone, on standard output; it is shown this once")
        .arg(
            Arg::new("name")
                .long("name")
                .value_name("NAME")
                .required(true)
                .value_parser(parse_name)
                .help("What it is called in lists"),
        )
        .arg(
            Arg::new("scope")
                .long("scope")
                .value_name("SCOPE")
                .required(true)
                .value_parser(["admin", "read", "shop"])
                .help("admin: everything; read: everything that only reads; shop: one shop's deliveries and events"),
        )
        .arg(
            Arg::new("shop")
                .long("shop")
                .value_name("SHOP")
                .required_if_eq("scope", "shop")
                .value_parser(parse_shop)
                .help("The shop of a key with the scope shop"),
        )
}

impl ApiKeyCommand {
    pub(super) fn from_matches(name: &str, matches: &ArgMatches) -> Result<Self, clap::Error> {
        match name {
            "create" => {
                let name = matches.get_one::<String>("name").cloned().ok_or_else(|| usage("--name is missing"))?;
                Ok(Self::Create { name, scope: scope(matches)? })
            }
            "list" => Ok(Self::List),
            _ => matches.get_one::<ApiKeyId>("id").copied().map(Self::Revoke).ok_or_else(|| usage("an id is missing")),
        }
    }
}

fn scope(matches: &ArgMatches) -> Result<KeyScope, clap::Error> {
    let scope = matches.get_one::<String>("scope").map(String::as_str);
    match (scope, matches.get_one::<ShopName>("shop")) {
        (Some("shop"), Some(shop)) => Ok(KeyScope::Shop(shop.clone())),
        (Some("admin"), None) => Ok(KeyScope::Admin),
        (Some("read"), None) => Ok(KeyScope::Read),
        (_, Some(_)) => Err(usage("--shop goes with --scope shop alone: leave it out")),
        _ => Err(usage("--scope must be admin, read or shop, and shop needs --shop")),
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    let fits = (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned()).ok_or_else(|| format!("must be 1 to {MAX_NAME_CHARS} characters"))
}

pub(super) fn parse_shop(text: &str) -> Result<ShopName, String> {
    ShopName::parse(text).ok_or_else(|| "must be lower-case letters, digits and dashes, at most 63".to_owned())
}
