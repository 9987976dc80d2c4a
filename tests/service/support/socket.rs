//! WebSocket clients without background tasks, for drivers in bulk and for clients that behave badly.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::session::{Closed, SUBPROTOCOL, upgrade};

/// A WebSocket connection with small buffers in this process.
pub type Socket = WebSocketStream<TcpStream>;

/// Opens a connection. `Err` is the reason of the refusal. `receive_buffer` sets the size of the client's kernel
/// receive buffer, which fills when the client does not read.
pub async fn open(address: &str, token: &str, receive_buffer: Option<u32>) -> Result<Socket, Error> {
    let tcp = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        tcp.set_recv_buffer_size(bytes)?;
    }
    let tcp = tcp.connect(address.parse::<SocketAddr>().expect("the address is valid")).await?;
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("sec-websocket-protocol", SUBPROTOCOL)];
    let config = WebSocketConfig::default().read_buffer_size(2048).write_buffer_size(0);
    let (socket, _) = client_async_with_config(upgrade(address, "/ws/driver", &headers), tcp, Some(config)).await?;
    Ok(socket)
}

/// Returns a short frame that causes a response of 5 KB: a batch of a hundred fixes, each of which is refused by
/// index.
fn batch_with_long_response() -> Message {
    Message::text(format!("{{\"type\":\"batch\",\"ref\":\"x\",\"fixes\":[7{}]}}", ",7".repeat(99)))
}

/// A client that sends frames and does not read.
pub struct Stuck {
    socket: Socket,
}

impl Stuck {
    /// Connects. The client's kernel accepts about `receive_buffer` bytes that the client does not read.
    pub async fn connect(address: &str, token: &str, receive_buffer: u32) -> Stuck {
        Stuck { socket: open(address, token, Some(receive_buffer)).await.expect("the upgrade succeeds") }
    }

    /// Requests responses of 5 KB until they sum up to `bytes` or the service stops reading.
    pub async fn request_bytes(&mut self, bytes: usize) {
        let asking = async {
            for _ in 0..bytes / 4500 {
                if self.socket.send(batch_with_long_response()).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(1500), asking).await;
    }

    /// Reads up to `bytes` bytes. Returns `false` when the connection has ended.
    pub async fn read_some(&mut self, bytes: usize) -> bool {
        let mut buffer = vec![0; bytes];
        !matches!(self.socket.get_mut().read(&mut buffer).await, Ok(0) | Err(_))
    }

    /// Reads everything until the connection ends, and returns how it ended.
    pub async fn read_to_the_end(&mut self) -> Closed {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return frame.map_or(Closed::Abruptly, |frame| Closed::With(frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Closed::Abruptly,
            }
        }
    }
}

/// Opens a connection to the current address. Retries after a random, growing delay when it is refused.
pub async fn open_with_retries(address: &watch::Receiver<String>, token: &str) -> Socket {
    let mut limit_ms = 1000;
    loop {
        let at = address.borrow().clone();
        if let Ok(Ok(socket)) = tokio::time::timeout(Duration::from_secs(15), open(&at, token, None)).await {
            return socket;
        }
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..limit_ms))).await;
        limit_ms = (limit_ms * 2).min(60_000);
    }
}
