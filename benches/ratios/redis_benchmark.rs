//! What Redis itself can do: `redis-benchmark`, pipelined by 64.

use std::process::{Command, Stdio};
use std::time::Duration;

use driver_tracker::dev::servers::usage;

use crate::world::World;

/// Commands in one run.
const COMMANDS: u64 = 1_000_000;

/// The heartbeat as one script, as a service without batches of its own would write it.
const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1], 'EX', 30) \
                      return redis.call('GEOADD', KEYS[2], ARGV[2], ARGV[3], ARGV[4])";

/// A coordinate between 0 and 1 degrees: each command moves its driver somewhere in a square of a hundred kilometres. A
/// `GEOADD` that moves nobody costs a third less, and is no heartbeat.
const ANYWHERE: &str = "0.__rand_int__e8";

/// CPU that Redis spends on one command, in microseconds.
fn cpu_us(world: &World, command: &[&str]) -> f64 {
    let cpu = || usage::cpu(world.redis_pid()).expect("Redis runs");
    let before = cpu();
    let done = Command::new("redis-benchmark")
        .args(["-p", &world.redis.port().to_string(), "-P", "64", "-c", "50", "-q"])
        .args(["-n", &COMMANDS.to_string(), "-r", "10000"])
        .args(command)
        .stdout(Stdio::null())
        .status();
    assert!(done.is_ok_and(|status| status.success()), "redis-benchmark failed");
    micros(cpu() - before) / COMMANDS as f64
}

/// As a number.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A heartbeat as `SET` and `GEOADD`, each one command.
pub fn set_and_geoadd(world: &World) -> f64 {
    let value = "37.774900,-122.419400,1769508000000,1769508000123,1";
    cpu_us(world, &["SET", "bench:online:__rand_int__", value, "EX", "30"])
        + cpu_us(world, &["GEOADD", "bench:geo", ANYWHERE, ANYWHERE, "driver:__rand_int__"])
}

/// A heartbeat as one `EVALSHA`.
pub fn evalsha(world: &World) -> f64 {
    let port = world.redis.port().to_string();
    let loaded = Command::new("redis-cli").args(["-p", &port, "SCRIPT", "LOAD", SCRIPT]).output().expect("redis-cli");
    let hash = String::from_utf8_lossy(&loaded.stdout).trim().to_owned();
    let value = "37.774900,-122.419400,1769508000000,1769508000123,1";
    let keys = ["2", "bench:online:__rand_int__", "bench:geo"];
    let arguments = [value, ANYWHERE, ANYWHERE, "driver:__rand_int__"];
    cpu_us(world, &[&["EVALSHA", &hash][..], &keys, &arguments].concat())
}
