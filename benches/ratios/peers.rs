//! The same work as others would write it, kept under `benches/peers/`.

use std::path::Path;
use std::process::Command;

use crate::world::{Service, World};

/// A Node program with `ws` and `ioredis` that batches by hand.
pub fn node(world: &World) -> Service {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node");
    if !dir.join("node_modules").exists() {
        let installed = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&dir).status();
        assert!(installed.is_ok_and(|status| status.success()), "Node and npm are needed for the peer");
    }
    let mut command = Command::new("node");
    command.arg("server.mjs").current_dir(&dir).env("REDIS_URL", world.redis.url());
    Service::start(command, |line| line.strip_prefix("listening on ")?.parse().ok())
}
