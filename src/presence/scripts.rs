//! Runs the Lua scripts, by their hash and many in one round trip.
//!
//! Invariants: every script is idempotent, because a call whose answer was lost is repeated.
//!
//! Must not: hold a rule of its own. The rules are in the scripts.

use std::sync::LazyLock;

use redis::{Cmd, ErrorKind, Pipeline, RedisResult, ServerErrorKind, Value};

use super::connection::Connection;
use super::error::Outage;

/// A script and the hash by which Redis identifies it.
#[derive(Debug)]
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

macro_rules! script {
    ($name:ident, $($part:literal),+) => {
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| Script::new(concat!($(include_str!($part)),+)));
    };
}

script!(TRANSITION, "scripts/common.lua", "scripts/apply.lua", "scripts/transition.lua");
script!(JOIN, "scripts/common.lua", "scripts/join.lua");
script!(REMEMBER, "scripts/common.lua", "scripts/merge.lua", "scripts/remember.lua");
script!(LOAD, "scripts/common.lua", "scripts/merge.lua", "scripts/apply.lua", "scripts/load.lua");
script!(REPAIR, "scripts/common.lua", "scripts/repair.lua");
script!(CORRECT, "scripts/common.lua", "scripts/correct.lua");
script!(DUE, "scripts/due.lua");
script!(RENEW, "scripts/renew.lua");
script!(BEGIN_REBUILD, "scripts/begin_rebuild.lua");
script!(FINISH_REBUILD, "scripts/finish_rebuild.lua");

fn all() -> [&'static Script; 10] {
    [&TRANSITION, &JOIN, &REMEMBER, &LOAD, &REPAIR, &CORRECT, &DUE, &RENEW, &BEGIN_REBUILD, &FINISH_REBUILD]
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// The command that runs the script.
    pub(super) fn call(&self, keys: &[&str], args: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len()).arg(keys).arg(args);
        command
    }
}

/// Loads every script into Redis. Needed once for each run of Redis.
pub(super) async fn load(connection: &mut redis::aio::MultiplexedConnection) -> RedisResult<()> {
    let mut pipe = redis::pipe();
    for script in all() {
        pipe.cmd("SCRIPT").arg("LOAD").arg(script.code).ignore();
    }
    pipe.exec_async(connection).await
}

/// Runs the commands in one round trip and returns the answers in their order. The first refusal is the error of the call.
///
/// Scripts that Redis lost are loaded and run again. The other commands are not repeated, because `SET … GET` would return
/// another answer the second time.
pub(super) async fn run(session: &Connection, commands: Vec<Cmd>) -> Result<Vec<Value>, Outage> {
    let pipe = pipeline(commands);
    let mut answers = send(session, &pipe).await?;
    let forgotten: Vec<usize> =
        answers.iter().enumerate().filter(|(_, answer)| is_no_script(answer)).map(|(index, _)| index).collect();
    if !forgotten.is_empty() {
        load(&mut session.connection.clone()).await?;
        let commands: Vec<&Cmd> = pipe.cmd_iter().collect();
        let again = pipeline(forgotten.iter().map(|index| commands[*index].clone()));
        for (index, answer) in forgotten.into_iter().zip(send(session, &again).await?) {
            answers[index] = answer;
        }
    }
    answers.into_iter().map(|answer| answer.map_err(Outage::Redis)).collect()
}

fn pipeline(commands: impl IntoIterator<Item = Cmd>) -> Pipeline {
    let mut pipe = redis::pipe();
    for command in commands {
        pipe.add_command(command);
    }
    pipe.ignore_errors();
    pipe
}

async fn send(session: &Connection, pipe: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
    let answers: Vec<RedisResult<Value>> = pipe.query_async(&mut session.connection.clone()).await?;
    if answers.len() == pipe.len() {
        Ok(answers)
    } else {
        Err((ErrorKind::UnexpectedReturnType, "not one answer a command").into())
    }
}

fn is_no_script(answer: &RedisResult<Value>) -> bool {
    matches!(answer, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript))
}
