//! Decides whether the data in Redis is complete: the generation, and the rebuild from PostgreSQL that sets it.
//!
//! `drivers:generation` is `<database identity>@<run id of Redis>`. It expires after 30 s unless it is renewed.
//!
//! Invariants:
//! - A generation that is missing, or names another database or another run, means that Redis is cold. Data that a flush, a
//!   restart from an old file or a promotion left behind is never returned.
//! - A rebuild holds a token in Redis from before its first read of PostgreSQL to its end. A flush deletes the token, and a
//!   restart changes the run id. Neither can therefore leave a valid generation over missing data.
//!
//! Must not: read PostgreSQL.

use std::fmt;
use std::sync::Arc;

use chrono::Utc;
use redis::{Cmd, FromRedisValue, Value};
use uuid::Uuid;

use super::connection::Connection;
use super::heartbeat::Stored as _;
use super::keys::member;
use super::membership::StatusChange;
use super::online::OnlineValue;
use super::{BATCH, Inner, Outage, Presence, PresenceError, scripts};
use crate::domain::heartbeat::Heartbeat;

/// How long a generation is valid without being renewed.
const GENERATION_TTL_MS: &str = "30000";

/// How long a rebuild may pause between two loads before another node may start its own.
const REBUILD_TTL_MS: &str = "10000";

/// Drivers in one call of the load script. Redis serves no other client during the call, which takes about a millisecond.
const LOADED_AT_ONCE: usize = 64;

/// Identifies a running rebuild. Its holder declares Redis warm when the rebuild is complete.
#[derive(Clone)]
pub struct RebuildToken {
    token: String,
    run_id: Arc<str>,
}

impl fmt::Debug for RebuildToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RebuildToken").finish_non_exhaustive()
    }
}

/// One driver, as read from PostgreSQL.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RebuildDriver {
    /// Status and epoch.
    pub change: StatusChange,
    /// The driver's last heartbeat. It is stored with the rest of its TTL, unless Redis has a newer one.
    pub online: Option<Heartbeat>,
}

impl Presence {
    /// Sets the identity of the database that the epochs belong to. The identity changes at a restore or a promotion. Redis
    /// is cold until it is set.
    pub fn set_database_identity(&self, identity: String) {
        self.inner.database.store(Some(Arc::new(identity)));
    }

    /// Extends the generation by its TTL. Returns `false` when Redis is cold.
    pub async fn renew_generation(&self) -> Result<bool, PresenceError> {
        let renewed = self.inner.on_session("renew_generation", |inner, session| {
            let generation = inner.generation(session).ok_or(PresenceError::Cold)?;
            Ok(scripts::RENEW.call(&[&inner.keys.generation], &[&generation, GENERATION_TTL_MS]))
        });
        match renewed.await {
            Ok((answer, _)) => Ok(is_one(&answer)),
            Err(PresenceError::Cold) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts a rebuild. Must be called before anything is read from PostgreSQL. Returns `None` when another process runs a
    /// rebuild, or when Redis is warm.
    ///
    /// Deletes the data of another database. Returns [`PresenceError::Cold`] while no database identity is set.
    pub async fn begin_rebuild(&self) -> Result<Option<RebuildToken>, PresenceError> {
        let process = self.inner.process.to_string();
        let token = format!("{process}:{}", Uuid::new_v4());
        let begun = self.inner.on_session("begin_rebuild", |inner, session| {
            let database = inner.database.load_full().ok_or(PresenceError::Cold)?;
            let generation = inner.generation(session).ok_or(PresenceError::Cold)?;
            let keys = &inner.keys;
            Ok(scripts::BEGIN_REBUILD.call(
                &[&keys.rebuild, &keys.generation, &keys.database, &keys.status, &keys.geo, &keys.expiry],
                &[&process, &token, REBUILD_TTL_MS, &generation, &database],
            ))
        });
        let (answer, session) = begun.await?;
        if !is_one(&answer) {
            return Ok(None);
        }
        let token = RebuildToken { token, run_id: session.run_id.clone() };
        self.inner.rebuild.store(Some(Arc::new(token.clone())));
        Ok(Some(token))
    }

    /// Writes drivers as PostgreSQL has them, and renews the rebuild's token.
    ///
    /// Returns [`PresenceError::Cold`] when the token of this process's rebuild was lost. The rebuild must then start again.
    pub async fn load(&self, drivers: &[RebuildDriver]) -> Result<(), PresenceError> {
        let inner = &self.inner;
        for chunk in drivers.chunks(BATCH) {
            let mut commands: Vec<Cmd> = chunk.chunks(LOADED_AT_ONCE).map(|some| inner.load(some)).collect();
            let token = inner.rebuild.load_full();
            if let Some(token) = &token {
                commands.push(scripts::RENEW.call(&[&inner.keys.rebuild], &[&token.token, REBUILD_TTL_MS]));
            }
            let renewed = inner.link.batch("load", commands).await?.pop();
            if token.is_some() && !renewed.as_ref().is_some_and(is_one) {
                return Err(PresenceError::Cold);
            }
        }
        Ok(())
    }

    /// Declares Redis warm. Returns `false` when the token was lost, or when Redis restarted since the rebuild began.
    pub async fn finish_rebuild(&self, token: RebuildToken) -> Result<bool, PresenceError> {
        let finished = self.inner.on_session("finish_rebuild", |inner, session| {
            let generation = inner.generation(session).ok_or(PresenceError::Cold)?;
            if session.run_id != token.run_id {
                return Err(PresenceError::Cold);
            }
            let keys = [&*inner.keys.rebuild, &inner.keys.generation];
            Ok(scripts::FINISH_REBUILD.call(&keys, &[&token.token, &generation, GENERATION_TTL_MS]))
        });
        match finished.await {
            Ok((answer, _)) => {
                self.inner.rebuild.store(None);
                Ok(is_one(&answer))
            }
            Err(PresenceError::Cold) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    /// The only generation that is valid on this connection.
    fn generation(&self, session: &Connection) -> Option<String> {
        self.database.load().as_ref().map(|database| format!("{database}@{}", session.run_id))
    }

    /// Runs one script whose arguments depend on the connection.
    async fn on_session(
        self: &Arc<Self>,
        op: &'static str,
        command: impl FnOnce(&Self, &Connection) -> Result<Cmd, PresenceError>,
    ) -> Result<(Value, Arc<Connection>), PresenceError> {
        let inner = self.clone();
        let work = |session: Arc<Connection>| async move {
            let command = command(&inner, &session)?;
            let answer = scripts::run(&session, vec![command]).await?.pop().ok_or(Outage::Unexpected("EVALSHA"))?;
            Ok((answer, session))
        };
        self.link.run(op, work).await
    }

    /// Returns an error when Redis is cold or unavailable.
    pub(super) async fn check_warm(self: &Arc<Self>, op: &'static str) -> Result<(), PresenceError> {
        let inner = self.clone();
        let work = |session: Arc<Connection>| async move {
            let _pong: String = inner.believed(&session, redis::cmd("PING")).await?;
            Ok(())
        };
        self.link.run(op, work).await
    }

    /// Runs a read command and returns its answer if Redis is warm. The generation is read in the same transaction, after
    /// the command.
    pub(super) async fn believed<T: FromRedisValue>(
        &self,
        session: &Connection,
        command: Cmd,
    ) -> Result<T, PresenceError> {
        let mut pipe = redis::pipe();
        pipe.atomic().add_command(command).cmd("GET").arg(&self.keys.generation);
        let (answer, generation): (T, Option<String>) = pipe.query_async(&mut session.connection.clone()).await?;
        if generation.is_some() && generation == self.generation(session) {
            Ok(answer)
        } else {
            Err(PresenceError::Cold)
        }
    }

    /// The values of online keys, in order, if Redis is warm. `names` must not be empty.
    pub(super) async fn read_online(
        &self,
        session: &Connection,
        names: &[String],
    ) -> Result<Vec<Option<OnlineValue>>, PresenceError> {
        let mut command = redis::cmd("MGET");
        command.arg(names);
        let texts: Vec<Option<Vec<u8>>> = self.believed(session, command).await?;
        Ok(texts.into_iter().map(|text| OnlineValue::decode(&text?)).collect())
    }

    /// One script call for many drivers. With one call for each driver, the fixed cost of a call would be half of a rebuild.
    fn load(&self, drivers: &[RebuildDriver]) -> Cmd {
        let now = Utc::now();
        let mut keys = vec![self.keys.status.clone(), self.keys.geo.clone(), self.keys.expiry.clone()];
        let mut args = Vec::with_capacity(drivers.len() * 6);
        for RebuildDriver { change, online } in drivers {
            let alive = online.and_then(|beat| Some((beat.value().encode(), beat.ttl_left_ms(self.ttl, now)?)));
            let (text, left_ms) = alive.unwrap_or_default();
            keys.push(self.keys.online(change.driver_id));
            args.extend([change.driver_id.to_string(), member(change.driver_id), change.status.to_string()]);
            args.extend([change.epoch.to_string(), text, left_ms.to_string()]);
        }
        let (keys, args): (Vec<&str>, Vec<&str>) =
            (keys.iter().map(String::as_str).collect(), args.iter().map(String::as_str).collect());
        scripts::LOAD.call(&keys, &args)
    }
}

fn is_one(answer: &Value) -> bool {
    matches!(answer, Value::Int(1))
}
