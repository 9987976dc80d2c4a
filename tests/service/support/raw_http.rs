//! HTTP/1 over a plain socket, for requests that no client library sends.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response as it arrived.
#[derive(Debug)]
pub struct RawReply {
    pub status: u16,
    /// Header names in lower case with their values, sorted.
    pub headers: Vec<(String, String)>,
    /// All bytes after the head.
    pub body: Vec<u8>,
}

impl RawReply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON, or `null` when it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Sends `request` unchanged. Reads until the service closes the connection or the body has its announced length.
pub async fn send(address: &str, request: impl AsRef<[u8]>) -> RawReply {
    let request = request.as_ref();
    let mut socket = TcpStream::connect(address).await.expect("the connection opens");
    socket.write_all(request).await.expect("the request is sent");
    let reading = async {
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
        loop {
            let count = socket.read(&mut chunk).await.expect("the response is read");
            bytes.extend_from_slice(&chunk[..count]);
            let reply = parse(&bytes);
            let length = |reply: &RawReply| reply.header("content-length")?.parse::<usize>().ok();
            // A response to HEAD has a length and no body, so it is read until the connection closes.
            let is_whole =
                !request.starts_with(b"HEAD") && reply.as_ref().is_some_and(|r| length(r) == Some(r.body.len()));
            if count == 0 || is_whole {
                return reply.expect("the response has a complete head");
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the response arrives in time")
}

fn parse(bytes: &[u8]) -> Option<RawReply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let pair = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let mut headers: Vec<_> = lines.filter_map(pair).collect();
    headers.sort();
    Some(RawReply { status, headers, body: bytes[end + 4..].to_vec() })
}
