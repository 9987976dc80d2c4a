//! The PostgreSQL servers that `DATABASE_URL` names. Finds the one that takes writes.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::StoreError;
use super::statement::query_scalar;
use crate::domain::postgres_url;

/// How long one server may take to answer whether it takes writes.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The delay between asking one server of the list and asking the next one.
const STAGGER: Duration = Duration::from_millis(200);

statements! {
    // False on a standby, and if the operator made the server, the database or the role read-only.
    TAKES_WRITES = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean)";
}

/// One server.
#[derive(Clone, Debug)]
struct Server {
    /// Host and port, for logs and errors.
    name: String,
    options: PgConnectOptions,
}

/// The servers of one URL, in the order of the URL. There is at least one.
#[derive(Clone, Debug)]
pub(super) struct Servers(Vec<Server>);

impl Servers {
    /// Parses a URL.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let urls = postgres_url::servers(url).map_err(|must| StoreError::Refused(format!("DATABASE_URL {must}")))?;
        let servers = urls.iter().map(|url| {
            // A pooler may refuse a start-up parameter that it does not know, so only common ones are sent.
            let options = PgConnectOptions::from_url(url)?.application_name("driver-tracker").extra_float_digits(None);
            Ok(Server { name: format!("{}:{}", options.get_host(), options.get_port()), options })
        });
        Ok(Self(servers.collect::<Result<_, sqlx::Error>>()?))
    }

    /// The options for a connection to the server at `index`, or to the first server if there is none at `index`.
    pub(super) fn options(&self, index: usize) -> &PgConnectOptions {
        &self.0[if index < self.0.len() { index } else { 0 }].options
    }

    /// Host and port of the server at `index`.
    pub(super) fn name(&self, index: usize) -> &str {
        self.0.get(index).map_or("", |server| server.name.as_str())
    }

    /// Whether the URL names more than one server.
    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// Connects to a server that takes writes. Returns its index and the connection.
    ///
    /// The servers are asked in the order of the list, each [`STAGGER`] after the one before it. So a server that hangs does
    /// not delay the others. The first positive answer wins.
    pub(super) async fn connect_writable(&self) -> Result<(usize, PgConnection), StoreError> {
        let mut asked = JoinSet::new();
        for (index, server) in self.0.iter().enumerate() {
            let options = server.options.clone();
            let after = STAGGER * u32::try_from(index).unwrap_or(u32::MAX);
            asked.spawn(async move {
                sleep(after).await;
                let answer = timeout(SERVER_TIMEOUT, connect(&options)).await;
                (index, answer.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned()))))
            });
        }
        let mut refusals = Vec::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((index, Ok(conn))) => return Ok((index, conn)),
                Ok((index, Err(error))) => refusals.push((index, error)),
                Err(join) => refusals.push((0, join.into())),
            }
        }
        Err(self.sum_up(refusals))
    }

    /// Combines the refusals of the servers into one error.
    fn sum_up(&self, mut refusals: Vec<(usize, StoreError)>) -> StoreError {
        refusals.sort_by_key(|(index, _)| *index);
        let words: Vec<String> =
            refusals.iter().map(|(index, error)| format!("{}: {}", self.name(*index), error.reason())).collect();
        if refusals.len() > 1 && refusals.iter().any(|(_, error)| error.is_unavailable()) {
            return StoreError::Unavailable(format!("none of its servers takes writes ({})", words.join("; ")));
        }
        let none = || StoreError::Unavailable("no server was asked".to_owned());
        refusals.into_iter().next().map_or_else(none, |(_, error)| error)
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let mut conn = options.connect().await?;
    if takes_writes(&mut conn).await? {
        return Ok(conn);
    }
    let _ = conn.close().await;
    Err(read_only())
}

/// Asks the server behind a connection whether it takes writes.
pub(super) async fn takes_writes(conn: &mut PgConnection) -> Result<bool, StoreError> {
    Ok(query_scalar(TAKES_WRITES).persistent(false).fetch_one(conn).await?)
}

/// The error for a server that takes no writes.
pub(super) fn read_only() -> StoreError {
    StoreError::Unavailable("the server takes no writes: it is a standby, or was made read-only".to_owned())
}
