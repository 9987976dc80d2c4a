//! The text that `dev` prints after startup: addresses, keys, and a first order to post.
//!
//! Invariant: the text fits one screen.

use std::fmt::Write;
use std::path::Path;

use super::demand::{CENTER, kept_free};
use super::workspace::{ENV_FILE, Running};

/// The drop of the printed order. It is a few streets from the pickup at the centre, so the delivery ends within a minute
/// or two.
const DROP: (f64, f64) = (12.9740, 77.5980);

/// Returns the text for the folder `dir`, spelled as the reader gave it, and this many simulated drivers.
pub(super) fn text(running: &Running, dir: &Path, drivers: u32) -> String {
    let url = &running.http_url;
    let rows = [
        ("API and webhook", url.clone()),
        ("health", format!("{url}/health")),
        ("drivers' socket", format!("{}/ws/driver", url.replacen("http", "ws", 1))),
        ("metrics", running.metrics_url.clone()),
        ("receiving shop", running.shop_url.clone()),
        ("API key (admin)", running.admin_key.clone()),
        ("your driver", running.driver.id.clone()),
        ("their token", running.driver.token.clone()),
    ];
    let mut text = String::from("\n");
    for (name, value) in rows {
        let _ = writeln!(text, "  {name:<17} {value}");
    }
    let env = dir.join(ENV_FILE);
    let env = if env.components().count() > 1 { env } else { Path::new(".").join(env) };
    let ((lat, lon), (drop_lat, drop_lon)) = (CENTER, DROP);
    let _ = write!(
        text,
        r#"
Post an order, in a second terminal in this folder:
  . {env}
  curl -sS "$URL/webhooks/vendure/seller-order-ready" -H "X-Webhook-Secret: $SECRET" \
    -H 'Content-Type: application/json' -d '{{"sellerOrderId": "'$(date +%s)'", "channelId": "1",
    "pickup": {{"lat": {lat}, "lon": {lon}}}, "drop": {{"lat": {drop_lat:.4}, "lon": {drop_lon:.4}}}}}'

{fleet}
Ctrl-C stops everything.

"#,
        env = env.display(),
        fleet = fleet(drivers),
    );
    text
}

/// Says what the simulated fleet does and how many drivers it leaves free.
fn fleet(drivers: u32) -> String {
    match drivers {
        0 => {
            "No simulated fleet: orders wait until your driver connects, sends a heartbeat and goes on duty.".to_owned()
        }
        1 => "1 simulated driver waits for your orders; a simulated shop needs at least 2 (`make run DRIVERS=2`)."
            .to_owned(),
        _ => format!(
            "{drivers} simulated drivers carry the orders of a simulated shop, and yours.\n\
             {} of {drivers} drivers are kept free for your orders: a simulated order never takes them.\n\
             `make run DRIVERS=0` runs without a fleet, for your own driver.",
            kept_free(drivers)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::workspace::DriverCredentials;

    fn running() -> Running {
        let url = "http://127.0.0.1:8080".to_owned();
        Running {
            http_url: url.clone(),
            metrics_url: format!("{url}/metrics"),
            admin_key: "k".repeat(60),
            shop_url: url,
            driver: DriverCredentials { id: "d".repeat(36), token: "t".repeat(60) },
            ..Running::default()
        }
    }

    #[test]
    fn it_fits_one_screen_and_says_how_many_drivers_are_kept_free() {
        for (drivers, said) in
            [(0, "No simulated fleet"), (1, "waits for your orders"), (50, "13 of 50 drivers are kept free")]
        {
            let text = text(&running(), Path::new(".dev"), drivers);
            assert!(text.contains(said), "{text}");
            assert!(text.contains("\n  . .dev/env\n"), "{text}");
            assert!(text.lines().count() <= 30, "the text leaves room on the screen for other lines: {text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{line}");
            }
        }
        assert!(text(&running(), Path::new("here"), 0).contains("\n  . here/env\n"));
    }
}
