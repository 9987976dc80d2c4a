//! A Redis server for one test. It has its own directory and a free port, and ends with the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::FromRedisValue;
use tokio::runtime::Handle;

use crate::presence::{Presence, PresenceSettings};

pub(super) struct TestRedis {
    port: u16,
    dir: PathBuf,
    process: Child,
}

impl TestRedis {
    pub(super) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("presence-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let process = spawn(port, &dir);
        let redis = Self { port, dir, process };
        redis.wait();
        redis
    }

    pub(super) fn settings(&self) -> PresenceSettings {
        // A long timeout, because other tests may keep the machine busy. Tests of the timeout set a short one.
        let call_timeout = Duration::from_secs(2);
        PresenceSettings { call_timeout, ..PresenceSettings::new(self.url(), Handle::current()) }
    }

    pub(super) fn presence(&self) -> Presence {
        Presence::new(self.settings()).unwrap()
    }

    /// A presence for which this server is warm.
    pub(super) async fn warm(&self) -> Presence {
        let presence = self.presence();
        super::rebuild(&presence, &[]).await;
        presence
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Runs a command as another client.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &str) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut words = command.split(' ');
        let mut cmd = redis::cmd(words.next().unwrap());
        cmd.arg(words.collect::<Vec<_>>());
        cmd.query_async(&mut connection).await.unwrap()
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts again on the same port, with the saved data.
    pub(super) fn start_again(&mut self) {
        self.process = spawn(self.port, &self.dir);
        self.wait();
    }

    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut answer = [0u8; 7];
        socket.write_all(b"PING\r\n").is_ok() && socket.read_exact(&mut answer).is_ok() && &answer == b"+PONG\r\n"
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(port: u16, dir: &PathBuf) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}
