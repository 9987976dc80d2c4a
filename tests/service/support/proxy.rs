//! A TCP proxy in front of a server. A test uses it to cut one node off while other nodes still reach the server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with bytes. It applies to open and to new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyMode {
    Forward,
    /// Drops every byte and keeps the connections open. Dropped bytes are never delivered.
    Discard,
    /// Closes every connection.
    Close,
}

/// The address for new connections, and how often open connections were closed.
#[derive(Clone, Copy)]
struct Target {
    address: SocketAddr,
    cuts: u64,
}

/// A proxy to one address at a time. It stops when the value is dropped.
pub struct Proxy {
    pub port: u16,
    mode: watch::Sender<ProxyMode>,
    target: watch::Sender<Target>,
}

impl Proxy {
    /// Starts a proxy to 127.0.0.1:`port`.
    pub async fn start(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let own_port = listener.local_addr().expect("the listener has an address").port();
        let mode = watch::Sender::new(ProxyMode::Forward);
        let target = watch::Sender::new(Target { address: local(port), cuts: 0 });
        tokio::spawn(accept(listener, target.subscribe(), mode.subscribe()));
        Proxy { port: own_port, mode, target }
    }

    /// Sets what the proxy does with bytes from now on.
    pub fn set(&self, mode: ProxyMode) {
        self.mode.send_replace(mode);
    }

    /// Sends new connections to 127.0.0.1:`port`, as after a DNS change. Open connections keep their server.
    pub fn set_target(&self, port: u16) {
        self.target.send_modify(|target| target.address = local(port));
    }

    /// Closes every open connection.
    pub fn close_connections(&self) {
        self.target.send_modify(|target| target.cuts += 1);
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn accept(listener: TcpListener, target: watch::Receiver<Target>, mut mode: watch::Receiver<ProxyMode>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(relay(client, target.clone(), mode.clone()));
                }
            }
            changed = mode.changed() => if changed.is_err() { return },
        }
    }
}

async fn relay(client: TcpStream, mut target: watch::Receiver<Target>, mut mode: watch::Receiver<ProxyMode>) {
    let Target { address, cuts } = *target.borrow();
    let Ok(server) = TcpStream::connect(address).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let to_server = pump(client_in, server_out, mode.clone());
    let to_client = pump(server_in, client_out, mode.clone());
    let refused = async { mode.wait_for(|p| *p == ProxyMode::Close).await.is_ok() };
    let closed_by_test = async { target.wait_for(|now| now.cuts > cuts).await.is_ok() };
    tokio::select! {
        () = async { tokio::join!(to_server, to_client); } => {}
        _ = refused => {}
        _ = closed_by_test => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<ProxyMode>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let discarded = *mode.borrow() == ProxyMode::Discard;
        if !discarded && to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    if *mode.borrow() == ProxyMode::Discard {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}
