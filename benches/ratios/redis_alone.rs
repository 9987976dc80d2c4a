//! Measures the CPU time of Redis for a heartbeat without the service: at the full speed of `redis-benchmark`, and in
//! pipelines like those of the service.

use std::process::{Command, Stdio};
use std::time::Duration;

use driver_tracker::dev::servers::usage;

use crate::world::World;

/// The commands of one run.
const COMMANDS: u64 = 1_000_000;
/// The batches that are measured. The warm-up before them creates every driver.
const BATCHES: usize = 2000;
const WARM_UP: usize = 1000;

/// The value that Redis holds for a driver.
const VALUE: &str = "37.774900,-122.419400,1769508000000,1769508000123,1";

/// A heartbeat as one script, as a service without batches would write it.
const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1], 'EX', 30) \
                      return redis.call('GEOADD', KEYS[2], ARGV[2], ARGV[3], ARGV[4])";

/// A coordinate between 0 and 1 degrees. Each command moves its driver within a square of a hundred kilometres. A `GEOADD`
/// that moves no driver costs a third less and does not represent a heartbeat.
const ANYWHERE: &str = "0.__rand_int__e8";

/// Returns the CPU time of Redis for one command, in microseconds.
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

/// Converts a duration into microseconds.
pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Returns the CPU time of a heartbeat as one `SET` and one `GEOADD`, in microseconds.
pub fn set_and_geoadd(world: &World) -> f64 {
    cpu_us(world, &["SET", "bench:online:__rand_int__", VALUE, "EX", "30"])
        + cpu_us(world, &["GEOADD", "bench:geo", ANYWHERE, ANYWHERE, "driver:__rand_int__"])
}

/// The ways to write a heartbeat to Redis.
#[derive(Clone, Copy)]
pub enum Form {
    /// `SET` and `GEOADD`.
    Commands,
    /// One `EVALSHA` of a script that does the same.
    Script,
}

/// Returns the CPU time of Redis for one heartbeat, in microseconds, with `batch` heartbeats in a pipeline and one pipeline per
/// interval `every`. The service writes this way. Each pipeline has a cost in Redis, and after a pause the caches of the
/// processor are cold.
pub async fn in_batches(world: &World, form: Form, batch: usize, every: Duration) -> f64 {
    let client = redis::Client::open(world.redis.url()).expect("an address of Redis");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    let script: String =
        redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await.expect("a script");
    let cpu = || usage::cpu(world.redis_pid()).expect("Redis runs");
    let mut due = tokio::time::interval(every);
    let mut before = cpu();
    for number in 0..WARM_UP + BATCHES {
        due.tick().await;
        if number == WARM_UP {
            before = cpu();
        }
        let mut pipeline = redis::pipe();
        for _ in 0..batch {
            add_heartbeat(&mut pipeline, form, &script);
        }
        pipeline.exec_async(&mut connection).await.expect("Redis answers");
    }
    micros(cpu() - before) / (BATCHES * batch) as f64
}

/// Adds a heartbeat of a random one of 10,000 drivers, at a random point in a square of a hundred kilometres.
fn add_heartbeat(pipeline: &mut redis::Pipeline, form: Form, script: &str) {
    let driver = rand::random_range(0..10_000);
    let (key, member) = (format!("bench:online:{driver:012}"), format!("driver:{driver:012}"));
    let [lon, lat] = [(); 2].map(|()| format!("{:.6}", rand::random_range(0.0..1.0)));
    match form {
        Form::Commands => {
            pipeline.cmd("SET").arg(key).arg(VALUE).arg("EX").arg(30).ignore();
            pipeline.cmd("GEOADD").arg("bench:geo").arg(lon).arg(lat).arg(member).ignore();
        }
        Form::Script => {
            pipeline.cmd("EVALSHA").arg(script).arg(2).arg(key).arg("bench:geo");
            pipeline.arg(VALUE).arg(lon).arg(lat).arg(member).ignore();
        }
    }
}
