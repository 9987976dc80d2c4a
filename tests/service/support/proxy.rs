//! A TCP proxy in front of a server. A test uses it to cut one node off while other nodes still reach the server.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with bytes. It applies to open and to new connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    Open,
    /// Drops every byte and keeps the connections open. Dropped bytes are never delivered.
    Swallow,
    /// Closes every connection.
    Refuse,
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
    passage: watch::Sender<Passage>,
    target: watch::Sender<Target>,
}

impl Proxy {
    /// Starts a proxy to 127.0.0.1:`port`.
    pub async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let own_port = listener.local_addr().expect("the listener has an address").port();
        let passage = watch::Sender::new(Passage::Open);
        let target = watch::Sender::new(Target { address: local(port), cuts: 0 });
        tokio::spawn(accept(listener, target.subscribe(), passage.subscribe()));
        Proxy { port: own_port, passage, target }
    }

    /// Sets what the proxy does with bytes from now on.
    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    /// Sends new connections to 127.0.0.1:`port`, as after a DNS change. Open connections keep their server.
    pub fn lead_to(&self, port: u16) {
        self.target.send_modify(|target| target.address = local(port));
    }

    /// Closes every open connection.
    pub fn cut(&self) {
        self.target.send_modify(|target| target.cuts += 1);
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn accept(listener: TcpListener, target: watch::Receiver<Target>, mut passage: watch::Receiver<Passage>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(relay(client, target.clone(), passage.clone()));
                }
            }
            changed = passage.changed() => if changed.is_err() { return },
        }
    }
}

async fn relay(client: TcpStream, mut target: watch::Receiver<Target>, mut passage: watch::Receiver<Passage>) {
    let Target { address, cuts } = *target.borrow();
    let Ok(server) = TcpStream::connect(address).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let there = pump(client_in, server_out, passage.clone());
    let back = pump(server_in, client_out, passage.clone());
    let refused = async { passage.wait_for(|p| *p == Passage::Refuse).await.is_ok() };
    let cut = async { target.wait_for(|now| now.cuts > cuts).await.is_ok() };
    tokio::select! {
        () = async { tokio::join!(there, back); } => {}
        _ = refused => {}
        _ = cut => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, passage: watch::Receiver<Passage>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        let swallowed = *passage.borrow() == Passage::Swallow;
        if !swallowed && to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    if *passage.borrow() == Passage::Swallow {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
}
