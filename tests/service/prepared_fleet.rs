//! Drivers that are made in bulk for load tests.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use driver_tracker::dev::fleet;
use driver_tracker::store::Database;
use serde_json::Value;

use super::support::*;

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).expect("the file")).expect("an array of drivers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_of_the_file_can_log_in_and_are_used_again() {
    let world = World::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("fleet.json");
    let database = Database::new(&world.database_url, 1, false, tokio::runtime::Handle::current()).expect("a handle");
    // More than fit into one transaction.
    fleet::prepare(&path, &database, 450).await.expect("drivers");
    let first = read(&path);
    assert_eq!(first.len(), 450);
    assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600, "tokens are private");
    for driver in [&first[0], &first[449]] {
        let app = world.node().api().keyed(driver["token"].as_str());
        assert_eq!(app.get("/api/v1/driver/state").await.expect(200)["driver"]["id"], driver["id"]);
    }

    fleet::prepare(&path, &database, 460).await.expect("ten more");
    let more = read(&path);
    assert_eq!((more.len(), &more[..450]), (460, &first[..]), "those of before are used again");
    fleet::prepare(&path, &database, 5).await.expect("nothing");
    assert_eq!(read(&path), more, "none is thrown away");

    // Of another database: nobody would know them.
    let stranger = r#"[{"id": "x", "token": "dt_drv_unknown"}]"#;
    std::fs::write(&path, stranger).expect("the file");
    fleet::prepare(&path, &database, 1).await.expect("a driver");
    assert_ne!(read(&path)[0]["token"], "dt_drv_unknown");
    world.finish().await;
}
