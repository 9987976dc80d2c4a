//! Tests of drivers that are created in bulk for load tests.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use driver_tracker::dev::fleet;
use driver_tracker::store::Database;
use serde_json::Value;

use super::support::*;

fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).expect("the file is readable"))
        .expect("the file is an array of drivers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drivers_of_the_file_can_authenticate_and_are_reused() {
    let world = World::start().await;
    let dir = tempfile::tempdir().expect("the directory is created");
    let path = dir.path().join("fleet.json");
    let database = Database::new(&world.database_url, 1, false, tokio::runtime::Handle::current())
        .expect("the database handle is created");
    // More drivers than fit into one transaction.
    fleet::prepare(&path, &database, 450).await.expect("the drivers are created");
    let first = read(&path);
    assert_eq!(first.len(), 450);
    assert_eq!(
        std::fs::metadata(&path).expect("the file exists").permissions().mode() & 0o777,
        0o600,
        "only the owner may read the file with the tokens"
    );
    for driver in [&first[0], &first[449]] {
        let app = world.node().api().keyed(driver["token"].as_str());
        assert_eq!(app.get("/api/v1/driver/state").await.expect(200)["driver"]["id"], driver["id"]);
    }

    fleet::prepare(&path, &database, 460).await.expect("ten more drivers are created");
    let more = read(&path);
    assert_eq!((more.len(), &more[..450]), (460, &first[..]), "the earlier drivers are reused");
    fleet::prepare(&path, &database, 5).await.expect("no driver is created");
    assert_eq!(read(&path), more, "no driver is removed from the file");

    // A driver of another database, whom this database does not have.
    let foreign_drivers = r#"[{"id": "x", "token": "dt_drv_unknown"}]"#;
    std::fs::write(&path, foreign_drivers).expect("the file is written");
    fleet::prepare(&path, &database, 1).await.expect("a driver is created");
    assert_ne!(read(&path)[0]["token"], "dt_drv_unknown");
    world.finish().await;
}
