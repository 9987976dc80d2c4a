//! The listeners: the API with a watchdog around every connection, and the metrics.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::HttpService;
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer, web};

use crate::http::{self, ApiData, ApiServices};
use crate::sessions::connection_watchdog::Watched;
use crate::telemetry::Metrics;

/// How long an HTTP client may take to send the head of a connection's first request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept for another request.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a client may take to end its side after the last response.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes a port.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    // A restart must not wait for the connections of the process before it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from(socket))
}

/// What `HttpServer` would make, but that every socket has its watchdog.
pub fn serve_api(services: ApiServices, grace: Duration, listener: TcpListener) -> io::Result<Server> {
    let data = ApiData::from(services);
    let builder = Server::build().shutdown_timeout(grace.as_secs().max(1)).disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let server = builder.listen("api", listener, move || {
        let data = data.clone();
        let app = App::new()
            .wrap(http::layers())
            .wrap(http::same_path())
            .configure(|cfg| data.register(cfg))
            .configure(http::configure);
        let app = app.into_factory().map_err(|error| error.error_response());
        let stopping = stopping.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(REQUEST_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .on_connect_ext(|socket: &Watched, data| drop(data.insert(socket.watchdog())))
            .h1(map_config(app, |()| AppConfig::default()));
        fn_service(|socket: TcpStream| {
            let peer = socket.peer_addr().ok();
            std::future::ready(Ok((Watched::new(socket), peer)))
        })
        .and_then(http)
    })?;
    Ok(server.run())
}

/// Serves the metrics.
pub fn serve_metrics(metrics: Metrics, listener: TcpListener) -> io::Result<Server> {
    let upkeep = metrics.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.upkeep();
        }
    });
    let server = HttpServer::new(move || {
        let metrics = web::Data::new(metrics.clone());
        App::new().wrap(http::same_path()).app_data(metrics).configure(http::configure_metrics)
    })
    .workers(1)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}
