//! A TCP relay that a test puts before a server, to cut one node off while the others still reach it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes, of old connections and new ones alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passage {
    Open,
    /// Nothing comes through, nothing is closed; what was sent meanwhile is lost for good.
    Swallow,
    /// Every connection is closed.
    Refuse,
}

/// Where new connections lead, and how often the old ones were cut.
#[derive(Clone, Copy)]
struct Target {
    address: SocketAddr,
    cuts: u64,
}

/// A relay to one address at a time; gone with the value.
pub struct Proxy {
    pub port: u16,
    passage: watch::Sender<Passage>,
    target: watch::Sender<Target>,
}

impl Proxy {
    /// A relay to 127.0.0.1:`port`.
    pub async fn before(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own_port = listener.local_addr().expect("its address").port();
        let passage = watch::Sender::new(Passage::Open);
        let target = watch::Sender::new(Target { address: local(port), cuts: 0 });
        tokio::spawn(accept(listener, target.subscribe(), passage.subscribe()));
        Proxy { port: own_port, passage, target }
    }

    /// From now on.
    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }

    /// New connections lead to 127.0.0.1:`port` from now on, as when a name was moved; old ones stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.target.send_modify(|target| target.address = local(port));
    }

    /// Closes every connection that is open now.
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
