use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::webhooks::signature::{SigningSecret, sign};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A server that reads each request whole and answers it by `answer`; what it read comes out of the channel.
async fn server<F, Fut>(answer: F) -> (SocketAddr, mpsc::UnboundedReceiver<String>)
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let request = read_request(&mut stream).await;
            if requests.send(request).is_err() {
                return;
            }
            tokio::spawn(answer(stream));
        }
    });
    (address, received)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let (mut request, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        match stream.read(&mut buffer).await.unwrap() {
            0 => return text,
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
}

/// A server that always gives the same answer.
async fn answering(head: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    server(move |mut stream| async move {
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await
}

fn client_of(allowed: &[&str], timeout: Duration) -> EventsClient {
    let allowed_networks = allowed.iter().map(|net| net.parse().unwrap()).collect();
    EventsClient::new(EventsClientSettings { allowed_networks, timeout, ..Default::default() }).unwrap()
}

async fn post(client: &EventsClient, url: &str) -> PostOutcome {
    let headers = OutgoingHeaders { webhook_id: "e1", timestamp: 1, signatures: "", shared_secret: None };
    client.post(&Url::parse(url).unwrap(), headers, Bytes::from_static(b"{}")).await
}

async fn outcome_of(head: &'static str) -> PostOutcome {
    let (address, _received) = answering(head).await;
    post(&client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT), &format!("http://{address}/hook")).await
}

fn retry(status: u16, error: &str, retry_after_s: Option<u64>) -> PostOutcome {
    PostOutcome::Retry {
        status: Some(status),
        error: error.to_owned(),
        retry_after: retry_after_s.map(Duration::from_secs),
    }
}

#[tokio::test]
async fn answers_mean_what_the_contract_says() {
    assert_eq!(outcome_of("200 OK").await, PostOutcome::Delivered { status: 200 });
    assert_eq!(outcome_of("202 Accepted").await, PostOutcome::Delivered { status: 202 });
    assert_eq!(outcome_of("400 Bad Request").await, PostOutcome::Rejected { status: 400 });
    assert_eq!(outcome_of("422 Unprocessable").await, PostOutcome::Rejected { status: 422 });
    assert_eq!(outcome_of("410 Gone").await, PostOutcome::Gone);
    assert_eq!(outcome_of("404 Not Found").await, retry(404, "answered 404", None));
    assert_eq!(outcome_of("503 Busy\r\nretry-after: 7").await, retry(503, "answered 503", Some(7)));
    assert_eq!(outcome_of("429 Slow\r\nretry-after: 999999").await, retry(429, "answered 429", Some(604_800)));
    assert_eq!(outcome_of("503 Later\r\nretry-after: 172800").await, retry(503, "answered 503", Some(172_800)));
}

#[tokio::test]
async fn sends_the_body_as_it_is_with_headers_that_verify() {
    let (address, mut received) = answering("200 OK").await;
    let secrets: Vec<SigningSecret> = vec![SECRET.parse().unwrap()];
    let shared: SharedSecret = "hunter2".parse().unwrap();
    let (now, body) = (Utc::now().timestamp(), r#"{"event":"é"}"#);
    let signatures = sign(&secrets, "e1", now, body.as_bytes());
    let headers =
        OutgoingHeaders { webhook_id: "e1", timestamp: now, signatures: &signatures, shared_secret: Some(&shared) };
    let client = client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT);
    let url = Url::parse(&format!("http://{address}/hook?x=1")).unwrap();
    let outcome = client.post(&url, headers, Bytes::from_static(body.as_bytes())).await;
    assert_eq!(outcome, PostOutcome::Delivered { status: 200 });

    let request = received.recv().await.unwrap();
    let (head, sent) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(sent, body);
    assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
    let mut map = HeaderMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").unwrap();
        map.insert(name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap());
    }
    assert_eq!(map["content-type"], "application/json");
    assert_eq!(map["x-webhook-secret"], "hunter2");
    assert!(map["user-agent"].to_str().unwrap().starts_with("driver-tracker/"));
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(sent.as_bytes(), &map).unwrap();
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (target, mut reached) = answering("200 OK").await;
    let (address, _received) = server(move |mut stream| async move {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let outcome = post(&client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT), &format!("http://{address}/")).await;
    assert_eq!(outcome, retry(302, "answered 302; redirects are not followed", None));
    assert!(reached.try_recv().is_err());
}

#[tokio::test]
async fn a_slow_answer_is_cut() {
    let (address, _received) = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let client = client_of(&["127.0.0.0/8"], Duration::from_millis(200));
    let error = "no answer within 200 ms".to_owned();
    let outcome = post(&client, &format!("http://{address}/")).await;
    assert_eq!(outcome, PostOutcome::Retry { status: None, error, retry_after: None });
}

#[tokio::test]
async fn an_endless_body_is_not_read_to_its_end() {
    let (address, _received) = server(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    let started = Instant::now();
    let outcome = post(&client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT), &format!("http://{address}/")).await;
    assert_eq!(outcome, PostOutcome::Delivered { status: 200 });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn endless_headers_are_not_read_to_their_end() {
    let (address, _received) = server(|mut stream| async move {
        let header = format!("x-more: {}\r\n", "x".repeat(8_000));
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while sent.is_ok() {
            sent = stream.write_all(header.as_bytes()).await;
        }
    })
    .await;
    let started = Instant::now();
    let outcome = post(&client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT), &format!("http://{address}/")).await;
    assert!(matches!(outcome, PostOutcome::Retry { status: None, .. }), "{outcome:?}");
    assert!(started.elapsed() < DEFAULT_TIMEOUT, "cut by its size, not by the time: {:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_that_trickles_is_cut() {
    let (address, _received) = server(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let outcome = post(&client_of(&["127.0.0.0/8"], Duration::from_millis(300)), &format!("http://{address}/")).await;
    let error = "no answer within 300 ms".to_owned();
    assert_eq!(outcome, PostOutcome::Retry { status: None, error, retry_after: None });
}

#[tokio::test]
async fn a_body_that_never_comes_does_not_undo_its_status() {
    let (address, _received) = server(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let outcome = post(&client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT), &format!("http://{address}/")).await;
    assert_eq!(outcome, PostOutcome::Delivered { status: 201 });
}

#[tokio::test]
async fn inner_addresses_are_never_connected_to_unless_allowed() {
    let (address, mut reached) = answering("200 OK").await;
    let client = client_of(&[], DEFAULT_TIMEOUT);
    let port = address.port();
    for host in ["127.0.0.1", "2130706433", "localhost", "[::ffff:127.0.0.1]"] {
        let outcome = post(&client, &format!("http://{host}:{port}/")).await;
        let PostOutcome::Retry { status: None, error, .. } = &outcome else { panic!("{host} {outcome:?}") };
        assert!(error.contains("EVENTS_ALLOWED_NETWORKS"), "{host} {error}");
    }
    assert!(reached.try_recv().is_err());
    let allowed = client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT);
    let outcome = post(&allowed, &format!("http://localhost:{port}/")).await;
    assert_eq!(outcome, PostOutcome::Delivered { status: 200 });
}

#[tokio::test]
async fn errors_hold_no_url() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client_of(&["127.0.0.0/8"], DEFAULT_TIMEOUT);
    let outcome = post(&client, &format!("http://{unused}/hook?token=s3cret")).await;
    let PostOutcome::Retry { status: None, error, .. } = outcome else { panic!("{outcome:?}") };
    assert!(error.contains("refused") && !error.contains("s3cret"), "{error}");
    let outcome = post(&client, "https://user:s3cret@shop.example/").await;
    assert!(matches!(&outcome, PostOutcome::Retry { error, .. } if !error.contains("s3cret")), "{outcome:?}");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = DateTime::from_timestamp(1_445_412_480, 0).unwrap();
    let parse = |value| parse_retry_after(value, now).map(|wait| wait.as_secs());
    assert_eq!(parse("120"), Some(120));
    assert_eq!(parse("Wed, 21 Oct 2015 07:29:00 GMT"), Some(60));
    assert_eq!(parse("Wed, 21 Oct 2015 07:27:00 GMT"), Some(0));
    assert_eq!(parse("Wednesday, 21-Oct-15 07:29:00 GMT"), Some(60), "as RFC 850 has it");
    assert_eq!(parse("Wed Oct 21 07:29:00 2015"), Some(60), "as asctime() has it");
    assert_eq!(parse("172800"), Some(172_800));
    assert_eq!(parse("Fri, 21 Oct 2095 07:28:00 GMT"), Some(604_800));
    assert_eq!(parse("99999999999999999999999999"), Some(604_800));
    for bad in ["", "-1", "1.5", "soon"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn a_machine_without_root_certificates_still_gets_a_client() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = EventsClientSettings::default();
    assert!(builder(&settings, Vec::new().into()).tls_certs_only([]).build().is_ok());
}
